"""grouped-linear: the module with block-diagonal matrices, in products that every pass knows."""

import re

import numpy as np
import pytest
import torch
import zoo
from graphwright.ir.blocks import recognise
from graphwright.ir.blocks.stream import streams
from graphwright.ir.capture import capture
from graphwright.ir.errors import PassError, PipelineError
from graphwright.ir.footprint import weight_bytes
from graphwright.ir.text import text
from graphwright.ir.view import view
from graphwright.passes.manager.pipeline import Pipeline
from handmade import golden
from pruning import run
from recovery import agrees, distance, feeds_of
from scipy.optimize import linear_sum_assignment
from torch import nn
from zoo.handwritten import CausalBlock

GROUPS = 2
ROLES = {  # what reads one value together, and the products of a feed-forward: (ups, down)
    "bert": (r"self\.(query|key|value)$", r"intermediate\.dense$", r"layer\.\d\.output\.dense$"),
    "albert": (r"attention\.(query|key|value)$", r"\.ffn$", r"ffn_output$"),
    "llama": (r"self_attn\.[qkv]_proj$", r"(up|gate)_proj$", r"down_proj$"),
    "vit": (r"attention\.[qkv]_proj$", r"mlp\.fc1$", r"mlp\.fc2$"),
}


def feeds(name):
    case = zoo.ARCHITECTURES[name]
    return [{k: v.numpy() for k, v in case.inputs(4, 9, seed=i).items()} for i in range(3)]


def grouped(name, options=f"groups={GROUPS}", **context):
    return run(f"grouped-linear{{{options}}}", zoo.fx_program(name), **context)


def seen_by(module, given):
    """What each linear layer is given at real tokens, (rows, features)."""
    rows = {}

    def look(part, args):
        rows.setdefault(part, []).append(args[0].detach().double()[kept].reshape(-1, args[0].shape[-1]))

    hooks = [m.register_forward_pre_hook(look) for m in module.modules() if isinstance(m, nn.Linear)]
    for feed in given:
        kept = torch.from_numpy(feed["attention_mask"] != 0) if "attention_mask" in feed else ...
        with torch.no_grad():
            module(**{k: torch.from_numpy(v) for k, v in feed.items()})
    for hook in hooks:
        hook.remove()
    return {part: torch.cat(found).numpy() for part, found in rows.items()}


def centred(part, x):
    mean = x.mean(0) if part.bias is not None else np.zeros(x.shape[1])
    return x - mean, mean


def write(part, x, rows, columns):
    """A layer's weight as blocks, each by NumPy's least squares, and zeros elsewhere."""
    x, mean = centred(part, x)
    weight = part.weight.detach().double().numpy()
    pull = np.sqrt(0.01 * np.square(x).sum(0).mean())
    made = np.zeros_like(weight)
    for mine, into in zip(rows, columns, strict=True):
        inputs = np.concatenate([x[:, into], pull * np.eye(len(into))])
        targets = np.concatenate([x @ weight[mine].T, pull * weight[np.ix_(mine, into)].T])
        made[np.ix_(mine, into)] = np.linalg.lstsq(inputs, targets, rcond=None)[0].T
    if part.bias is not None:
        part.bias.data += torch.from_numpy((weight - made) @ mean)
    part.weight.data.copy_(torch.from_numpy(made))


def apart(size):
    return np.split(np.arange(size), GROUPS)


def neurons(ups, down, seen):
    """Which go to which group, by energy."""
    held = np.zeros((down.in_features, GROUPS))
    for part in (*ups, down):
        energy = part.weight.detach().double().numpy() ** 2 * np.square(centred(part, seen[part])[0]).sum(0)
        energy = energy.T if part is down else energy
        held += np.stack([energy[:, f].sum(1) for f in apart(energy.shape[1])], 1) / energy.sum()
    _, place = linear_sum_assignment(-held.repeat(len(held) // GROUPS, axis=1))
    return [np.flatnonzero(place // (len(held) // GROUPS) == group) for group in range(GROUPS)]


def blocked(module, given, roles):
    seen = seen_by(module, given)
    named = [(name, part) for name, part in module.named_modules() if part in seen]
    qkv, into, out = ([part for name, part in named if re.search(role, name)] for role in roles)
    assert qkv
    assert len(into) % len(out) == 0 < len(out)
    for part in qkv:
        write(part, seen[part], apart(part.out_features), apart(part.in_features))
    each = len(into) // len(out)
    for number, down in enumerate(out):
        ups = into[number * each : (number + 1) * each]
        groups = neurons(ups, down, seen)
        for up in ups:
            write(up, seen[up], groups, apart(up.in_features))
        write(down, seen[down], apart(down.out_features), groups)


@pytest.mark.parametrize("name", list(ROLES))
def test_it_is_the_module_with_block_diagonal_matrices(name):
    case, program, given = zoo.ARCHITECTURES[name], zoo.fx_program(name), feeds(name)
    done = grouped(name, calibration=given)
    assert done.ok, done.steps[0].error
    module = case.build(case.attns[-1])
    blocked(module, given, ROLES[name])
    tensors = case.inputs(3, 11, seed=5)
    with torch.no_grad():
        expected = module(**tensors)[program.outputs[0]]
        found = done.program.graph(*(tensors[spec.name] for spec in program.inputs))[0]
    torch.testing.assert_close(found, expected, atol=2e-4, rtol=1e-3)


def facts(program):
    graph = view(program)
    blocks = recognise(graph)
    found, notes = streams(graph, blocks)
    return (
        [(a.heads, a.cross, a.causal, a.rotary) for a in blocks.attention],
        [norm.position for norm in blocks.norm],
        [residual.of for residual in blocks.residual],
        [len(stack.layers) for stack in blocks.stack],
        [[(layer.entry.shape, layer.exit.shape) for layer in one.layers] for one in found],
        notes,
        blocks.missed,
    )


@pytest.mark.parametrize(
    "name",
    ["bert", "roberta", "albert", "mpnet", "mobilebert", "modernbert", "t5", "gpt2", "llama", "vit"],
)
def test_layers_are_found_as_before_and_feed_forwards_are_narrow_ones(name):
    program = zoo.fx_program(name)
    done = grouped(name)
    assert done.ok, done.steps[0].error
    assert facts(program) == facts(done.program)
    before, after = (recognise(view(one)).feed_forward for one in (program, done.program))
    assert [one.width for one in after] == [one.width // 2 for one in before for _ in range(2)]
    assert [one.activation for one in after] == [one.activation for one in before for _ in range(2)]


def test_shared_weights_stay_shared_and_a_group_has_its_share_of_the_bytes():
    program, done = zoo.fx_program("albert"), grouped("albert")
    said = done.steps[0].statistics
    sizes = 4 * (3 * 32 * 32 + 2 * 32 * 72)
    assert (said["bytes before"], said["bytes"]) == (sizes, sizes // 2)
    assert weight_bytes(program) - weight_bytes(done.program) == sizes // 2
    assert said["feed-forwards and projections grouped"] == "4 of 4"


@pytest.mark.parametrize(("where", "count"), [("ffn", 2), ("attention", 6)])
def test_only_what_was_asked_for_is_grouped(where, count):
    done = grouped("bert", f"groups=2,where={where}")
    assert len(done.steps[0].rewrites) == count
    left = [name for name in done.program.graph.state_dict() if "group_" not in name and "weight" in name]
    assert any("query.weight" in name for name in left) == (where == "ffn")
    assert any("intermediate.dense.weight" in name for name in left) == (where == "attention")
    assert any("attention.output.dense.weight" in name for name in left)


@pytest.mark.parametrize(
    ("options", "reason"),
    [("groups=1", "2 or more"), ("tokens=0", "at least one"), ("damping=0.0", "above 0")],
)
def test_options_that_mean_nothing_are_refused(options, reason):
    with pytest.raises(PipelineError, match=reason):
        Pipeline.parse(f"grouped-linear{{{options}}}")


class UpDown(nn.Module):
    """twice: the last matrix multiplies once more, outside of the feed-forward."""

    def __init__(self, width=12, twice=False):
        super().__init__()
        self.up, self.down, self.twice = nn.Linear(8, width), nn.Linear(width, 8), twice

    def forward(self, x):
        h = self.up(x)
        y = self.down(h.relu())
        return x + y + self.down(h) if self.twice else x + y


class Alone(nn.Linear):
    def __init__(self):
        super().__init__(8, 4)

    def forward(self, x):
        return super().forward(x)


def captured(module):
    torch.manual_seed(0)
    return capture(module().eval(), inputs={"x": torch.randn(2, 3, 8)})


@pytest.mark.parametrize(
    ("make", "options", "reason"),
    [
        (lambda: captured(UpDown), "groups=3", "8 inputs of up.weight don't fall into 3 equal groups"),
        (lambda: captured(lambda: UpDown(10)), "groups=4", "10 outputs of up.weight don't fall into 4"),
        (lambda: captured(lambda: UpDown(twice=True)), "groups=2", "down.weight is used in another place"),
        (lambda: captured(UpDown), "groups=2,where=attention", "no attention with weights of its own"),
        (lambda: captured(Alone), "groups=2", "no attention or feed-forward with weights"),
        (lambda: zoo.fx_program("squeezebert"), "groups=2", "it is a convolution"),
    ],
)
def test_what_cannot_be_grouped_says_why_and_stays(make, options, reason):
    program = make()
    done = run(f"grouped-linear{{{options}}}", program)
    assert isinstance(done.steps[0].error, PassError)
    assert reason in str(done.steps[0].error)
    assert done.program.fingerprint() == program.fingerprint()


def test_a_part_that_does_not_divide_is_named_and_the_rest_is_grouped():
    done = grouped("bert", "groups=16")
    assert done.ok
    assert len(done.steps[0].rewrites) == 6  # queries, keys and values; 72 neurons don't divide
    assert sum("don't fall into 16 equal groups" in note for note in done.steps[0].notes) == 2
    only = grouped("bert", "groups=5,where=attention").steps[0]
    path = "encoder.layer.0.attention.self.query.weight"
    assert f"{path} stays, 32 inputs don't fall into 5 equal groups" in str(only.error)


@pytest.mark.parametrize("over", ["one value", "two values"])
def test_feed_forwards_beside_each_other_are_one_branch_only_over_one_value(over):
    class Beside(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = UpDown(6), UpDown(6)
            for one in (self.a, self.b):
                one.up, one.down = nn.Linear(4, 6), nn.Linear(6, 4)

        def forward(self, x):
            first, second = x.split(4, -1)
            second = second if over == "one value" else (x * 2).split(4, -1)[1]
            parts = [m.down(m.up(piece).relu()) for m, piece in ((self.a, first), (self.b, second))]
            return x + torch.cat(parts, -1)

    blocks = recognise(view(captured(Beside)))
    assert len(blocks.feed_forward) == 2
    assert len(blocks.residual) == (over == "one value")


def test_queries_of_one_value_and_keys_of_another_are_cross_attention_in_groups_too():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.block = CausalBlock(8, 2, 16, 40, True)

        def forward(self, x):
            return self.block(x)

    program = captured(Two)
    assert [a.cross for a in recognise(view(program)).attention] == [False]
    done = run("grouped-linear{groups=2,where=attention}", program)
    assert [a.cross for a in recognise(view(done.program)).attention] == [False]
    t5 = grouped("t5", "groups=2,where=attention")
    assert sum(a.cross for a in recognise(view(t5.program)).attention) == 2


def test_golden():
    program = captured(UpDown)
    after = run("grouped-linear{groups=2}", program).program
    shown = [re.sub(r" #[0-9a-f]+", "", text(one)) for one in (program, after)]
    golden("share/grouped-linear", "# before\n{}\n# after\n{}\n".format(*shown))


@pytest.mark.parametrize(
    ("name", "rest"),
    [
        ("bert", "to-onnx,quantize-dynamic"),
        ("llama", "fake-quant,to-onnx"),
        ("bert", "prune-ffn{importance=magnitude,multiple=4}"),
        ("bert", "tie-layers{what=ffn},prune-layers{keep=1}"),
    ],
)
def test_what_comes_after_finds_a_program_like_any_other(name, rest):
    data = feeds_of(zoo.fx_program(name), 6)
    first = grouped(name, calibration=data)
    done = run(rest, first.program, calibration=data, original=first.program)
    assert [step.status for step in done.steps] == ["applied"] * len(done.steps), done.steps
    agrees(first.program, done.program, rest)


def test_distilling_brings_it_nearer():
    program = zoo.fx_program("llama")
    data = feeds_of(program)
    done = grouped("llama")  # from the diagonal
    options = "distill{steps=30,rate=3e-3,batch=4,precision=float32}"
    taught = run(options, done.program, calibration=data, original=program)
    assert taught.ok, taught.steps
    assert distance(program, taught.program) < distance(program, done.program)

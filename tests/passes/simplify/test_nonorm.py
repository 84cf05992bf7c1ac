"""nonorm, against NoNorms fitted by NumPy in the models' own PyTorch."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import zoo
from graphwright.backends.runtimes.onnxruntime import OnnxRuntime
from graphwright.backends.tvm.backend import Tvm
from graphwright.ir.blocks import recognise
from graphwright.ir.blocks.stream import streams
from graphwright.ir.capture import capture
from graphwright.ir.errors import PassError, PipelineError
from graphwright.ir.execute import execute
from graphwright.ir.fx.graph import attribute
from graphwright.ir.text import text
from graphwright.ir.view import view
from graphwright.passes.manager.contract import Context
from graphwright.passes.manager.pipeline import Pipeline
from graphwright.passes.simplify.nonorm import Nonorm
from graphwright.passes.simplify.norms.calibrated import fitted, rows
from handmade import golden
from torch import nn

NAMES = ("bert", "roberta", "albert", "mpnet", "modernbert", "t5", "gpt2", "llama", "vit", "qwen3")


def feeds(name, count=4):
    case = zoo.ARCHITECTURES[name]
    return [{k: v.numpy() for k, v in case.inputs(8, 12, seed=i).items()} for i in range(count)]


def context(name, **settings):
    return Context(calibration=feeds(name), original=zoo.fx_program(name), **settings)


@pytest.fixture(scope="module")
def without():
    """By architecture, the result of nonorm; made once."""
    made = {}

    def get(name):
        if name not in made:
            made[name] = Nonorm().run(zoo.fx_program(name).clone(), context(name))
        return made[name]

    return get


class NoNorm(nn.Module):
    def __init__(self, gamma, beta):
        super().__init__()
        self.gamma, self.beta = torch.as_tensor(gamma).float(), torch.as_tensor(beta).float()

    def forward(self, x):
        return x * self.gamma + self.beta


def kept(module, layer, data):
    """(inputs, outputs) of a layer at real tokens, over all feeds, float64."""
    seen = []
    hook = layer.register_forward_hook(lambda layer, given, found: seen.append((given[0], found)))
    with torch.no_grad():
        for feed in data:
            module(**{name: torch.from_numpy(array) for name, array in feed.items()})
    hook.remove()
    masks = [feed["attention_mask"].astype(bool) for feed in data]
    return [
        np.concatenate([pair[side].numpy()[mask] for pair, mask in zip(seen, masks, strict=True)]).astype(
            float
        )
        for side in (0, 1)
    ]


def in_pytorch(name, data):
    """[(gamma, beta)] of a model's LayerNorms, each fitted by lstsq with those before it replaced."""
    original, module = (zoo.ARCHITECTURES[name].build() for _ in range(2))
    found = []
    for path, norm in list(module.named_modules()):
        if not isinstance(norm, nn.LayerNorm):
            continue
        target = kept(original, original.get_submodule(path), data)[1]
        x = kept(module, norm, data)[0]
        pairs = zip(x.T, target.T, strict=True)
        columns = [np.linalg.lstsq(np.stack([a, np.ones_like(a)], 1), t)[0] for a, t in pairs]
        found.append(tuple(np.array(columns).T))
        owner, _, leaf = path.rpartition(".")
        setattr(module.get_submodule(owner), leaf, NoNorm(*found[-1]))
    return found, module


def test_each_norm_is_fitted_to_what_the_maps_before_it_give():
    data, program = feeds("bert"), zoo.fx_program("bert")
    norms = recognise(view(program)).norm
    found = fitted(program, norms, [None] * 5, (data, []), 4.0, Context())
    expected, _ = in_pytorch("bert", data)
    assert len(expected) == len(found) == 5
    for one, (gamma, beta) in zip(found, expected, strict=True):
        np.testing.assert_allclose(one.gamma, gamma, rtol=1e-3, atol=2e-5)
        np.testing.assert_allclose(one.beta, beta, rtol=1e-3, atol=2e-5)


def test_the_program_computes_with_the_maps():
    """As PyTorch does with the same maps in the norms' places; and nearer to the model than by chance."""
    program, data = zoo.fx_program("bert"), feeds("bert")
    done = Nonorm().run(program.clone(), Context(calibration=data))
    maps = recognise(view(done.program)).norm
    module = zoo.ARCHITECTURES["bert"].build()
    paths = [path for path, m in module.named_modules() if isinstance(m, nn.LayerNorm)]
    for path, norm in zip(paths, maps, strict=True):
        owner, _, leaf = path.rpartition(".")
        numbers = [attribute(done.program.graph, v.native.target).detach() for v in (norm.weight, norm.bias)]
        setattr(module.get_submodule(owner), leaf, NoNorm(*numbers))
    feed = feeds("bert", 5)[-1]
    with torch.no_grad():
        expected = module(**{name: torch.from_numpy(array) for name, array in feed.items()})[0].numpy()
    found = execute(done.program, [feed])[0][program.outputs[0]]
    np.testing.assert_allclose(found, expected, atol=2e-6, rtol=1e-5)
    real = feed["attention_mask"].astype(bool)
    wanted = execute(program, [feed])[0][program.outputs[0]][real]
    away = ((found[real] - wanted) ** 2).sum() / ((wanted - wanted.mean(0)) ** 2).sum()
    assert away < 0.1


@pytest.mark.parametrize("name", NAMES)
def test_everything_else_is_recognised_as_before(without, name):
    program, done = zoo.fx_program(name), without(name)
    graphs = [view(program), view(done.program)]
    blocks = [recognise(graph) for graph in graphs]
    assert done.modified
    assert blocks[0].summary() == blocks[1].summary()
    assert {norm.kind for norm in blocks[1].norm} == {"no_norm"}
    assert [n.position for n in blocks[0].norm] == [n.position for n in blocks[1].norm]
    counts = [[len(s.layers) for s in streams(graph, b)[0]] for graph, b in zip(graphs, blocks, strict=True)]
    assert counts[0] == counts[1]
    assert {"layer_norm", "rms_norm", "rsqrt"}.isdisjoint(value.op for value in graphs[1])
    assert done.statistics["norms replaced"] == f"{len(blocks[0].norm)} of {len(blocks[0].norm)}"


def test_what_padding_holds_changes_nothing():
    program, data = zoo.fx_program("bert"), feeds("bert")
    other = [dict(feed) for feed in data]
    for feed in other:
        feed["input_ids"] = np.where(feed["attention_mask"], feed["input_ids"], 99)
    norms = recognise(view(program)).norm
    first, second = (fitted(program, norms, [None] * 5, (d, []), 4.0, Context()) for d in (data, other))
    for a, b in zip(first, second, strict=True):
        torch.testing.assert_close(a.gamma, b.gamma, rtol=1e-5, atol=1e-7)
        assert a.scale == pytest.approx(b.scale, rel=1e-5)


def test_rows_are_found_where_heads_stand_before_positions():
    program, feed = zoo.fx_program("bert"), feeds("bert", 1)[0]
    batch, length = program.inputs[0].shape
    mask = feed["attention_mask"].astype(bool)
    value = np.random.default_rng(0).standard_normal((len(mask), 2, mask.shape[1], 4))
    norm = SimpleNamespace(root=SimpleNamespace(shape=(batch, 2, length, 4)))
    expected = value.transpose(0, 2, 1, 3)[mask].reshape(-1, 4)
    np.testing.assert_array_equal(rows(program, feed, norm, torch.from_numpy(value)), expected)
    flat = value[:, 0].reshape(-1, 4)
    norm = SimpleNamespace(root=SimpleNamespace(shape=(f"{batch}*{length}", 4)))
    np.testing.assert_array_equal(rows(program, feed, norm, torch.from_numpy(flat)), flat[mask.reshape(-1)])


class Spiked(nn.Module):
    """Layers of x + tanh(W norm(x)) / 4; one token's vector is much longer than the others'."""

    def __init__(self, times):
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(20, 8)
        self.table.weight.data[7] *= times
        self.norms = nn.ModuleList(nn.LayerNorm(8) for _ in range(2))
        self.linears = nn.ModuleList(nn.Linear(8, 8) for _ in range(2))

    def forward(self, input_ids):
        x = self.table(input_ids)
        for norm, linear in zip(self.norms, self.linears, strict=True):
            x = x + torch.tanh(linear(norm(x))) / 4
        return x


@pytest.mark.parametrize(
    ("times", "every", "what"), [(1000, 4, "its results"), (0.3, None, None), (20, 64, "its largest row")]
)
def test_a_norm_without_which_activations_diverge_stays_and_is_named(times, every, what):
    torch.manual_seed(0)
    ids = torch.randint(8, 20, (64, 6))
    if every:
        ids[3::every, 2] = 7  # in rows that are held out
    program = capture(Spiked(times).eval(), inputs={"input_ids": ids})
    run = Pipeline.parse("nonorm").run(program, Context(calibration=[{"input_ids": ids.numpy()}]))
    if what is None:
        assert run.steps[0].statistics["norms replaced"] == "2 of 2"
        return
    assert run.steps[0].status == "no change"
    assert run.steps[0].statistics["norms replaced"] == "0 of 2"
    for number, note in enumerate(run.steps[0].notes):
        assert note.startswith(f"norm {number} (layer_norm")
        assert f"without it {what} would be" in note
        assert "times as large (limit 4)" in note
    assert run.program.fingerprint() == program.fingerprint()
    wide = Nonorm(limit=1e6).run(program.clone(), Context(calibration=[{"input_ids": ids.numpy()}]))
    assert wide.statistics["norms replaced"] == "2 of 2"


def test_norms_are_picked_by_number():
    done = Nonorm(layers=(1, 3)).run(zoo.fx_program("bert").clone(), context("bert"))
    kinds = [norm.kind for norm in recognise(view(done.program)).norm]
    assert kinds == ["layer_norm", "no_norm", "layer_norm", "no_norm", "layer_norm"]
    again = Nonorm(layers=(0, 1)).run(done.program.clone(), context("bert"))
    assert again.notes == ("norm 1 (add_tensor) stays: it is an element-wise affine map already",)
    assert again.statistics["norms replaced"] == "1 of 5"


def test_rewrites_that_are_not_allowed_leave_the_program():
    program = zoo.fx_program("bert")
    done = Nonorm().run(program.clone(), context("bert", allow=lambda rewrite: False))
    assert not done.modified
    assert done.program.fingerprint() == program.fingerprint()


def test_a_norms_own_numbers_need_no_data():
    program = zoo.fx_program("llama")
    done = Nonorm(init="weights").run(program.clone(), Context())
    norm = recognise(view(done.program)).norm[0]
    own = attribute(program.graph, "model.layers.0.input_layernorm.weight")
    torch.testing.assert_close(norm.weight.tensor, own)
    assert not norm.bias.tensor.any()
    assert done.notes == ("no calibration data was given, so nobody knows how far activations grow",)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("layers=(1,1)", "given once"),
        ("limit=1", "more than 1"),
        ("tokens=0", "at least one"),
        ("init=random", "one of fit, weights"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(PipelineError, match=message):
        Pipeline.parse(f"nonorm{{{options}}}")


def test_without_data_it_asks_for_some():
    with pytest.raises(PipelineError, match="calibration data: give it real inputs"):
        Pipeline.parse("nonorm").run(zoo.fx_program("bert"), Context())


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("bert", {"layers": (5,)}, "there is no norm 5: the model has norms 0 to 4"),
        ("mobilebert", {}, r"no norm to replace: norm 0 \(add_2\) stays: it is an element-wise affine map"),
    ],
)
def test_what_cannot_be_replaced_is_refused_in_a_sentence(name, options, message):
    with pytest.raises(PassError, match=message):
        Nonorm(**options).run(zoo.fx_program(name).clone(), context(name))


def test_a_model_without_norms_says_so():
    program = capture(nn.Linear(4, 4), inputs={"input": torch.randn(2, 4)})
    with pytest.raises(PassError, match="no norm to replace: none was found"):
        Nonorm(init="weights").run(program, Context())


@pytest.mark.parametrize(
    "after",
    [
        "prune-ffn{importance=magnitude,multiple=1},to-onnx",
        "prune-hidden{importance=magnitude,multiple=8},prune-layers{keep=1}",
        'distill{steps=2,batch=4,precision=float32,patience=0,layers="1:1,2:2"}',
        "to-onnx,quantize-dynamic",
    ],
)
def test_other_families_go_on_from_there(without, after):
    program = without("bert").program
    run = Pipeline.parse(after).run(program, context("bert"))
    assert run.ok, [step.error for step in run.steps]
    assert all(step.status == "applied" for step in run.steps)
    found = execute(run.program, feeds("bert", 1))[0]
    assert all(np.isfinite(array).all() for array in found.values())


def test_golden():
    module = nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 2))
    for number, parameter in enumerate(module.parameters()):
        parameter.data = torch.arange(parameter.numel()).reshape(parameter.shape) / 4 + number
    program = capture(module.eval(), inputs={"input": torch.randn(3, 4)})
    after = Nonorm(init="weights").run(program.clone(), Context()).program
    golden("simplify/nonorm", f"# before\n{text(program)}\n# after\n{text(after)}")


@pytest.mark.slow
def test_both_runtimes_compute_what_pytorch_computes(without):
    """NoNorms and another activation, compiled and in ONNX Runtime."""
    made = Pipeline.parse("replace-activation{to=quick-gelu}").run(without("bert").program, Context())
    lowered = Pipeline.parse("to-onnx,fuse-bias-gelu").run(made.program, Context(gates=False))
    assert made.ok
    assert lowered.ok
    artifact = Tvm().build(lowered.program, threads=1, buckets=[{"batch": 4, "length": 16}])
    session = OnnxRuntime().build(lowered.program, threads=1)
    for given in feeds("bert", 2):
        expected = execute(made.program, [given])[0]
        kept = given["attention_mask"] != 0
        for runtime in (artifact, session):
            for output, found in runtime.run(given).items():
                np.testing.assert_allclose(found[kept], expected[output][kept], rtol=1e-4, atol=1e-4)

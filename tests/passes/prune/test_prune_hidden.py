"""prune-hidden: what is left is the model at the smaller width, to the last digit."""

import copy

import numpy as np
import pytest
import torch
import zoo
from graphwright.ir.blocks import recognise
from graphwright.ir.capture import capture
from graphwright.ir.errors import PassError, PipelineError
from graphwright.ir.execute import execute
from graphwright.ir.fx.graph import attribute, replace_tensor
from graphwright.ir.inputs.probe import probes
from graphwright.ir.view import view
from graphwright.passes.manager.contract import Context
from graphwright.passes.manager.pipeline import Pipeline
from graphwright.passes.prune.importance.width import scores
from graphwright.passes.prune.surgery.width import widths
from pruning import run


def feeds(name):
    case = zoo.ARCHITECTURES[name]
    return [{k: v.numpy() for k, v in case.inputs(4, 9, seed=i).items()} for i in range(2)]


def outputs(program, tensors):
    with torch.no_grad():
        return program.graph(*(tensors[spec.name] for spec in program.inputs))


@pytest.mark.usefixtures("as_written")
@pytest.mark.parametrize("name", ["llama", "qwen3"])
def test_it_is_the_model_built_at_that_size(name):
    case = zoo.ARCHITECTURES[name]
    module = case.build().double()
    done = run("prune-hidden{importance=magnitude,multiple=4}", capture(module, inputs=case.inputs()))
    assert done.ok
    assert done.steps[0].statistics["hidden size"] == "36"
    config = copy.deepcopy(module.config)
    config.hidden_size, config.head_dim = 36, next(iter(recognise(view(done.program)).attention)).head_dim
    smaller = type(module)(config).double().eval()
    smaller.load_state_dict(done.program.graph.state_dict(), strict=False)
    theirs = {key for key in smaller.state_dict() if "inv_freq" not in key}
    assert theirs <= done.program.graph.state_dict().keys()
    tensors = case.inputs(2, 13, seed=5)
    with torch.no_grad():
        expected = smaller(**tensors).logits
    torch.testing.assert_close(outputs(done.program, tensors)[0], expected, atol=1e-12, rtol=1e-10)


class Kept(torch.nn.Module):
    """A norm over the channels that are kept, which gives zeros for the others."""

    def __init__(self, norm, kept):
        super().__init__()
        self.norm, self.kept = norm, kept

    def forward(self, x):
        weight, bias = self.norm.weight[self.kept], self.norm.bias[self.kept]
        inner = torch.nn.functional.layer_norm(
            x[..., self.kept], (len(self.kept),), weight, bias, self.norm.eps
        )
        return torch.zeros_like(x).index_copy(-1, self.kept, inner)


@pytest.mark.usefixtures("as_written")
@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_it_is_the_model_whose_norms_see_the_rest_alone(name):
    """bert's output is the stream itself, and keeps its shape; gpt2's are logits of a tied table."""
    case = zoo.ARCHITECTURES[name]
    module = case.build().double()
    program = capture(copy.deepcopy(module), inputs=case.inputs())
    norms = [key for key, part in module.named_modules() if isinstance(part, torch.nn.LayerNorm)]
    done = run("prune-hidden{importance=random,ratio=0.4,multiple=1}", program, seed=2)
    assert done.ok
    before = module.get_submodule(norms[0]).weight
    left = done.program.graph.state_dict()[f"{norms[0]}.weight"]
    kept = torch.tensor([i for i, number in enumerate(before) if number in left])
    assert len(kept) == len(left) == 19
    for key in norms:
        parent, _, leaf = key.rpartition(".")
        setattr(module.get_submodule(parent), leaf, Kept(module.get_submodule(key), kept))
    tensors = case.inputs(2, 13, seed=5)
    with torch.no_grad():
        expected = module(**tensors)[program.outputs[0]]
    torch.testing.assert_close(outputs(done.program, tensors)[0], expected, atol=1e-12, rtol=1e-10)


def test_a_multiple_that_leaves_every_channel_is_named():
    done = run("prune-hidden{importance=random,ratio=0.25,multiple=16}", zoo.fx_program("bert"))
    assert "no width below is a multiple of 16" in done.steps[0].notes[-1]


@pytest.mark.parametrize("name", ["mobilebert", "albert", "t5", "vit", "clip_text", "modernbert", "einsum"])
def test_blocks_are_found_in_what_is_left(name):
    program = zoo.fx_program(name)
    done = run("prune-hidden{importance=random,ratio=0.5,multiple=4}", program)
    assert done.ok
    before, after = recognise(view(program)), recognise(view(done.program))
    assert before.summary() == after.summary()
    assert [a.heads for a in before.attention] == [a.heads for a in after.attention]
    assert all(
        b.down.out_features < a.down.out_features
        for a, b in zip(before.feed_forward, after.feed_forward, strict=True)
    )


def test_it_goes_on_to_onnx():
    text = "prune-heads{importance=random,ratio=0.5},prune-hidden{importance=random,multiple=4}"
    pruned = run(text, zoo.fx_program("bert"))
    lowered = run("to-onnx,fuse-attention", pruned.program)
    assert pruned.ok
    assert lowered.ok
    fed = probes(pruned.program, 1)
    for a, b in zip(execute(pruned.program, fed), execute(lowered.program, fed), strict=True):
        for output in pruned.program.outputs:
            np.testing.assert_allclose(b[output], a[output], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("method", ["magnitude", "taylor", "fisher", "fisher-block", "activation"])
def test_a_channel_that_is_always_zero_is_worth_least(method):
    program, channel = zoo.fx_program("bert").clone(), 13
    (width,) = widths(program)[0] or widths(_restored(program))[0]
    nodes = {node.name: node for node in program.graph.graph.nodes}
    for name in width.sites:
        for operand in nodes[name].args[2:4]:
            tensor = attribute(program.graph, operand.target).detach().clone()
            tensor[channel] = 0
            replace_tensor(program.graph, operand, torch.nn.Parameter(tensor))
    if method == "magnitude":  # of all weights of the channel: what reads the stream too
        (one,) = widths(program)[0]
        for group, _ in one.going([channel]):
            for member in group.members:
                if member.value.tensor is not None:
                    tensor = member.value.tensor.detach().clone()
                    tensor.index_fill_(member.axis, torch.tensor(member.map.indices([channel])), 0)
                    replace_tensor(program.graph, member.value.native, torch.nn.Parameter(tensor))
    (weighed,) = scores(program, widths(program)[0], method, Context(calibration=feeds("bert")))
    assert weighed.argmin() == channel
    assert weighed[channel] == pytest.approx(0, abs=1e-12)
    assert (weighed > 1e-12).sum() == 31


def _restored(program):
    from graphwright.passes.prune.surgery.width import restore

    restore(program)
    return program


def test_a_stream_whose_channels_cannot_go_is_named():
    done = run("prune-hidden{importance=random}", zoo.fx_program("squeezebert", "eager"))
    assert isinstance(done.steps[0].error, PassError)
    assert "the width of add" in str(done.steps[0].error)


def test_a_ratio_of_one_is_refused():
    with pytest.raises(PipelineError, match="at least 0 and below 1"):
        Pipeline.parse("prune-hidden{ratio=1.0}")


def test_no_ratio_changes_nothing():
    done = run("prune-hidden{importance=magnitude,ratio=0.0}", zoo.fx_program("bert"))
    assert done.steps[0].status == "no change"

"""embedding-convolution: the same outputs at first, a convolution over text alone once it has learned."""

import re
from dataclasses import replace

import graphwright as gw
import numpy as np
import pytest
import torch
import zoo
from graphwright.backends.tvm.backend import Tvm
from graphwright.backends.tvm.run.artifact import write_compiled
from graphwright.ir.blocks import recognise
from graphwright.ir.capture import capture
from graphwright.ir.errors import PassError, PipelineError
from graphwright.ir.execute import execute
from graphwright.ir.text import text
from graphwright.ir.view import view
from graphwright.passes.manager.contract import Context
from graphwright.passes.manager.pipeline import Pipeline
from graphwright.passes.share.embedding_convolution import EmbeddingConvolution
from handmade import golden
from pruning import run
from recovery import agrees, feeds_of
from torch import nn
from torch.nn.functional import conv1d

NATIVE = ("albert", "electra")  # factorised as they come
RANK = 8


def narrow(name):
    program = zoo.fx_program(name)
    return program if name in NATIVE else run(f"factorise-embedding{{rank={RANK}}}", program).program


def convolved(name, kernel=3):
    done = run(f"embedding-convolution{{kernel={kernel}}}", narrow(name))
    assert done.ok, done.steps[0].error
    return done


def learned(program):
    """With neighbours that count, and the convolution's weight (wide, tokens, narrow)."""
    twin = program.clone()
    path = next(path for path in twin.graph.state_dict() if "convolution" in path)
    weight = torch.randn(twin.graph.state_dict()[path].shape, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        owner, _, leaf = path.rpartition(".")
        setattr(twin.graph.get_submodule(owner), leaf, nn.Parameter(weight))
    return twin, weight


def outputs(program, tensors):
    with torch.no_grad():
        return program.graph(*(tensors[spec.name] for spec in program.inputs))[0]


@pytest.mark.parametrize("name", ["bert", "roberta", "albert", "electra", "mpnet", "modernbert"])
def test_outputs_are_as_they_were_and_blocks_are_found(name):
    before, done = narrow(name), convolved(name)
    assert done.steps[0].effect.tolerance <= 1e-4  # which the manager has held it to
    tensors = zoo.ARCHITECTURES[name].inputs(3, 11, seed=5)
    torch.testing.assert_close(outputs(done.program, tensors), outputs(before, tensors), atol=2e-5, rtol=1e-4)
    old, new = (recognise(view(one)) for one in (before, done.program))
    assert old.summary() == new.summary()
    assert [norm.position for norm in old.norm] == [norm.position for norm in new.norm]
    assert {t.name for e in old.embedding for t in e.tables} == {
        t.name for e in new.embedding for t in e.tables
    }
    assert old.missed == new.missed


@pytest.mark.parametrize("kernel", [3, 5])
def test_it_is_a_convolution_over_the_tokens_of_a_text(kernel):
    program, weight = learned(convolved("bert", kernel).program)
    rows = program.graph.state_dict()["embeddings.word_embeddings.weight"]
    case = zoo.ARCHITECTURES["bert"]
    tensors, mask = (found := case.inputs(3, 11, seed=5)), found["attention_mask"]
    text_alone = (rows[tensors["input_ids"]] * mask[..., None]).transpose(1, 2)
    kernels = weight.reshape(len(weight), kernel, RANK).transpose(1, 2)
    wide = conv1d(text_alone, kernels, padding=kernel // 2).transpose(1, 2)
    given = {"attention_mask": mask, "token_type_ids": tensors["token_type_ids"], "inputs_embeds": wide}
    with torch.no_grad():
        expected = case.build()(**given).last_hidden_state
    real = mask != 0
    found = outputs(program, tensors)
    torch.testing.assert_close(found[real], expected[real], atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["bert", "albert"])
def test_what_a_text_gives_does_not_depend_on_its_padding(name):
    program, _ = learned(convolved(name).program)
    tensors = zoo.ARCHITECTURES[name].inputs(3, 11, seed=5)
    kept = tensors["attention_mask"][2].sum()
    alone = {k: v[2:, :kept] for k, v in tensors.items()}
    other = {**tensors, "input_ids": tensors["input_ids"].clone()}
    other["input_ids"][tensors["attention_mask"] == 0] = 7
    expected = outputs(program, alone)[0]
    for padded in (tensors, other):
        torch.testing.assert_close(outputs(program, padded)[2, :kept], expected, atol=1e-5, rtol=1e-4)
    beside = {**alone, "input_ids": alone["input_ids"].clone()}
    beside["input_ids"][0, 0] = 7
    assert (outputs(program, beside)[0] - expected).abs().max() > 1e-3


def test_a_text_of_one_token_has_no_neighbours():
    program, weight = learned(convolved("bert", 5).program)
    one = {k: v[:, :1] for k, v in zoo.ARCHITECTURES["bert"].inputs(2, 3).items()}
    middle = torch.zeros_like(weight)
    middle[:, 2 * RANK : 3 * RANK] = weight[:, 2 * RANK : 3 * RANK]
    alone, _ = learned(program)
    alone.graph.load_state_dict(
        {k: middle if "convolution" in k else v for k, v in program.graph.state_dict().items()}
    )
    torch.testing.assert_close(outputs(program, one), outputs(alone, one))


class Tokens(nn.Module):
    def __init__(self, bias=True):
        super().__init__()
        self.words, self.wide = nn.Embedding(30, 4), nn.Linear(4, 8, bias=bias)
        self.norm, self.up, self.down = nn.LayerNorm(8), nn.Linear(8, 12), nn.Linear(12, 8)

    def forward(self, input_ids):
        x = self.norm(self.wide(self.words(input_ids)))
        return x + self.down(self.up(x).relu())


class Twice(Tokens):
    """The product that widens is used once more."""

    def forward(self, input_ids):
        return super().forward(input_ids) @ self.wide.weight


class Scaled(Tokens):
    """The matrix that widens is made of two."""

    def forward(self, input_ids):
        x = self.norm(self.words(input_ids) @ (self.wide.weight * self.wide.bias[:, None]).T)
        return x + self.down(self.up(x).relu())


def captured(make):
    torch.manual_seed(0)
    return capture(make().eval(), inputs={"input_ids": torch.arange(27).reshape(3, 9)})


def test_without_a_mask_every_token_is_text_and_it_says_so():
    step = run("embedding-convolution", captured(Tokens)).steps[0]
    assert step.status == "applied"
    assert "no mask tells padding from text" in step.notes[-1]
    assert step.statistics["parameters"] == 3 * step.statistics["parameters before"] == 3 * 4 * 8


def test_a_mask_that_says_what_is_hidden_is_read_the_other_way_round():
    program = narrow("bert").clone()
    inputs = [replace(one, hidden=1) if one.role == "attention_mask" else one for one in program.inputs]
    after, _ = learned(EmbeddingConvolution().run(replace(program, inputs=inputs), Context()).program)
    values = view(after).values
    product = next(v for v in values if v.op == "mul" and [user.op for user in v.users] == ["pad"])
    kept = product.inputs[1].inputs[0].inputs[0]
    assert kept.op == "eq"
    assert kept.inputs[0].name == "attention_mask"


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (
            lambda: zoo.fx_program("bert"),
            "embeddings.word_embeddings.weight is not factorised: put factorise-embedding before",
        ),
        (lambda: zoo.fx_program("mobilebert"), "it reads more than one token already"),
        (lambda: convolved("bert").program, "it reads more than one token already"),
        (lambda: narrow("llama"), "the model looks back only"),
        (lambda: narrow("gpt2"), "the model looks back only"),
        (lambda: narrow("t5"), "serves other layers too"),
        (lambda: captured(Twice), "serves other layers too"),
        (lambda: captured(Scaled), "is computed"),
        (lambda: zoo.fx_program("vit"), "no embedding of token ids was recognised"),
    ],
)
def test_what_cannot_be_widened_over_neighbours_says_why_and_stays(make, reason):
    program = make()
    done = run("embedding-convolution", program)
    assert isinstance(done.steps[0].error, PassError)
    assert reason in str(done.steps[0].error)
    assert done.program.fingerprint() == program.fingerprint()


@pytest.mark.parametrize("kernel", [1, 4])
def test_a_kernel_that_has_no_middle_is_refused(kernel):
    with pytest.raises(PipelineError, match=f"kernel is {kernel}"):
        Pipeline.parse(f"embedding-convolution{{kernel={kernel}}}")


def test_golden():
    program = captured(Tokens)
    after = run("embedding-convolution", program).program
    shown = [re.sub(r" #[0-9a-f]+", "", text(one)) for one in (program, after)]
    golden("share/embedding-convolution", "# before\n{}\n# after\n{}\n".format(*shown))


@pytest.mark.parametrize(
    "rest",
    [
        "to-onnx,fuse-qkv,remove-padding,quantize-dynamic",
        "prune-hidden{importance=random,multiple=4}",
    ],
)
def test_what_comes_after_finds_a_program_like_any_other(rest):
    first, _ = learned(convolved("bert").program)
    done = run(rest, first, calibration=feeds_of(first, 6))
    assert [step.status for step in done.steps] == ["applied"] * len(done.steps), done.steps
    agrees(first, done.program, rest)


def test_neighbours_are_learned():
    program = zoo.fx_program("bert")
    done = run("factorise-embedding{rank=3},embedding-convolution", program)
    options = "distill{steps=30,rate=1e-2,batch=4,precision=float32}"
    taught = run(options, done.program, calibration=feeds_of(program), original=program)
    assert taught.ok, taught.steps
    before, after = (one.graph.state_dict() for one in (done.program, taught.program))
    path = next(path for path in after if "convolution" in path)
    for tap in (slice(0, 3), slice(6, 9)):
        assert 0 < before[path][:, tap].abs().max() < 1e-18 * before[path][:, 3:6].abs().max()
        assert after[path][:, tap].abs().max() > 1e-3


@pytest.mark.slow
def test_grouped_and_over_neighbours_it_is_the_same_in_a_compiled_function(tmp_path):
    first, _ = learned(convolved("bert").program)
    done = run("grouped-linear{groups=2},to-onnx,fold-constants,simplify-mask,fuse-layer-norm", first)
    assert done.ok, done.steps
    built = Tvm().build(done.program, threads=1, buckets=[{"batch": 3, "length": 9}])
    folder = write_compiled(tmp_path / "compiled", built)
    feed = feeds_of(done.program, 1)[0]
    real = feed["attention_mask"] != 0
    answers = gw.load(folder).run(feed), execute(run("grouped-linear{groups=2}", first).program, [feed])[0]
    found, wanted = (answer["last_hidden_state"][real] for answer in answers)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)

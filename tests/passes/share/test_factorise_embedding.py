"""factorise-embedding: the nearest table of its rank, weighed by how often tokens occur."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
import zoo
from graphwright.ir.blocks import recognise
from graphwright.ir.capture import capture
from graphwright.ir.errors import PassError, PipelineError
from graphwright.ir.footprint import weight_bytes
from graphwright.ir.text import text
from graphwright.ir.view import view
from graphwright.passes.manager.contract import Context
from graphwright.passes.manager.pipeline import Pipeline
from graphwright.passes.share.low_rank.truncated import weighted_rows
from handmade import golden
from pruning import run
from recovery import agrees, distance, feeds_of
from torch import nn

RANK = 8


def feeds(name):
    case = zoo.ARCHITECTURES[name]
    return [{k: v.numpy() for k, v in case.inputs(4, 9, seed=i).items()} for i in range(3)]


def factorised(name, **context):
    return run(f"factorise-embedding{{rank={RANK}}}", zoo.fx_program(name), **context)


def nearest(table, counts):
    """The best table of RANK for rows that occur so often, by NumPy's decomposition."""
    root = np.sqrt(counts + 1.0)[:, None]
    u, s, v = np.linalg.svd(root * table.astype(np.float64), full_matrices=False)
    return (u[:, :RANK] * s[:RANK]) @ v[:RANK] / root


@pytest.mark.parametrize("name", ["bert", "roberta", "mpnet", "modernbert", "t5", "gpt2", "llama"])
def test_it_is_the_module_over_the_nearest_table(name):
    case, program, given = zoo.ARCHITECTURES[name], zoo.fx_program(name), feeds(name)
    done = factorised(name, calibration=given)
    assert done.ok, done.steps[0].error
    module = case.build(case.attns[0])
    table = module.get_input_embeddings().weight
    counts = np.zeros(len(table))
    for feed in given:
        np.add.at(counts, feed["input_ids"][feed["attention_mask"] != 0], 1)
        if name == "t5":  # one table, and the decoder has no mask
            np.add.at(counts, feed["decoder_input_ids"], 1)
    table.data.copy_(torch.from_numpy(nearest(table.detach().numpy(), counts)))
    tensors = case.inputs(3, 11, seed=5)
    with torch.no_grad():
        expected = module(**tensors)[program.outputs[0]]
        found = done.program.graph(*(tensors[spec.name] for spec in program.inputs))[0]
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)
    assert recognise(view(program)).summary() == recognise(view(done.program)).summary()


def test_the_error_is_what_the_smaller_singular_values_hold():
    rng = np.random.default_rng(3)
    table, weight = rng.standard_normal((5000, 12)), rng.random(5000)
    made = weighted_rows(table, weight, 5)
    error = float((weight[:, None] * (table - made.rows @ made.columns.T) ** 2).sum())
    tail = np.linalg.svd(np.sqrt(weight)[:, None] * table, compute_uv=False) ** 2
    assert error == pytest.approx(tail[5:].sum(), rel=1e-10)
    assert made.energy == pytest.approx(tail[:5].sum() / tail.sum(), rel=1e-10)
    np.testing.assert_allclose(made.columns.T @ made.columns, np.eye(5), atol=1e-12)


def test_rows_that_occur_lose_less_than_without_their_counts():
    rng = np.random.default_rng(4)
    table, weight = rng.standard_normal((300, 12)), rng.zipf(1.6, 300).clip(max=500).astype(float)

    def lost(made):
        return float((weight[:, None] * (table - made.rows @ made.columns.T) ** 2).sum())

    assert lost(weighted_rows(table, weight, 4)) < 0.9 * lost(weighted_rows(table, np.ones(300), 4))


def test_what_padding_holds_changes_nothing():
    given = feeds("bert")
    padded = [{**f, "input_ids": np.where(f["attention_mask"] != 0, f["input_ids"], 7)} for f in given]
    assert any((a["input_ids"] != b["input_ids"]).any() for a, b in zip(given, padded, strict=True))
    prints = {factorised("bert", calibration=some).program.fingerprint() for some in (given, padded)}
    assert len(prints) == 1
    assert factorised("bert").program.fingerprint() not in prints


@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_bytes_are_those_of_the_two_matrices_wherever_they_are_read(name):
    """gpt2's head reads the table, too: still one copy, in either dialect."""
    done = factorised(name)
    tokens, width = {"bert": (101, 32), "gpt2": (103, 32)}[name]
    before, after = (4 * numbers for numbers in (tokens * width, RANK * (tokens + width)))
    assert done.steps[0].statistics["bytes before"] == before
    assert done.steps[0].statistics["bytes"] == after
    assert weight_bytes(done.program) == weight_bytes(zoo.fx_program(name)) - before + after
    lowered = Pipeline.parse("to-onnx").run(done.program, Context()).program
    assert lowered.dialect == "onnx"
    assert weight_bytes(lowered) < weight_bytes(done.program) + 4 * RANK * width


@pytest.mark.parametrize(
    ("name", "rank", "reason"),
    [
        ("albert", 8, "it is factorised already, linear makes 32 features of 20"),
        ("electra", 8, "it is factorised already"),
        ("mobilebert", 8, "it is factorised already, linear makes 32 features of 20"),
        ("vit", 8, "the model takes no ids of tokens"),
        ("bert", 32, r"its rank is 32 at most \(101x32\): give a rank below, not 32"),
        ("bert", 25, "two matrices of rank 25 are no smaller than its 101x32"),
    ],
)
def test_what_cannot_be_factorised_is_named_and_left(name, rank, reason):
    program = zoo.fx_program(name)
    before = program.fingerprint()
    done = run(f"factorise-embedding{{rank={rank}}}", program)
    assert isinstance(done.steps[0].error, PassError)
    with pytest.raises(PassError, match=reason):
        raise done.steps[0].error
    assert done.program.fingerprint() == program.fingerprint() == before


def test_a_second_time_is_refused():
    again = run("factorise-embedding{rank=4}", factorised("bert").program)
    assert "it is factorised already" in str(again.steps[0].error)


@pytest.mark.parametrize("options", ["rank=0", "rank=-3", "smoothing=0.0"])
def test_options_that_mean_nothing_are_refused(options):
    with pytest.raises(PipelineError, match=options.partition("=")[0]):
        Pipeline.parse(f"factorise-embedding{{{options}}}")


class Read(nn.Module):
    """A table that something else reads, too."""

    def __init__(self, how):
        super().__init__()
        self.how, self.words, self.norm = how, nn.Embedding(50, 16), nn.LayerNorm(16)
        self.up, self.soft = nn.Linear(16, 8), nn.Linear(16, 50)

    def forward(self, ids):
        h = self.norm(self.words(ids))
        if self.how == "mean":
            h = h + self.words.weight.mean(0)
        if self.how == "soft":
            h = h + self.soft(h).softmax(-1) @ self.words.weight
        return self.up(h) if self.how != "head" else h @ self.words.weight.T


@pytest.mark.parametrize(("how", "reason"), [("mean", "reads all of it"), ("soft", "the other way round")])
def test_a_table_that_is_read_otherwise_stays(how, reason):
    program = capture(Read(how).eval(), inputs={"ids": torch.arange(6).reshape(2, 3)})
    program = replace(program, inputs=(replace(program.inputs[0], role="token_ids", high=50),))
    assert reason in str(run("factorise-embedding{rank=3}", program).steps[0].error)


def test_golden():
    program = capture(Read("head").eval(), inputs={"ids": torch.arange(6).reshape(2, 3)})
    program = replace(program, inputs=(replace(program.inputs[0], role="token_ids", high=50),))
    after = run("factorise-embedding{rank=3}", program).program
    plain = [_shown(one) for one in (program, after)]
    golden("share/factorise-embedding", "# before\n{}\n# after\n{}\n".format(*plain))


def _shown(program):
    return re.sub(r" #[0-9a-f]+", "", text(program))  # weights are random


@pytest.mark.parametrize(
    ("name", "rest"),
    [
        ("bert", "to-onnx,remove-padding,quantize-dynamic"),
        ("gpt2", "to-onnx,quantize-weights{bits=8}"),
        ("bert", "prune-hidden{importance=random,multiple=4},prune-ffn{importance=magnitude},to-onnx"),
        ("gpt2", "fake-quant{embeddings=true},to-onnx"),
        ("gpt2", "quantize-product{block=2,centroids=16},to-onnx"),
    ],
)
def test_what_comes_after_finds_a_program_like_any_other(name, rest):
    data = feeds_of(zoo.fx_program(name), 6)
    first = factorised(name, calibration=data)
    done = run(rest, first.program, calibration=data, original=first.program)
    assert done.ok, done.steps
    assert all(step.status == "applied" for step in done.steps)
    agrees(first.program, done.program, rest)


def test_no_kernel_takes_an_embedding_with_a_product_in_it():
    done = run("to-onnx,fuse-embedding-norm", factorised("bert").program)
    assert done.ok
    assert "changes what is looked up" in done.steps[1].notes[0]


def test_distilling_brings_it_nearer():
    program = zoo.fx_program("bert")
    data = feeds_of(program)
    done = factorised("bert", calibration=data)
    text_ = "distill{steps=40,rate=3e-3,batch=4,precision=float32,embeddings=true}"
    taught = run(text_, done.program, calibration=data, original=program)
    assert taught.ok
    assert distance(program, taught.program) < 0.9 * distance(program, done.program)

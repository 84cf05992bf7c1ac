"""quantize-product: codes against the paper's objective, the graph that decodes them, and what it learns."""

from dataclasses import replace

import numpy as np
import onnx_ir
import pytest
import torch
from fusing import same
from graphwright.ir.blocks import recognise
from graphwright.ir.capture import capture
from graphwright.ir.errors import PipelineError, WeightError
from graphwright.ir.fx.graph import attribute, replace_tensor
from graphwright.ir.inputs.probe import probes
from graphwright.ir.view import view
from graphwright.passes.common.fx_weights import Matrix, find
from graphwright.passes.manager.contract import Context
from graphwright.passes.manager.pipeline import Pipeline
from graphwright.passes.quantize.quantize_product import QuantizeProduct
from graphwright.passes.quantize.trained.codebook import codebook, with_feedback
from graphwright.passes.quantize.trained.product_fx import Runs
from recovery import feeds_of
from torch import nn
from zoo import ARCHITECTURES, fx_program

PLAIN = QuantizeProduct(block=2, steps=0, finish=0)


def problem(rows=40, columns=12, seed=0):
    """A weight, and activations whose features are related and of very different size."""
    rng = np.random.default_rng(seed)
    mix = rng.standard_normal((columns, columns)) * np.geomspace(0.1, 3, columns)
    x = rng.standard_normal((200, columns)) @ mix
    return rng.standard_normal((rows, columns)).astype(np.float32), x


def product_error(weight, table, codes, x):
    decoded = table[codes].reshape(weight.shape).astype(np.float64)
    return ((x @ (weight - decoded).T) ** 2).sum()


def test_a_choice_is_the_best_that_the_columns_after_it_allow():
    """Against least squares in float64: the columns after a run are moved freely to make up for it."""
    weight, x = problem(rows=6)
    table = np.random.default_rng(1).standard_normal((5, 3)).astype(np.float32)
    gram = x.T @ x
    codes = with_feedback(weight, table, gram)
    damped = gram + 0.01 * np.trace(gram) / 12 * np.eye(12)
    for row in range(6):
        left = weight[row].astype(np.float64)
        for number, start in enumerate(range(0, 12, 3)):
            run, after = slice(start, start + 3), slice(start + 3, 12)
            costs, moves = [], []
            for centroid in table.astype(np.float64):
                error = left[run] - centroid
                move = np.linalg.solve(damped[after, after], damped[after, run] @ error)
                whole = np.concatenate([error, -move])
                costs.append(whole @ damped[start:, start:] @ whole)
                moves.append(move)
            assert codes[row, number] == np.argmin(costs)
            # What is taken away in the run is given back after it, in the direction of the same products.
            left[after] += moves[codes[row, number]]


def test_activations_count():
    weight, x = problem()
    aware = codebook(weight, 2, 16, gram=x.T @ x)
    blind = codebook(weight, 2, 16)
    assert product_error(weight, *reversed(aware), x) < 0.6 * product_error(weight, *reversed(blind), x)
    rows = np.where(np.arange(40) < 10, 50.0, 1.0)
    favoured = codebook(weight, 2, 16, importance=rows)
    errors = [((weight - t[c].reshape(weight.shape)) ** 2)[:10].sum() for c, t in (favoured, blind)]
    assert errors[0] < 0.75 * errors[1]


def test_codes_are_bytes_and_few_vectors_are_kept_exactly():
    weight, x = problem(rows=4, columns=8)
    codes, table = codebook(weight, 4, 256, gram=x[:, :8].T @ x[:, :8])
    assert codes.dtype == np.uint8
    assert codes.shape == (4, 2)
    assert table.shape == (8, 4)
    np.testing.assert_allclose(table[codes].reshape(4, 8), weight, atol=1e-5)


def initializers(program):
    return {name: value.const_value for name, value in program.graph.graph.initializers.items()}


def test_the_exported_file_holds_bytes_and_gives_what_the_graph_gave(tmp_path):
    program = fx_program("bert")
    result = PLAIN.run(program.clone(), Context())
    exported = Pipeline.parse("to-onnx,fold-constants,eliminate-common-subexpressions").run(result.program)
    assert exported.ok
    for coded in (result.program, exported.program):
        assert recognise(view(coded)).summary() == recognise(view(program)).summary()
    run = Pipeline.parse("fuse-qkv,fuse-attention,fuse-skip-layer-norm").run(exported.program)
    assert run.ok
    same(result.program, run.program, 1e-5, probes(program, 3))
    stored = initializers(run.program)
    codes = {name: tensor for name, tensor in stored.items() if name.endswith("_codes")}
    assert len(codes) == 3 + 2 * 6
    assert {tensor.dtype for tensor in codes.values()} == {onnx_ir.DataType.UINT8}
    numbers = sum(matrix.tensor.numel() for matrix in find(program)[0])
    assert sum(tensor.nbytes for tensor in codes.values()) == numbers // 2
    tables = [tensor for name, tensor in stored.items() if name.endswith("_table")]
    assert {tensor.dtype for tensor in tables} == {onnx_ir.DataType.FLOAT16}
    path = tmp_path / "model.onnx"
    onnx_ir.save(run.program.graph, path)
    assert path.stat().st_size < sum(tensor.nbytes for tensor in stored.values()) + 40000
    # Fused as the float model is, but for what packs weights.
    statistics = {step.text: step.statistics for step in run.steps}
    assert statistics["fuse-attention"]["attentions fused"] == "2 of 2"
    assert statistics["fuse-skip-layer-norm"]["norms fused"] == "4 of 5"
    # Only the rows that are looked up are decoded: nothing has the size of the table.
    shapes = [tuple(v.shape) for node in run.program.graph.graph for v in node.outputs if v.shape is not None]
    assert (101, 32) not in shapes


class Shared(nn.Module):
    """A table that is the head too, a layer used twice, and a weight stored (in, out)."""

    def __init__(self):
        super().__init__()
        self.table, self.twice = nn.Embedding(50, 12), nn.Linear(12, 12)
        self.turned = nn.Parameter(torch.randn(12, 12) * 0.3)
        self.conv = nn.Conv1d(12, 12, 1)
        self.rest = nn.Parameter(torch.randn(3, 12))

    def forward(self, input_ids):
        x = self.table(input_ids)
        x = self.twice(torch.tanh(self.twice(x))) + x @ self.turned + self.rest.mean(0)
        x = x + self.conv(x.transpose(1, 2)).transpose(1, 2)
        return x @ self.table.weight.T


@pytest.fixture(scope="module")
def shared():
    torch.manual_seed(0)
    return capture(Shared().eval(), inputs={"input_ids": torch.randint(0, 50, (2, 6))})


def codes_of(program):
    read = {str(node.target) for node in program.graph.graph.nodes if node.op == "get_attr"}
    return {name for name in read if name.endswith("_codes")}


def test_each_weight_is_coded_once_however_it_is_used(shared):
    result = QuantizeProduct(block=3, centroids=20, steps=0, finish=0).run(shared.clone(), Context())
    names = ("table.weight", "twice.weight", "turned", "conv.weight")
    assert codes_of(result.program) == {f"{name}_codes" for name in names}
    assert result.notes == ("rest (3x12) stays in float: neither a product nor a lookup reads it",)
    graph = result.program.graph
    decoded = {}
    for name in names:
        codes, table = (attribute(graph, f"{name}_{what}") for what in ("codes", "table"))
        decoded[name] = table.float()[codes.int()].flatten(1)
    decoded["turned"], decoded["conv.weight"] = decoded["turned"].T, decoded["conv.weight"][..., None]
    twin = shared.clone()
    for reader in twin.graph.graph.find_nodes(op="get_attr"):
        if str(reader.target) in decoded:
            replace_tensor(twin.graph, reader, decoded[str(reader.target)])
    same(twin, result.program, 1e-6)
    original = attribute(shared.graph, "twice.weight")
    assert (decoded["twice.weight"] - original).square().mean() < 0.1 * original.square().mean()


def test_blocks_divide_and_what_would_not_shrink_stays(shared):
    result = QuantizeProduct(block=5, embedding_block=8, centroids=8, steps=0, finish=0).run(
        shared.clone(), Context()
    )
    graph = result.program.graph
    assert attribute(graph, "table.weight_codes").shape == (50, 2)  # blocks of 6
    assert attribute(graph, "twice.weight_codes").shape == (12, 3)  # blocks of 4
    half = Matrix("w", torch.zeros(8, 8, dtype=torch.float16))
    assert "codes and centroids would take 192 bytes, and it takes 128" in (Runs(1, 0, 256, True).unfit(half))
    assert Runs(4, 0, 4, True).unfit(half) == ""


def test_tables_can_be_left_out(shared):
    result = replace(PLAIN, embeddings=False, centroids=20).run(shared.clone(), Context())
    assert "table.weight_codes" not in codes_of(result.program)
    assert "table.weight: stays in float, tables are left out (embeddings=false)" in result.notes


def with_weight(program, name, change):
    twin = program.clone()
    (node,) = [n for n in twin.graph.graph.find_nodes(op="get_attr") if str(n.target) == name]
    replace_tensor(twin.graph, node, change(attribute(twin.graph, name).detach().clone()))
    twin.graph.recompile()
    return twin


def test_weights_of_zeros_stay_zeros_and_nan_is_refused(shared):
    feeds = [{"input_ids": np.arange(12).reshape(2, 6)}]
    zeros = with_weight(shared, "twice.weight", torch.zeros_like)
    result = replace(PLAIN, finish=2).run(zeros.clone(), Context(calibration=feeds))
    table = attribute(result.program.graph, "twice.weight_table")
    assert table.isfinite().all()
    untaught = PLAIN.run(zeros.clone(), Context(calibration=feeds))
    codes, table = (attribute(untaught.program.graph, f"twice.weight_{what}") for what in ("codes", "table"))
    assert not table[codes.int()].any()
    nan = with_weight(shared, "twice.weight", lambda weight: weight.fill_(float("nan")))
    with pytest.raises(WeightError, match=r"'twice\.weight' has NaN"):
        PLAIN.run(nan, Context())


def test_a_quantized_model_is_kept_whole(shared):
    once = PLAIN.run(shared.clone(), Context()).program
    again = PLAIN.run(once.clone(), Context())
    assert not again.modified
    assert again.program.fingerprint() == once.fingerprint()
    assert "quantized already: it has turned_codes" in again.notes[0]


def test_learning_brings_the_outputs_back_and_is_deterministic():
    program = fx_program("bert")
    before = program.fingerprint()
    feeds = feeds_of(program, 24)
    text = "quantize-product{{block=4,centroids=12,steps={},finish={}}}"
    runs = {}
    for steps, finish in ((0, 0), (2, 20), (2, 20)):
        run = Pipeline.parse(text.format(steps, finish)).run(program, Context(calibration=feeds))
        assert run.ok, run.steps[0].error
        runs.setdefault(steps, []).append(run)
    assert program.fingerprint() == before
    untaught, (first, second) = runs[0][0], runs[2]
    assert first.program.fingerprint() == second.program.fingerprint()
    losses = [1 - run.steps[0].statistics["cosine"] for run in (untaught, first)]
    assert losses[1] < 0.9 * losses[0]
    codes = [
        {n: attribute(run.program.graph, n).numpy().tobytes() for n in codes_of(run.program)}
        for run in (untaught, first)
    ]
    assert codes[0].keys() == codes[1].keys()
    assert codes[0] != codes[1]  # later groups are coded for what learned before them gives


def test_rows_that_are_looked_up_often_are_kept_better():
    torch.manual_seed(0)
    table = nn.Embedding(300, 4).eval()
    program = capture(table, inputs={"input": torch.randint(0, 300, (2, 6))})
    ids = np.random.default_rng(0).integers(0, 30, (4, 500))
    often = Context(calibration=[{program.inputs[0].name: ids}])
    errors = []
    for context in (often, Context()):
        coded = QuantizeProduct(block=4, centroids=32, steps=0, finish=0).run(program.clone(), context)
        with torch.no_grad():
            (found,) = coded.program.graph(torch.arange(30)[None])
        errors.append(float((found[0] - table.weight[:30]).square().mean()))
    assert errors[0] < 0.2 * errors[1]


def test_steps_need_data(shared):
    with pytest.raises(PipelineError, match="'quantize-product' needs calibration data"):
        Pipeline.parse("quantize-product").run(shared)
    assert Pipeline.parse("quantize-product{steps=0,finish=0}").run(shared).ok


def test_refused_rewrites_are_not_made(shared):
    before = shared.fingerprint()
    none = PLAIN.run(shared.clone(), Context(allow=lambda rewrite: False))
    assert not none.modified
    assert none.program.fingerprint() == before
    asked = []
    one = PLAIN.run(
        shared.clone(), Context(allow=lambda rewrite: not asked.append(rewrite) and len(asked) == 2)
    )
    assert asked[1] == "quantize twice.weight"
    assert codes_of(one.program) == {"twice.weight_codes"}


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"block": 0}, "block is 0"),
        ({"centroids": 257}, "centroids is 257"),
        ({"centroids": 1}, "centroids is 1"),
        ({"steps": -1}, "steps and finish"),
        ({"rate": 1.5}, "rate is 1.5"),
    ],
)
def test_options_are_checked(options, what):
    with pytest.raises(ValueError, match=what):
        QuantizeProduct(**options)


@pytest.mark.slow  # every architecture is captured
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_is_coded_and_still_recognised(name):
    program = fx_program(name)
    result = PLAIN.run(program.clone(), Context())
    assert result.modified
    assert result.statistics["cosine"] > 0.97
    after = recognise(view(result.program))
    assert after.summary() == recognise(view(program)).summary()
    assert len(after.linear) == len(recognise(view(program)).linear)

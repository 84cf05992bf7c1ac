"""GOBO: outliers by the Gaussian, centroids by the sum of distances, and a graph that gives just that."""

import numpy as np
import onnx_ir as ir
import pytest
from graphwright.ir.errors import WeightError
from graphwright.ir.execute import execute
from graphwright.ir.footprint import weight_bytes
from graphwright.passes.manager.contract import Context
from graphwright.passes.manager.pipeline import Pipeline
from graphwright.passes.quantize.codes.centroids import dictionary, fit
from graphwright.passes.quantize.codes.stored import find
from graphwright.passes.quantize.quantize_gobo import QuantizeGobo
from handmade import operators, parsed
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm


def gaussian(shape, seed, wild=6):
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal(shape).astype(np.float32) * 0.05
    weight.reshape(-1)[rng.choice(weight.size, wild, replace=False)] *= 20
    return weight


@pytest.mark.parametrize("threshold", [-4.0, -2.0, 1.0, -1000.0])
def test_outliers_are_those_that_the_gaussian_makes_unlikely(threshold):
    weight = gaussian((64, 48), 0)
    found = dictionary(weight, 3, threshold)
    exact = weight.astype(np.float64)
    expected = norm.logpdf(exact, exact.mean(), exact.std()) < threshold
    np.testing.assert_array_equal(found.outliers, expected)
    np.testing.assert_array_equal(found.floats()[expected], weight[expected])
    assert expected.any() == (threshold > -1000)


@given(st.integers(1, 4), st.integers(1, 300), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_centroids_lose_no_more_than_bins_of_equal_count(bits, count, seed):
    values = np.random.default_rng(seed).standard_normal(count).astype(np.float32)
    centroids = fit(values, bits)
    assert (np.diff(centroids) >= 0).all()
    edges = np.linspace(0, count, 2**bits + 1).round().astype(int)[1:-1]
    bins = np.array([part.mean() for part in np.split(np.sort(values), edges) if part.size])

    def loss(c):
        return np.abs(values[:, None] - c).min(axis=1).sum(dtype=np.float64)

    assert loss(centroids) <= loss(bins) * (1 + 1e-5) + 1e-6


def test_one_more_round_would_lose_more():
    """What the paper stops at: the sum of distances no longer falls, while k-means would go on."""
    values = np.random.default_rng(0).standard_normal(20_000).astype(np.float32)

    def rounds(centroids):
        while True:
            yield centroids, np.abs(values[:, None] - centroids).min(axis=1).sum(dtype=np.float64)
            nearest = np.abs(values[:, None] - centroids).argmin(axis=1)
            centroids = np.array([values[nearest == k].mean(dtype=np.float64) for k in range(len(centroids))])

    trail = rounds(np.array([part.mean() for part in np.array_split(np.sort(values), 8)]))
    before = next(trail)
    while (after := next(trail))[1] < before[1]:
        before = after
    np.testing.assert_allclose(fit(values, 3), before[0], atol=1e-3)


def test_few_different_weights_are_kept_as_they_are():
    weight = np.random.default_rng(0).choice([-0.5, 0.0, 0.25], (20, 30)).astype(np.float32)
    np.testing.assert_allclose(dictionary(weight, 3).floats(), weight, atol=1e-7)
    assert not dictionary(np.zeros((16, 16), np.float32), 3).floats().any()
    constant = np.full((16, 16), 0.3, np.float32)
    np.testing.assert_array_equal(dictionary(constant, 2).floats(), constant)
    np.testing.assert_allclose(dictionary(gaussian((4, 4), 0, 0), 3, 50.0).floats(), gaussian((4, 4), 0, 0))


def encoder(table=(90, 40), seed=0):
    weights = {
        "words": gaussian(table, seed), "up": gaussian((40, 72), 1), "down": gaussian((72, 40), 2),
        "packed": gaussian((40, 96), 3), "bias": gaussian((96,), 4, 0),
    }  # fmt: skip
    body = """
        e = Gather (words, ids) h = MatMul (e, up) r = Relu (h) d = MatMul (r, down)
        turned = Transpose <perm = [1, 0]> (words) y = MatMul (d, turned)
    """
    return parsed(body, "int64[batch,length] ids", "float[batch,length,90] y", weights, high=90)


def simulated(program, bits, threshold, embeddings=None):
    """The program with every weight replaced by what is left of it, in float."""
    twin = program.clone()
    for stored in find(twin)[0]:
        width = bits if embeddings is None or not stored.table else embeddings
        floats = dictionary(stored.matrix(), width, threshold).floats() if width else stored.matrix()
        stored.value.const_value = ir.Tensor(stored.restored(floats), name=stored.name)
    return twin


FEEDS = [
    {"ids": np.random.default_rng(5).integers(0, 90, shape)} for shape in ((1, 1), (3, 7), (2, 0), (0, 4))
]


@pytest.mark.parametrize("threshold", [-4.0, 0.0, -1000.0])
@pytest.mark.parametrize(("bits", "embeddings"), [(3, None), (2, 4), (1, None), (8, 3), (3, 0), (0, 3)])
def test_the_graph_gives_what_the_dictionary_says(bits, embeddings, threshold):
    program = encoder()
    result = QuantizeGobo(bits, embeddings, threshold).run(program.clone(), Context())
    expected = execute(simulated(program, bits, threshold, embeddings), FEEDS)
    for a, b in zip(expected, execute(result.program, FEEDS), strict=True):
        np.testing.assert_array_equal(a["y"], b["y"])
    assert result.modified


def test_bytes_are_those_of_the_codes_and_the_outliers():
    program = encoder((90, 40))
    result = QuantizeGobo(3).run(program.clone(), Context())
    held = {name: v.const_value.nbytes for name, v in result.program.graph.graph.initializers.items()}
    assert held["up.codes.low"] + held["up.codes.high"] == 72 * (40 // 4 + 40 // 8)
    assert held["up.centroids"] == 8 * 4
    kept = dictionary(find(program)[0][1].matrix(), 3).values.size
    assert (held["up.outliers"], held["up.outliers.place"]) == (4 * kept, 4 * kept)
    # A column more for rows without outliers; counts and columns fit a byte here.
    assert held["words.codes.low"] + held["words.codes.high"] == 90 * (-(-41 // 4) + -(-41 // 8))
    assert held["words.outliers.count"] == 90
    assert "words" not in held
    assert sum(name.startswith("words.codes") for name in held) == 2  # one copy for the table and the head
    assert weight_bytes(result.program) == sum(held.values())


def test_rows_are_looked_up_before_they_are_decoded():
    program = parsed(
        "y = Gather (words, ids)", "int64[batch] ids", "float[batch,32] y", {"words": gaussian((90, 32), 0)}
    )
    result = QuantizeGobo(3).run(program.clone(), Context())
    readers = [
        (node.op_type, value.name)
        for node in result.program.graph.graph
        for value in node.inputs
        if value.name in ("words.codes.low", "words.codes.high")
    ]
    assert readers == [("Gather", "words.codes.low"), ("Gather", "words.codes.high")]


def test_every_prefix_is_a_program_and_nothing_allowed_is_nothing_done():
    program = encoder()
    for allowed in range(4):
        answers = iter([True] * allowed + [False] * 9)
        result = QuantizeGobo().run(program.clone(), Context(allow=lambda name, a=answers: next(a)))
        execute(result.program, FEEDS)
        assert result.modified == bool(allowed)
        assert result.statistics["weights packed"] == allowed


def test_by_name_twice_and_on_models_quantized_already():
    once = Pipeline.parse("quantize-gobo{bits=2}").run(encoder())
    assert [step.status for step in once.steps] == ["applied"], once.steps[0].error
    assert Pipeline.parse(str(Pipeline.parse("quantize-gobo{bits=2}"))).passes == (QuantizeGobo(bits=2),)
    twice = Pipeline.parse("quantize-gobo").run(once.program)
    assert twice.steps[0].status == "no change"
    assert any("quantized already" in note for note in twice.steps[0].notes)
    kept = Pipeline.parse("fold-constants").run(once.program)
    assert kept.ok
    assert weight_bytes(kept.program) <= weight_bytes(once.program)
    assert operators(kept.program).count("ScatterElements") == operators(once.program).count(
        "ScatterElements"
    )


def test_bad_weights_and_bad_options_are_named():
    program = encoder()
    broken = program.graph.graph.initializers["up"].const_value.numpy().copy()
    broken[3, 3] = np.nan
    program.graph.graph.initializers["up"].const_value = ir.Tensor(broken, name="up")
    with pytest.raises(WeightError, match="'up' has NaN"):
        QuantizeGobo().run(program, Context())
    with pytest.raises(ValueError, match="bits is 5"):
        QuantizeGobo(bits=5)
    with pytest.raises(ValueError, match="embeddings is 6"):
        QuantizeGobo(embeddings=6)

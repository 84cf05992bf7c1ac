"""smooth-quant: the same function, smaller errors in int8, and what is left alone."""

import numpy as np
import pytest
from graphwright.backends.target import named
from graphwright.ir.errors import DataError, PipelineError
from graphwright.ir.execute import execute
from graphwright.ir.inputs.probe import probes
from graphwright.ir.text import text
from graphwright.passes.manager.contract import Context
from graphwright.passes.manager.pipeline import Pipeline
from graphwright.passes.quantize.calibrate.sample import Sample
from graphwright.passes.quantize.codes.stored import find
from graphwright.passes.quantize.int8.weights import FULL
from graphwright.passes.quantize.quantize_static import QuantizeStatic
from graphwright.passes.quantize.smooth_quant import SmoothQuant, search
from handmade import golden, operators, parsed
from hypothesis import given, settings
from hypothesis import strategies as st
from zoo import onnx_program

RNG = np.random.default_rng(0)
LOUD = np.where(np.arange(32) % 16 == 3, 40.0, 1.0).astype(np.float32)  # a channel in sixteen


def normal(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def feeds(*shape, count=3):
    return [{"x": normal(*shape)} for _ in range(count)]


def block(body, inputs="float[batch,length,32] x", outputs="float[batch,length,32] y", opset=23, **weights):
    return parsed(body, inputs, outputs, weights, opset=opset)


def pre_norm(extra=""):
    """A norm with loud channels before two products of its own."""
    body = f"n = LayerNormalization (x, g, s) a = MatMul (n, w) b = MatMul (n, u) y = Mul (a, b) {extra}"
    weights = {"g": LOUD * normal(32), "s": LOUD * normal(32), "w": normal(32, 32), "u": normal(32, 32)}
    return block(body, **weights)


def gated():
    """SwiGLU whose up half is loud."""
    body = (
        "a = MatMul (x, gate) s = Sigmoid (a) i = Mul (a, s) u = MatMul (x, up) c = Add (u, shift) "
        "p = Mul (i, c) y = MatMul (p, down)"
    )
    loud = np.tile(LOUD, 2)
    return block(
        body, gate=normal(32, 64), up=normal(32, 64) * loud, shift=loud * normal(64), down=normal(64, 32)
    )


def relu():
    body = "u = MatMul (x, up) c = Add (u, shift) r = Relu (c) y = MatMul (r, down)"
    loud = np.tile(LOUD, 2)
    return block(body, up=normal(32, 64) * loud, shift=loud * normal(64), down=normal(64, 32))


def attention():
    """Two heads of 16 whose values are loud."""
    split = "r_{0} = Reshape ({0}, heads) t_{0} = Transpose <perm = [0, 2, 1, 3]> (r_{0}) "
    body = (
        "q = MatMul (x, wq) k = MatMul (x, wk) v0 = MatMul (x, wv) v = Add (v0, bv) "
        + "".join(split.format(name) for name in "qkv")
        + "kt = Transpose <perm = [0, 1, 3, 2]> (t_k) raw = MatMul (t_q, kt) scores = Mul (raw, quarter) "
        "p = Softmax (scores) h = MatMul (p, t_v) back = Transpose <perm = [0, 2, 1, 3]> (h) "
        "c = Reshape (back, merged) y = MatMul (c, wo)"
    )
    return block(
        body,
        wq=normal(32, 32),
        wk=normal(32, 32),
        wv=normal(32, 32) * LOUD,
        bv=LOUD * normal(32),
        wo=normal(32, 32),
        heads=np.array([0, 0, 2, 16]),
        merged=np.array([0, 0, 32]),
        quarter=np.float32(0.01),
    )


CASES = {"norm": pre_norm, "gated": gated, "relu": relu, "attention": attention}


def run(program, data, target="x86-64-vnni", **options):
    return SmoothQuant(**options).run(program.clone(), Context(target=named(target), calibration=data))


def static_error(program, data, reference):
    context = Context(target=named("x86-64-vnni"), calibration=data)
    result = QuantizeStatic(ranges="min-max", min_cosine=0.0, form="qdq").run(program.clone(), context)
    pairs = zip(execute(result.program, data), execute(reference, data), strict=True)
    return np.sqrt(np.mean([((a["y"] - b["y"]) ** 2).mean() for a, b in pairs]))


@pytest.mark.parametrize("case", CASES)
def test_the_function_stays_and_int8_gets_closer_to_it(case):
    program, data = CASES[case](), feeds(4, 30, 32)
    result = run(program, data)
    assert result.statistics["activations smoothed"] == f"1 of {1 + (case != 'norm')}"
    assert operators(result.program) == operators(program)  # nothing is left to be done at run time
    for one in feeds(2, 7, 32):
        expected, found = (execute(p, [one])[0]["y"] for p in (program, result.program))
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6 * np.abs(expected).max())
    assert static_error(result.program, data, program) < 0.6 * static_error(program, data, program)
    assert 0 < result.statistics["error of their products"] < 0.4


def test_the_scale_is_the_papers():
    """s = max|x|^a / max|W|^(1-a) up to a factor for all features, for some a (equation 4)."""
    program, data = pre_norm(), feeds(4, 30, 32)
    before = program.graph.graph.initializers
    after = run(program, data).program.graph.graph.initializers
    scale = before["g"].const_value.numpy() / after["g"].const_value.numpy()
    np.testing.assert_allclose(
        before["s"].const_value.numpy() / after["s"].const_value.numpy(), scale, rtol=1e-5
    )
    for name in ("w", "u"):
        wider = after[name].const_value.numpy() / before[name].const_value.numpy()
        np.testing.assert_allclose(wider, np.broadcast_to(scale[:, None], (32, 32)), rtol=1e-5)
    normed = [
        execute(
            block("y = LayerNormalization (x, g, s)", **{n: before[n].const_value.numpy() for n in "gs"}),
            [one],
        )[0]["y"]
        for one in data
    ]
    magnitude = np.abs(np.concatenate(normed)).reshape(-1, 32).max(axis=0).astype(np.float64)
    weights = np.concatenate([before[n].const_value.numpy() for n in "wu"], axis=1).astype(np.float64)
    largest = np.abs(weights).max(axis=1)
    near = []
    for alpha in np.linspace(0, 1, 21):
        paper = magnitude**alpha / largest ** (1 - alpha)
        ratio = np.log(scale / paper)
        near.append(ratio.max() - ratio.min())
    assert min(near) < 1e-3
    assert np.argmin(near) > 6  # loud channels are made much smaller


def test_what_else_reads_the_norm_keeps_it_as_it_is():
    """Norms after the residual sum: the stream reads them too."""
    body = "n = LayerNormalization (x, g, s) a = MatMul (n, w) y = Add (a, n)"
    program = block(body, g=LOUD * normal(32), s=normal(32), w=normal(32, 32))
    data = feeds(4, 30, 32)
    result = run(program, data)
    assert not result.modified
    assert "n: left alone, Add reads it too" in result.notes
    inserted = run(program, data, insert=True)
    assert inserted.statistics["by a Mul at run time"] == 1
    assert operators(inserted.program) == ["LayerNormalization", "Mul", "MatMul", "Add"]
    expected, found = (execute(p, data)[0]["y"] for p in (program, inserted.program))
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6 * np.abs(expected).max())


def test_an_output_of_the_graph_keeps_its_values():
    body = "n = LayerNormalization (x, g, s) y = MatMul (n, w)"
    outputs = "float[batch,length,32] y, float[batch,length,32] n"
    program = block(body, outputs=outputs, g=LOUD, s=normal(32), w=normal(32, 32))
    result = run(program, feeds(2, 5, 32))
    assert not result.modified
    assert "n: left alone, an output reads it too" in result.notes


SHARED = {
    "weight": (
        "n = LayerNormalization (x, g, s) a = MatMul (n, w) m = LayerNormalization (a, h, s) "
        "y = MatMul (m, w)",
        "'w' is shared by 2 nodes",
    ),
    "norm": (
        "n = LayerNormalization (x, g, s) a = MatMul (n, w) m = LayerNormalization (a, g, s) "
        "y = MatMul (m, u)",
        "no norm, values' projection or linear half of a feed-forward of its own makes it",
    ),
}


@pytest.mark.parametrize("case", SHARED)
def test_what_is_shared_is_left_alone(case):
    body, reason = SHARED[case]
    names = [name for name in ("g", "h", "s") if f", {name}" in body]
    matrices = [name for name in ("w", "u") if f", {name})" in body]
    weights = {n: LOUD * normal(32) for n in names} | {n: normal(32, 32) for n in matrices}
    program, data = block(body, **weights), feeds(2, 5, 32)
    result = run(program, data)
    assert not result.modified
    for name in ("n", "m"):
        assert f"{name}: left alone, {reason}" in result.notes


def test_a_table_that_is_also_the_head_is_left_alone():
    program = parsed(
        "e = Gather (t, ids) n = LayerNormalization (e, g, s) v = Transpose <perm = [1, 0]> (t) "
        "y = MatMul (n, v)",
        "int64[batch,length] ids",
        "float[batch,length,50] y",
        {"t": normal(50, 32), "g": LOUD, "s": normal(32)},
        high=50,
    )
    result = run(program, [{"ids": RNG.integers(0, 50, (3, 7))} for _ in range(2)])
    assert not result.modified
    assert "n: left alone, 't' is shared by 2 nodes" in result.notes


def test_even_activations_are_left_alone():
    program = block("n = LayerNormalization (x, g, s) y = MatMul (n, w)", **{
        "g": np.ones(32, np.float32), "s": np.zeros(32, np.float32),
        "w": np.sign(normal(32, 32)),
    })  # fmt: skip
    data = [{"x": np.sign(normal(4, 30, 32))} for _ in range(2)]
    result = run(program, data)
    assert not result.modified or result.statistics["error of their products"] < 0.98


def test_features_that_are_never_used_stay_finite():
    weights = {"g": LOUD.copy(), "s": normal(32), "w": normal(32, 32)}
    weights["g"][5] = weights["s"][5] = 0  # dead activation
    weights["w"][7] = 0  # dead input
    program = block("n = LayerNormalization (x, g, s) y = MatMul (n, w)", **weights)
    data = feeds(2, 30, 32)
    after = run(program, data).program
    for value in after.graph.graph.initializers.values():
        assert np.isfinite(value.const_value.numpy()).all()
    expected, found = (execute(p, data)[0]["y"] for p in (program, after))
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6 * np.abs(expected).max())


@given(seed=st.integers(0, 99), loud=st.floats(1, 300), features=st.integers(16, 40))
@settings(max_examples=15, deadline=None)
def test_the_search_never_loses(seed, loud, features):
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal((features, 24)).astype(np.float32)
    program = parsed("y = MatMul (x, w)", f"float[rows,{features}] x", "float[rows,24] y", {"w": weight})
    x = rng.standard_normal((60, features)).astype(np.float32)
    x[:, rng.integers(features)] *= loud
    sample = Sample(features)
    sample.update(x)
    scale, gain = search(sample, find(program)[0], FULL)
    assert (scale > 0).all()
    assert gain <= 1.25 if loud < 3 else gain < 1


def test_the_sample_is_uniform_and_does_not_grow():
    places = np.zeros(4000)
    for seed in range(60):
        sample = Sample(1, rows=50, seed=seed)
        for part in np.array_split(np.arange(4000, dtype=np.float32), 13):
            sample.update(part[:, None])
        assert sample.rows.shape == (50, 1)
        assert (sample.least, sample.most) == (0, 3999)
        places[sample.rows[:, 0].astype(int)] += 1
    # 60 samples of 50 from 4000: 750 a quarter, 23 the standard deviation.
    quarters = places.reshape(4, 1000).sum(axis=1)
    assert (np.abs(quarters - 750) < 5 * 23).all()


def test_the_text_before_and_after():
    weights = {"g": np.ones(32), "s": np.zeros(32), "w": np.ones((32, 32))}
    weights["g"][3] = 64
    program = block("n = LayerNormalization (x, g, s) y = MatMul (n, w)", **{
        name: array.astype(np.float32) for name, array in weights.items()
    })  # fmt: skip
    ramp = np.sin(np.arange(3 * 32, dtype=np.float32)).reshape(1, 3, 32)
    after = run(program, [{"x": ramp}]).program
    golden("quantize/smooth-quant", f"# before\n{text(program)}\n# after\n{text(after)}")


def test_two_runs_give_one_text():
    data = feeds(2, 30, 32)
    program = gated()
    assert text(run(program, data).program) == text(run(program, data).program)


def test_every_prefix_of_the_rewrites_is_a_program():
    body = "n = LayerNormalization (x, g, s) u = MatMul (n, up) r = Relu (u) y = MatMul (r, down)"
    program = block(body, g=LOUD, s=normal(32), up=normal(32, 64) * np.tile(LOUD, 2), down=normal(64, 32))
    data = feeds(2, 30, 32)
    expected = execute(program, data)[0]["y"]
    for allowed in range(3):
        answers = iter([True] * allowed + [False] * 2)
        context = Context(calibration=data, allow=lambda name, a=answers: next(a))
        result = SmoothQuant().run(program.clone(), context)
        assert result.statistics["activations smoothed"] == f"{allowed} of 2"
        found = execute(result.program, data)[0]["y"]
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6 * np.abs(expected).max())


def test_a_quantized_model_is_left_whole():
    program, data = pre_norm(), feeds(2, 5, 32)
    context = Context(target=named("x86-64-vnni"), calibration=data)
    run_ = Pipeline.parse("quantize-static{min_cosine=0.0},smooth-quant").run(program, context)
    assert [step.status for step in run_.steps] == ["applied", "no change"]
    assert run_.steps[1].notes[0].startswith("the model is quantized already")


def test_bad_data_and_bad_options():
    with pytest.raises(PipelineError, match="'smooth-quant' needs calibration data"):
        Pipeline.parse("smooth-quant").run(pre_norm())
    with pytest.raises(DataError, match="constant"):
        run(pre_norm(), [{"x": np.zeros((2, 5, 32), np.float32)}])
    with pytest.raises(PipelineError, match="smooth-quant"):
        Pipeline.parse("smooth-quant{weights=int4}")


# Activations smoothed for free, of all that enter products with weights of their own.
ZOO = {
    "llama": "7 of 9",  # q/k/v and gate/up behind norms, the gated down, the head; not o: heads share values
    "bert": "2 of 8",  # o alone: the stream reads the norms too, and GELU takes no scale
    "opt": "8 of 8",  # q/k/v and up behind norms, o, down behind ReLU; the head is tied, and no part of it
    "t5": "20 of 21",  # all but the encoder's output, which is one of the graph's
    "torch_encoder": "4 of 8",
    "gpt2": None,
    "albert": None,
    "modernbert": None,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ZOO)
@pytest.mark.parametrize("insert", [False, True])
def test_the_zoo_computes_the_same(name, insert):
    """Outputs are compared on probe inputs, to 1e-4, by the manager."""
    program = onnx_program(name)
    context = Context(calibration=probes(program, 0))
    done = Pipeline.parse(f"smooth-quant{{insert={str(insert).lower()}}}").run(program, context)
    assert done.ok
    smoothed = done.steps[0].statistics["activations smoothed"]
    if insert:
        done_, every = smoothed.split(" of ")
        assert done_ == every
    elif ZOO[name] is not None:
        assert smoothed == ZOO[name]

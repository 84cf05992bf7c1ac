"""Products that a graph rounds to bfloat16 run as kernels of it; near misses run as they are written."""

import ml_dtypes
import numpy as np
import pytest
import tvm
import zoo
from graphwright.backends.target import detect
from graphwright.backends.tvm.build.compile import Machine, compile_buckets
from graphwright.backends.tvm.frontend.relax import relax_module
from graphwright.backends.tvm.plan.planner import plan
from graphwright.backends.tvm.run.kept import Kept
from graphwright.ir.execute import execute
from graphwright.passes.manager.contract import Context
from graphwright.passes.quantize.compute_bfloat16 import ComputeBfloat16
from handmade import parsed
from tvm import relax
from tvm_run import sizes_of

MACHINE = Machine.of(detect(), 2)
RNG = np.random.default_rng(0)
X = RNG.standard_normal((2, 5, 32)).astype(np.float32)
W = RNG.standard_normal((32, 32)).astype(np.float32)


def marked(program):
    return ComputeBfloat16(min_cosine=0.0).run(program.clone(), Context()).program


def kernels(program, feed):
    return plan(relax_module(program, sizes_of(program, feed)).module, program.inputs, MACHINE).kernels


def run(program, feed):
    """The first output of a compiled program, and whether its padding was left out."""
    built = compile_buckets(program, detect(), 2, [sizes_of(program, feed)])
    machine, (bucket,) = relax.VirtualMachine(built.executable, tvm.cpu()), built.buckets
    arrays = [feed[spec.name] for spec in program.inputs]
    if bucket.mask:
        arrays += Kept(feed[bucket.mask].shape).of(feed[bucket.mask] != 0)
    arrays += [built.weights[name] for name in bucket.weights]
    found = machine[bucket.function](*map(tvm.runtime.tensor, arrays))
    return (found if isinstance(found, tvm.runtime.Tensor) else found[0]).numpy(), bool(bucket.mask)


def root_mean_square(array):
    return np.sqrt((array.astype(np.float64) ** 2).mean())


@pytest.mark.parametrize(("name", "dialect"), [("bert", "onnx"), ("llama", "fx"), ("gpt2", "onnx")])
def test_every_product_is_a_kernel_and_gives_what_the_graph_says(name, dialect):
    program = (zoo.onnx_program if dialect == "onnx" else zoo.fx_program)(name, "eager")
    feed = {key: tensor.numpy() for key, tensor in zoo.ARCHITECTURES[name].inputs(3, 11).items()}
    narrow = marked(program)
    found = kernels(narrow, feed)
    names = [kernel for kernel in found if kernel.startswith(("dense", "round", "nearest", "attention"))]
    assert all("_bf16" in kernel for kernel in names), found  # rows are rounded where they are made
    assert found["attention_bf16"] == 2
    found, packed = run(narrow, feed)
    exact, written = (execute(each, [feed])[0][program.outputs[0]] for each in (program, narrow))
    real = feed["attention_mask"] != 0 if packed else ...
    # A sum at a tie may round another way. Products of floats would be as far off as rounding takes them.
    off = root_mean_square(written[real] - exact[real])
    assert root_mean_square(found[real] - written[real]) < 0.3 * off


@pytest.mark.parametrize(
    ("body", "given"),
    [
        ("r = Cast<to=1> (h) y = MatMul (r, w)", {"w": W}),  # a weight that bfloat16 doesn't hold
        ("f = Cast<to=1> (u) y = MatMul (x, f)", {"u": "w"}),  # rows that aren't rounded
        ("r = Cast<to=1> (h) f = Cast<to=1> (u) p = MatMul (r, f) y = Add (p, r)", {"u": "w"}),
    ],
)
def test_near_misses_run_as_they_are_written(body, given):
    given = {name: W.astype(ml_dtypes.bfloat16) if isinstance(w, str) else w for name, w in given.items()}
    shape = "float[batch,length,32]"
    program = parsed(f"h = Cast<to=16> (x) {body}", f"{shape} x", f"{shape} y", given)
    feed = {"x": X}
    products = [name for name in kernels(program, feed) if name.startswith("dense")]
    assert products == ["dense_bf16_32x32" if "Add" in body else "dense_f32_32x32"]
    (expected,) = execute(program, [feed])
    np.testing.assert_allclose(run(program, feed)[0], expected["y"], atol=3e-5, rtol=1e-5)


HALF = "{0}h = Cast <to=16> ({0}) {0}f = Cast <to=1> ({0}h)"
ATTENTION = """
    q0 = MatMul (x, wq) q1 = Reshape (q0, split) q2 = Transpose <perm = [0, 2, 1, 3]> (q1) q = Mul (q2, scale)
    k0 = MatMul (x, wk) k1 = Reshape (k0, split) k = Transpose <perm = [0, 2, 3, 1]> (k1)
    v0 = MatMul (x, wv) v1 = Reshape (v0, split) v = Transpose <perm = [0, 2, 1, 3]> (v1)
    {q} {k} z = MatMul (qf, kf) p = Softmax <axis = -1> (z) {p} {v} c = MatMul (pf, vf)
    t = Transpose <perm = [0, 2, 1, 3]> (c) m = Reshape (t, merge) y = MatMul (m, wo)
"""


@pytest.mark.parametrize(
    ("exact", "scale", "kernel"),
    [
        ("", 0.25, "attention_bf16"),
        ("", 0.3, "attention_bf16"),  # what is rounded is scaled by no power of two
        *((x, 0.25, "attention") for x in "qkpv"),
    ],
)
def test_all_factors_of_an_attention_are_rounded_or_none(exact, scale, kernel):
    given = {f"w{x}": W for x in "qkvo"} | {"split": np.array([0, 0, 2, 16]), "merge": np.array([0, 0, 32])}
    given["scale"] = np.array(scale, np.float32)

    def written(exact):
        """With all factors rounded but these."""
        factors = {x: f"{x}f = Identity ({x})" if x in exact else HALF.format(x) for x in "qkpv"}
        shape = "float[batch,length,32]"
        return parsed(ATTENTION.format(**factors), f"{shape} x", f"{shape} y", given)

    program, feed = written(exact), {"x": X / 4}
    assert [name for name in kernels(program, feed) if "attention" in name] == [kernel]
    said, floats = (execute(each, [feed])[0]["y"] for each in (program, written("qkpv")))
    near, far = (said, floats) if "bf16" in kernel else (floats, said)
    found = run(program, feed)[0]
    assert root_mean_square(found - near) < 0.1 * root_mean_square(far - near)

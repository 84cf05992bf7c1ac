"""What `relax_module` gives and refuses: operators whole, weights as stored, a sentence for what is not."""

import functools
from collections import Counter

import numpy as np
import pytest
import torch
import tvm
import tvm_run
from graphwright.backends.tvm.frontend.relax import relax_module
from graphwright.ir.capture import capture
from graphwright.ir.errors import BackendError
from graphwright.ir.execute import execute
from graphwright.ir.inputs.probe import feed, probes
from graphwright.ir.program import Program
from graphwright.ir.spec import InputSpec
from graphwright.passes.manager.contract import Context
from graphwright.passes.manager.text import parse
from graphwright.passes.quantize.fake_quant import FakeQuant
from handmade import parsed
from zoo import fx_program, onnx_program

SIZES = {"batch": 3, "length": 11}
ENCODER = {
    "take": 2, "add": 20, "nn.layer_norm": 5, "astype": 1, "reshape": 9, "where": 1, "matmul": 16,
    "permute_dims": 8, "multiply": 2, "nn.softmax": 2, "nn.gelu": 2,
}  # fmt: skip
# Rounded alike by the reference, so that nothing but float rounding is left.
CLOSE = 2e-6


@functools.cache
def ran(name, text):
    """(the program after a pipeline on the zoo's ONNX form, a ragged feed), which nobody edits."""
    program = onnx_program(name).clone()
    context = Context(calibration=probes(program, 1), original=fx_program(name))
    for pass_ in parse(text):
        program = pass_.run(program.clone(), context).program
    return program, feed(program, SIZES, "ragged", np.random.default_rng(0))


def error(found, reference):
    return np.max(np.abs(found - reference) / np.maximum(1, np.abs(reference)))


def constants(module):
    """Of "main", once each."""
    found = []

    def look(part):
        if isinstance(part, tvm.ir.GenericConst) and not any(part.same_as(other) for other in found):
            found.append(part)

    tvm.relax.analysis.post_order_visit(module["main"], look)
    return [part.value.numpy() for part in found]


@pytest.mark.parametrize("program", [onnx_program, fx_program])
def test_an_encoder_is_its_operators_and_nothing_else(program):
    """No arithmetic on shapes, no expanded masks, one permutation for a transpose, one scale a product."""
    imported = relax_module(program("bert"), SIZES)
    assert Counter(tvm_run.operators(imported.module)) == ENCODER
    assert imported.inputs == ("input_ids", "attention_mask", "token_type_ids")
    assert [str(p.ty.dtype) for p in imported.module["main"].params] == ["int64"] * 3


def test_the_program_is_not_edited():
    for program in (onnx_program("bert"), fx_program("bert")):
        before = program.fingerprint()
        relax_module(program, SIZES)
        assert program.fingerprint() == before


def test_sizes_follow_the_program():
    with pytest.raises(BackendError, match="give one for 'length'"):
        relax_module(onnx_program("bert"), {"batch": 1})
    with pytest.raises(BackendError, match="length=65 is outside what the model takes, 1 to 64"):
        relax_module(onnx_program("bert"), {"batch": 1, "length": 65})


@pytest.mark.parametrize("program", [onnx_program, fx_program])
def test_a_batch_of_one_and_a_single_token(program):
    program = program("bert")
    given = feed(program, {"batch": 1, "length": 1})
    found = tvm_run.run(relax_module(program, {"batch": 1, "length": 1}), given, level=1)
    assert error(*found.values(), *execute(program, [given])[0].values()) < 1e-5


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ("y = Celu (x)", "TVM has no operator Celu"),
        ("y = com.microsoft.Rounded (x)", "TVM has no operator com.microsoft.Rounded"),
        ("i = NonZero (x) y = Cast <to = 1> (i)", "NonZero gives one that data decides"),
    ],
)
def test_what_tvm_lacks_is_named(body, named):
    program = parsed(body, "float[batch,4] x", "float[batch,4] y")
    with pytest.raises(BackendError, match=named) as caught:
        relax_module(program, {"batch": 2})
    assert str(caught.value).count(".") <= 3
    assert "\n" not in str(caught.value)


def test_outputs_that_no_input_decides():
    body = "y = Shape (x) z = Identity (x) c = Constant <value_floats = [1.0, 2.0]> ()"
    program = parsed(body, "float[batch,4] x, float[batch] u", "int64[2] y, float[batch,4] z, float[2] c")
    x = {"x": np.ones((2, 4), np.float32), "u": np.ones(2, np.float32)}
    imported = relax_module(program, {"batch": 2})
    assert imported.inputs == ("x", "u")
    found = tvm_run.run(imported, x, level=0)
    for key, reference in execute(program, [x])[0].items():
        assert found[key].dtype == reference.dtype
        assert np.array_equal(found[key], reference)


@pytest.mark.usefixtures("as_written")
def test_what_tvm_imports_and_cannot_lower_is_refused_at_once():
    program = capture(torch.nn.LayerNorm(5).double(), inputs=[torch.randn(3, 5, dtype=torch.float64)])
    with pytest.raises(BackendError, match=r"cannot lower the program: .*layer_norm: only support float32"):
        relax_module(program, dict.fromkeys(program.symbols, 3))


class Arithmetic(torch.nn.Module):
    """Integers beside numbers of another type, as in masks."""

    def forward(self, x, mask):
        hidden = (1 - mask) * -0.5 + mask / 3 + (1 - mask.float()) + mask.int() * mask
        return hidden, torch.add(x, mask, alpha=2), torch.rsub(x, 1.5, alpha=3), 2 - mask


class Either(torch.nn.Module):
    """Numbers in the place of tensors, and types that follow others."""

    def forward(self, x, mask):
        seen = mask > 0
        ways = (0.0, -1e4), (x, -1), (2, x), (mask, 0.5), (1, mask)
        return *(torch.where(seen, *each) for each in ways), mask.to(x), (3 * x).to(torch.int32), x.to("cpu")


@pytest.mark.parametrize("kind", [Arithmetic, Either])
def test_integers_become_what_pytorch_makes_of_them(kind):
    x, mask = torch.randn(2, 5), torch.tensor([[1, 1, 1, 0, 0], [1, 2, 1, 1, 0]])
    expected = [value.numpy() for value in kind()(x, mask)]
    program = capture(kind(), inputs={"x": x, "mask": mask})
    sizes = {
        d: n for s in program.inputs for d, n in zip(s.shape, x.shape, strict=True) if isinstance(d, str)
    }
    found = tvm_run.run(relax_module(program, sizes), {"x": x.numpy(), "mask": mask.numpy()}, level=1)
    for value, reference in zip(found.values(), expected, strict=True):
        assert value.dtype == reference.dtype
        np.testing.assert_allclose(value, reference, rtol=1e-6, atol=1e-6)


class Sampled(torch.nn.Module):
    def forward(self, x):
        return torch.special.bessel_j0(x)


class Chosen(torch.nn.Module):
    def forward(self, x):
        return x[x[:, 0] > 0]


def test_what_tvm_lacks_is_named_in_a_traced_graph():
    x = {"x": torch.randn(3, 5)}
    with pytest.raises(BackendError, match=r"no operator aten.special_bessel_j0.default .*to-onnx"):
        relax_module(capture(Sampled(), inputs=x), {"batch": 3, "length": 5})
    program = fx_program("bert").clone()
    program = FakeQuant().run(program, Context(calibration=probes(program, 1))).program
    with pytest.raises(BackendError, match=r"fake_quantize_per_tensor_affine.*to-onnx"):
        relax_module(program, SIZES)


def test_sizes_that_data_decides_are_refused_in_a_traced_graph():
    with torch.no_grad():
        graph = torch.export.export(Chosen(), (torch.randn(3, 5),)).module()
    graph.graph.set_codegen(torch.fx.graph.CodeGen())
    program = Program(graph, "fx", (InputSpec("x", "float32", (3, 5)),), ("output",))
    with pytest.raises(BackendError, match="that data decides"):
        relax_module(program, {})


FUSIONS = [
    ("bert", "fuse-layer-norm,fuse-bias-gelu,fuse-skip-layer-norm,fuse-embedding-norm,fuse-attention"),
    ("bert", "fuse-attention{kernel=multi-head},fuse-qkv"),
    ("llama", "fuse-layer-norm,fuse-rotary,fuse-attention,fuse-skip-layer-norm"),
    ("bert", "store-half"),
    ("bert", "quantize-weights{bits=8}"),
    ("llama", "quantize-weights{bits=4}"),
    ("bert", "quantize-weights{bits=4,zeros=fractions}"),
    ("bert", "quantize-weights{bits=3}"),
]


@pytest.mark.parametrize(("name", "text"), FUSIONS)
def test_fused_and_packed_operators_are_what_onnx_runtime_computes(name, text):
    program, given = ran(name, text)
    found = tvm_run.run(relax_module(program, SIZES), given, level=1)
    for key, reference in execute(program, [given])[0].items():
        assert error(found[key], reference) < 1e-5


QUANTIZED = ["quantize-dynamic{min_cosine=0}", "quantize-static{form=qdq}", "quantize-static"]


@pytest.mark.parametrize("text", QUANTIZED)
def test_quantized_programs_round_as_onnx_runtime_does(text):
    """Integers that differ by one anywhere would show at the size of a step, 1e-3."""
    program, given = ran("bert", text)
    imported = relax_module(program, SIZES)
    [(key, reference)] = execute(program, [given])[0].items()
    assert error(tvm_run.run(imported, given)[key], reference) < CLOSE


@pytest.mark.parametrize("text", QUANTIZED)
def test_quantized_weights_stay_bytes(text):
    """TVM's constant folding would turn them into four times as many bytes, and hide the integers."""
    program, _ = ran("bert", text)
    narrow = [array for array in constants(relax_module(program, SIZES).module) if array.dtype == np.int8]
    assert sorted(array.shape for array in narrow if array.ndim == 2) == sorted(
        [(32, 32)] * 8 + [(32, 72)] * 2 + [(72, 32)] * 2
    )


def test_packed_weights_are_codes_of_a_byte():
    program, _ = ran("bert", "quantize-weights{bits=4}")
    codes = [a for a in constants(relax_module(program, SIZES).module) if a.dtype == np.uint8]
    assert sum(array.size for array in codes) >= 2 * (4 * 32 * 32 + 32 * 72 + 72 * 32)
    assert max(array.max() for array in codes) == 15

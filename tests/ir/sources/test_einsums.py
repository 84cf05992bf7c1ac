"""einsum by a parameter is a Linear, in a trace and in a file; what is none stays as it is."""

import numpy as np
import onnx
import pytest
import torch
from graphwright.ir.blocks.linear import linears
from graphwright.ir.blocks.walk import Statics
from graphwright.ir.capture import capture
from graphwright.ir.execute import execute
from graphwright.ir.view import view
from torch import nn

# name: (equation, shape of the parameter, is the parameter first); the other operand is (batch, length, 4, 6)
PROJECTIONS = {
    "features to heads": ("blgh,hnd->blgnd", (6, 2, 3), False),
    "heads to features": ("blgh,ogh->blo", (5, 4, 6), False),
    "heads in another order": ("blgh,hgo->blo", (6, 4, 5), False),
    "heads first": ("blgh,hnd->bnlgd", (6, 2, 3), False),
    "summed over an axis inside": ("blgh,gn->bhln", (4, 3), False),
    "the parameter first": ("nhd,blgh->blgnd", (2, 6, 3), True),
    "an ellipsis": ("...h,hnd->...nd", (6, 2, 3), False),
    "an ellipsis of some": ("...gh,ghd->...d", (4, 6, 5), False),
    "a matrix": ("blgh,ho->blgo", (6, 5), False),
}
OTHERS = {
    "matched, not summed": ("blgh,gho->blgo", (4, 6, 5), False),
    "summed in x alone": ("blgh,ho->blo", (6, 5), False),
    "summed in the parameter alone": ("blgh,hno->blgo", (6, 2, 5), False),
    "no outputs": ("blgh,h->blg", (6,), False),
    "nothing summed": ("blgh,n->blghn", (3,), False),
    "a diagonal": ("blgh,hoo->blgo", (6, 5, 5), False),
    "an axis of one repeated": ("blgh,hn->blgn", (1, 3), False),
}


class Einsum(nn.Module):
    def __init__(self, equation, shape, first=False):
        super().__init__()
        self.equation, self.first = equation, first
        self.weight = nn.Parameter(torch.randn(shape, generator=torch.Generator().manual_seed(0)))

    def forward(self, x):
        operands = (self.weight, x) if self.first else (x, self.weight)
        return torch.einsum(self.equation, *operands) + 1


def example(batch=2, length=5):
    return torch.randn(batch, length, 4, 6, generator=torch.Generator().manual_seed(1))


def written(module, path):
    """The module as an exporter writes it that keeps Einsum."""
    weight = onnx.numpy_helper.from_array(module.weight.detach().numpy(), "weight")
    one = onnx.numpy_helper.from_array(np.float32(1), "one")
    names = ["weight", "x"] if module.first else ["x", "weight"]
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Einsum", names, ["product"], equation=module.equation),
         onnx.helper.make_node("Add", ["product", "one"], ["y"])],
        "g", [onnx.helper.make_tensor_value_info("x", 1, ["batch", "length", 4, 6])],
        [onnx.helper.make_tensor_value_info("y", 1, None)], [weight, one],
    )  # fmt: skip
    onnx.save(
        onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=9), path
    )


def captured(module, dialect, tmp_path):
    if dialect == "fx":
        return capture(module, inputs={"x": example()})
    written(module, tmp_path / "m.onnx")
    return capture(tmp_path / "m.onnx")


def linears_of(program):
    return list(linears(view(program), Statics()).values())


def operators(program):
    return [value.op for value in view(program).values if value.op not in ("const", "input")]


@pytest.mark.parametrize("dialect", ["fx", "onnx"])
@pytest.mark.parametrize("name", PROJECTIONS)
def test_a_projection_becomes_a_linear_that_computes_the_same(name, dialect, tmp_path):
    module = Einsum(*PROJECTIONS[name])
    program = captured(module, dialect, tmp_path)
    (linear,) = linears_of(program)
    assert linear.out_features * linear.in_features == module.weight.numel()
    assert "einsum" not in operators(program)
    assert linear.weight.name == "weight"
    for size in ((1, 1), (3, 7)):
        x = example(*size)
        exact = torch.einsum(
            module.equation, *((module.weight, x) if module.first else (x, module.weight)))  # fmt: skip
        (found,) = execute(program, [{"x": x.numpy()}])[0].values()
        np.testing.assert_allclose(found, (exact + 1).detach().numpy(), rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("dialect", ["fx", "onnx"])
@pytest.mark.parametrize("name", OTHERS)
def test_what_is_no_product_with_a_matrix_stays_an_einsum(name, dialect, tmp_path):
    module = Einsum(*OTHERS[name])
    program = captured(module, dialect, tmp_path)
    assert not linears_of(program)
    assert "einsum" in operators(program)


class Twice(nn.Module):
    """One parameter, read as `equations` say, and added up as it is where they say so."""

    def __init__(self, equations, whole=False):
        super().__init__()
        self.equations, self.whole = equations, whole
        self.weight = nn.Parameter(torch.randn(6, 2, 6, generator=torch.Generator().manual_seed(0)))

    def forward(self, x):
        y = sum(torch.einsum(equation, x, self.weight).sum((1, 2, 3, 4)) for equation in self.equations)
        return y + self.weight.sum() if self.whole else y


@pytest.mark.parametrize(
    ("module", "count"),
    [
        (Twice(["blgh,hnd->blgnd", "blgh,hnd->bglnd"]), 2),
        (Twice(["blgh,hnd->blgnd", "blgd,hnd->blgnh"]), 0),
        (Twice(["blgh,hnd->blgnd"], whole=True), 0),
    ],
    ids=["as one matrix", "as two", "in another way"],
)
def test_a_parameter_is_turned_where_all_that_read_it_read_the_same_matrix(module, count):
    module, x = module.eval(), example()
    program = capture(module, inputs={"x": x})
    assert len(linears_of(program)) == count
    (found,) = execute(program, [{"x": x.numpy()}])[0].values()
    np.testing.assert_allclose(found, module(x).detach().numpy(), rtol=1e-5, atol=1e-5)


def test_the_module_keeps_its_parameter():
    module = Einsum("blgh,hnd->blgnd", (6, 2, 3))
    before = module.weight
    capture(module, inputs={"x": example()})
    assert module.weight is before
    assert module.weight.shape == (6, 2, 3)


class Moved(nn.Module):
    def forward(self, x):
        return torch.einsum("bijc->cbij", x * 2)


def test_an_einsum_that_only_moves_axes_is_a_transpose():
    program, x = capture(Moved(), inputs={"x": example()}), example()
    assert [op for op in operators(program) if op != "identity"] == ["mul", "transpose"]
    np.testing.assert_array_equal(execute(program, [{"x": x.numpy()}])[0]["output"], Moved()(x).numpy())

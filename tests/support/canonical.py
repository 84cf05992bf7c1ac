"""What tests of canonical passes share: a program in need of each, on ONNX and FX, and how one is run."""

from __future__ import annotations

import numpy as np
import torch
from graphwright.passes.manager.pipeline import Pipeline
from handmade import parsed

F32 = np.float32
X3 = "float[batch,length,4] x"
Y3 = "float[batch,length,4] y"
PIPELINE = "eliminate-identities,eliminate-common-subexpressions,eliminate-dead-code"

GOLDEN = {
    "fold-constants": parsed(
        """
        two = Constant<value_float = 2.0>()
        half = Div(one, two)
        grown = Mul(half, row)
        shifted = Add(x, grown)
        dims = Shape(shifted)
        last = Constant<value_ints = [2]>()
        width = Gather(dims, last)
        as_float = Cast<to = 1>(width)
        root = Sqrt(as_float)
        y = Div(shifted, root)
        """,
        X3,
        Y3,
        {"one": np.ones((), F32), "row": np.arange(4, dtype=F32)},
    ),
    "eliminate-common-subexpressions": parsed(
        """
        a = Add(x, first)
        b = Add(second, x)
        c = Sub(x, first)
        d = Sub(first, x)
        e = Relu(a)
        f = Relu(b)
        g = Mul(e, f)
        h = Mul(c, d)
        y = Add(g, h)
        """,
        X3,
        Y3,
        {"first": np.arange(4, dtype=F32), "second": np.arange(4, dtype=F32)},
    ),
    "eliminate-dead-code": parsed(
        """
        a = Add(x, used)
        b = Mul(a, unused)
        c = Relu(b)
        y = Relu(a)
        """,
        X3,
        Y3,
        {"used": np.ones(4, F32), "unused": np.full(4, 2, F32)},
    ),
    "eliminate-identities": parsed(
        """
        a = Identity(x)
        b = Add(a, zero)
        c = Mul(one, b)
        d = Cast<to = 1>(c)
        e = Transpose<perm = [0, 2, 1]>(d)
        f = Transpose<perm = [0, 2, 1]>(e)
        g = Unsqueeze(f, axis)
        h = Squeeze(g, axis)
        i = Cast<to = 11>(h)
        j = Cast<to = 1>(i)
        k = Reshape(j, keep)
        l, unused = Dropout(k)
        m = Slice(l, start, end, axis)
        n = Expand(m, ones)
        o = Concat<axis = 1>(n)
        p = Relu(o)
        y = Identity(p)
        """,
        X3,
        Y3,
        {
            "zero": np.zeros(4, F32), "one": np.ones((), F32), "axis": np.array([1]),
            "keep": np.array([0, -1, 4]), "start": np.array([0]),
            "end": np.array([np.iinfo(np.int64).max]), "ones": np.array([1, 4]),
        },
    ),
    "specialise-shapes{batch=2,length=6}": parsed(
        """
        dims = Shape(x)
        zero = Constant<value_int = 0>()
        batch = Gather(dims, zero)
        one = Constant<value_int = 1>()
        length = Gather(dims, one)
        axes = Constant<value_ints = [0]>()
        b = Unsqueeze(batch, axes)
        l = Unsqueeze(length, axes)
        heads = Constant<value_ints = [2, 2]>()
        split = Concat<axis = 0>(b, l, heads)
        r = Reshape(x, split)
        t = Transpose<perm = [0, 2, 1, 3]>(r)
        step = Constant<value_int = 1>()
        positions = Range(zero, length, step)
        p = Cast<to = 1>(positions)
        column = Unsqueeze(p, axes_last)
        y = Add(t, column)
        """,
        X3,
        "float[batch,2,length,2] y",
        {"axes_last": np.array([1])},
    ),
}  # fmt: skip


class Redundant(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.proj = torch.nn.Linear(4, 4)
        self.dropout = torch.nn.Dropout(0.5)

    def forward(self, x):
        a = self.proj(x).clone()
        b = self.proj(x)
        c = self.dropout(a * 2 + b.view(b.shape))
        return torch.relu(c.to(torch.float32))


class Twice(torch.nn.Module):
    def forward(self, x):
        a = x + 1
        b = x + 1
        return a, b


def after(text, program, status="applied"):
    """Run with verification: the numbers are checked on probe inputs by the manager."""
    run = Pipeline.parse(text).run(program)
    assert run.ok, run.steps[0].error
    assert run.steps[-1].status == status
    return run.program


def notes(text, program):
    return "\n".join(Pipeline.parse(text).run(program).steps[0].notes)


def calls(program):
    return [node.target for node in program.graph.graph.nodes if node.op == "call_function"]

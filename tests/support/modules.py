"""Modules in a line: a forward over a linear layer, a table and whatever else it needs."""

import torch
from torch import nn


class Small(nn.Module):
    """forward(...) is body(self, ...). linear: 4 to 4. table: 20 ids. parts: modules, buffers, values."""

    def __init__(self, body, **parts):
        super().__init__()
        torch.manual_seed(0)
        self.linear, self.table = nn.Linear(4, 4), nn.Embedding(20, 4)
        for name, part in parts.items():
            if isinstance(part, torch.Tensor):
                self.register_buffer(name, part)
            else:
                setattr(self, name, part)
        self.forward = body.__get__(self)


def floats(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def ids(*shape, seed=0):
    return torch.randint(0, 20, shape, generator=torch.Generator().manual_seed(seed))


def agree(program, tensors, expected, tolerance=1e-5):
    """The program's graph on tensors in order, against outputs in order, relative to max(1, |expected|)."""
    with torch.no_grad():
        got = program.graph(*(tensor.clone() for tensor in tensors))
    assert len(got) == len(expected)
    for a, b in zip(got, expected, strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        a, b = a.detach().double(), b.detach().double()
        assert float(((a - b).abs() / b.abs().clamp(min=1)).max()) < tolerance

"""What a trace leaves behind it."""

import torch
from graphwright.ir.capture import capture
from graphwright.ir.fx.graph import propagate
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode


def asked():
    found = FakeTensorMode.cache_info()
    return found.hits + found.misses


def test_a_trace_keeps_no_shapes_for_later_and_who_computes_them_again_does():
    before = asked()
    program = capture(nn.Sequential(nn.Linear(4, 6), nn.ReLU()).eval(), inputs=[torch.randn(3, 4)])
    assert asked() == before
    propagate(program.clone().graph)
    assert asked() > before

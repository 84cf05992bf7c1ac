"""Two products of low rank in place of one: blocks are found as with one, and near misses are none."""

import torch
from graphwright.ir.blocks import recognise
from graphwright.ir.capture import capture
from graphwright.ir.view import view
from torch import nn
from torch.nn.functional import gelu, scaled_dot_product_attention, silu

WIDTH, INNER, RANK = 24, 56, 6


def pair(inputs, outputs, rank=RANK, bias=False):
    return nn.Sequential(nn.Linear(inputs, rank, bias=bias), nn.Linear(rank, outputs))


class Layer(nn.Module):
    """One layer, each of its products two. what: the near miss."""

    def __init__(self, what=""):
        super().__init__()
        self.what = what
        rank = INNER + 8 if what == "wider" else RANK
        self.q, self.k, self.v, self.o = (pair(WIDTH, WIDTH) for _ in range(4))
        self.up, self.gate = pair(WIDTH, INNER, rank, what == "bias"), pair(WIDTH, INNER)
        self.down = pair(INNER, WIDTH)
        self.norm, self.last = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)

    def forward(self, x):
        heads = [p(x).unflatten(-1, (4, -1)).transpose(1, 2) for p in (self.q, self.k, self.v)]
        x = self.norm(x + self.o(scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)))
        if self.what == "gated":
            return self.last(x + self.down(silu(self.gate(x)) * self.up(x)))
        few = self.down[0](gelu(self.up(x)))
        y = self.last(x + self.down[1](few))
        return (y, few) if self.what == "read" else y


def blocks(what=""):
    torch.manual_seed(0)
    return recognise(view(capture(Layer(what).eval(), inputs={"x": torch.randn(2, 5, WIDTH)})))


def test_attention_goes_from_what_the_first_products_read_to_what_the_last_gives():
    found = blocks()
    (attention,) = found.attention
    assert not attention.cross
    assert (attention.q.in_features, attention.o.out_features) == (RANK, RANK)
    assert attention.root in {residual.branch for residual in found.residual}
    assert [residual.of for residual in found.residual] == ["attention", "feed_forward"]
    (forward,) = found.feed_forward
    assert (forward.width, forward.up.in_features, forward.down.out_features) == (INNER, RANK, RANK)
    assert forward.root in {residual.branch for residual in found.residual}
    assert forward.input == found.norm[0].root


def test_up_and_gate_may_have_first_products_of_their_own():
    (forward,) = blocks("gated").feed_forward
    assert forward.activation == "silu"
    assert forward.gate.input != forward.up.input
    assert forward.input.shape[-1] == WIDTH


def test_a_first_product_with_a_bias_or_wider_than_it_reads_is_a_layer_of_its_own():
    for what in ("bias", "wider"):
        found = blocks(what)
        assert found.feed_forward == ()
        assert "features go in" in next(m.reason for m in found.missed if m.kind == "feed_forward")


def test_what_something_else_reads_too_is_no_inner_value():
    assert blocks("read").feed_forward == ()

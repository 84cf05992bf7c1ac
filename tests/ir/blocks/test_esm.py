"""Embeddings of which tokens are zeroed or scaled by what is counted from ids and masks (ESM), and gates that
only look like it."""

import graphwright as gw
import pytest
import torch
from graphwright.ir.blocks import recognise
from graphwright.ir.view import view
from torch import nn

H, MASKED = 32, 3


class Embedded(nn.Module):
    """Words and positions as ESM adds them. way: "esm", or a near miss: "gated" (by the words themselves),
    "weighed" (by a weight for each token)."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way
        self.words, self.places, self.gate = nn.Embedding(50, H), nn.Embedding(20, H), nn.Linear(H, 1)
        self.weights = nn.Embedding(50, 1)
        self.norm, self.up = nn.LayerNorm(H), nn.Linear(H, H)

    def forward(self, ids, mask):
        x = self.words(ids)
        if self.way == "esm":
            x = x.masked_fill((ids == MASKED).unsqueeze(-1), 0.0)
            seen = (ids == MASKED).sum(-1).float() / mask.sum(-1)
            x = x * (1 - 0.12) / (1 - seen)[:, None, None]
        elif self.way == "gated":
            x = x * self.gate(x).sigmoid()
        else:
            x = x * self.weights(ids)
        x = x + self.places(torch.arange(ids.shape[1]).expand_as(ids))
        x = x * mask.unsqueeze(-1)
        return x + self.up(self.norm(x))


@pytest.mark.parametrize("dialect", ["fx", "onnx"])
@pytest.mark.parametrize("way", ["esm", "gated", "weighed"])
def test_what_is_counted_from_ids_belongs_to_an_embedding(way, dialect):
    torch.manual_seed(0)
    ids = torch.randint(4, 50, (2, 7))
    ids[0, 2] = MASKED
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    program = gw.trace(Embedded(way).eval(), inputs={"ids": ids, "mask": mask})
    if dialect == "onnx":
        program = gw.Pipeline.parse("to-onnx,fold-constants").run(program).program
    assert program.dialect == dialect
    found = recognise(view(program)).embedding
    whole = [each for each in found if len(each.tables) == 2 and each.root.op == "mul"]
    assert len(whole) == (way == "esm"), [each.root for each in found]
    if way == "esm":
        assert len(found) == 1
        run = gw.Pipeline.parse("fuse-embedding-norm").run(program) if dialect == "onnx" else None
        assert run is None or run.steps[0].status == "no change"

"""What tests of shared weights share: a stack whose layers are as wide as is asked for."""

import torch
from graphwright.ir.capture import capture
from torch import nn
from zoo.handwritten import CausalBlock


class Blocks(nn.Module):
    """Pre-norm blocks of these widths of their feed-forwards."""

    def __init__(self, *widths, heads=(3,)):
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(83, 36)
        heads = heads * len(widths) if len(heads) == 1 else heads
        self.blocks = nn.ModuleList(
            CausalBlock(36, count, width, 40, True) for count, width in zip(heads, widths, strict=True)
        )

    def forward(self, input_ids):
        x = self.table(input_ids)
        for block in self.blocks:
            x = block(x)
        return x


IDS = {"input_ids": torch.arange(27).reshape(3, 9)}


def blocks(*widths, **settings):
    return capture(Blocks(*widths, **settings).eval(), inputs=IDS)

"""A program's outputs as rows that count: padding is left out, and logits are told from vectors."""

from __future__ import annotations

import torch

from ...ir.inputs.masks import real_tokens
from ...ir.program import Program, Task
from ..manager.contract import Feed

_LOGITS: frozenset[Task] = frozenset(
    {"sequence-classification", "token-classification", "question-answering", "masked-lm", "causal-lm"}
)


def rows(program: Program, feed: Feed, output: torch.Tensor) -> torch.Tensor:
    """(rows, width) of an output, or of a hidden state, without padding.

    A row is what stands along the last axis; a batch of single numbers is one row of them.
    """
    for real in real_tokens(program.inputs, feed).values():
        if output.dim() > real.ndim and output.shape[: real.ndim] == real.shape:
            output = output[torch.from_numpy(real)]
            break
    if output.dim() < 2 or output.shape[-1] == 1:
        return output.reshape(1, -1)
    return output.reshape(-1, output.shape[-1])


def logits(program: Program, output: torch.Tensor) -> bool:
    """Whether rows of an output are logits: the task has them, and there is more than one to a row."""
    return program.task in _LOGITS and output.dim() > 1 and output.shape[-1] > 1


def arguments(program: Program, feed: Feed) -> list[torch.Tensor]:
    """A feed as the graph module takes it."""
    return [torch.from_numpy(feed[spec.name].copy()) for spec in program.inputs]

"""A term of a distillation loss: what is looked at in teacher and student, and how far apart they are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch.fx import Node

from ....manager.contract import Feed

Tensors = Sequence[torch.Tensor]


@dataclass
class Term(ABC):
    """One term.

    weight: factor of its distance in the loss. layer: the place of its layer among those that are taught,
    from 0; None at the outputs. taught, learns: nodes of the teacher and of the student whose values it is
    given. parameters: of its own, learned with the student and thrown away.
    """

    weight: float
    layer: int | None
    taught: list[Node]
    learns: list[Node]
    parameters: dict[str, torch.nn.Parameter] = field(default_factory=dict)

    def target(self, feed: Feed, values: Tensors) -> list[torch.Tensor]:
        """What is to be kept of the teacher's values on a feed."""
        return list(values)

    @abstractmethod
    def distance(self, feed: Feed, target: Tensors, values: Tensors) -> torch.Tensor:
        """A scalar with a gradient, 0 where the student gives what the teacher gave.

        Args:
            target: as `target` gave it for this feed. values: the student's.
        """

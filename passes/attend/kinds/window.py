"""Keys near the query: a sliding window, dilated or not, beside tokens that all see and that see all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from ..parts.kind import Pattern
from ..parts.limits import least


@dataclass(frozen=True)
class Window(Pattern):
    """Longformer's pattern (Beltagy et al., 2020, arXiv:2004.05150, section 3.1).

    window: places on each side of the query's own, `dilation` apart (for a model that looks back only:
    before it). global_tokens: the first places of a text are seen by all and see all.
    """

    window: int = 256
    dilation: int = 1
    global_tokens: int = 0

    def __post_init__(self) -> None:
        least(self, window=0, dilation=1, global_tokens=0)

    def sees(self, i: Tensor, j: Tensor, own: Mapping[str, Tensor], causal: bool) -> Tensor:
        far = j - i
        near = (far >= -self.window * self.dilation) & (far <= self.window * self.dilation)
        if self.dilation > 1:
            near = near & (far % self.dilation == 0)
        if self.global_tokens:
            near = near | (j < self.global_tokens) | (i < self.global_tokens)
        return near

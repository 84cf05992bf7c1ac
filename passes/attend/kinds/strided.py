"""Keys near the query, and a few of all that lie farther away, at regular distances."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from ..parts.kind import Pattern
from ..parts.limits import least

_FORMS = ("strided", "fixed")


@dataclass(frozen=True)
class Strided(Pattern):
    """The patterns of the Sparse Transformer (Child et al., 2019, arXiv:1904.10509, section 4.2), their two
    heads merged into one; they are the paper's for models that look back only, and mirrored for others.

    stride: of "strided", keys less than so far away, and every stride-th beyond; of "fixed", keys of the same
    stretch of so many places. form: "strided" or "fixed". summary: of "fixed", the last places of every
    stretch, which all see.
    """

    stride: int = 128
    form: str = "strided"
    summary: int = 8

    def __post_init__(self) -> None:
        least(self, stride=1, summary=0)
        if self.form not in _FORMS:
            raise ValueError(f"form is {self.form!r}, and there are {' and '.join(map(repr, _FORMS))}")
        if self.form == "fixed" and self.summary > self.stride:
            raise ValueError(f"summary is {self.summary}, and a stretch has {self.stride} places")

    def sees(self, i: Tensor, j: Tensor, own: Mapping[str, Tensor], causal: bool) -> Tensor:
        if self.form == "fixed":
            return (j // self.stride == i // self.stride) | (j % self.stride >= self.stride - self.summary)
        far = j - i
        return ((far > -self.stride) & (far < self.stride)) | (far % self.stride == 0)

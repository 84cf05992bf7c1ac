"""What `optimize` gives back."""

from __future__ import annotations

from dataclasses import dataclass

from .facts import Facts
from .verdict import closing


@dataclass(frozen=True)
class Outcome(Facts):
    """The result of `optimize`, all that it found. As text it is the verdict that the command prints."""

    def __repr__(self) -> str:
        return "\n".join(closing(self))

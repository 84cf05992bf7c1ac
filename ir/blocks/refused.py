"""Why what a recogniser looked at is no attention."""

from __future__ import annotations

from ..values import Value


class NoAttention(Exception):  # noqa: N818 - an answer, not an error
    """A softmax, or a product below it, that is not an attention's. value: where that shows."""

    def __init__(self, value: Value, reason: str) -> None:
        super().__init__(reason)
        self.value, self.reason = value, reason

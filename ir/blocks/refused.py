"""Why what a recogniser looked at is no block."""

from __future__ import annotations

from ..values import Value


class Refused(Exception):  # noqa: N818 - an answer, not an error
    """It only looks like one, or a step on the way to it cannot be followed. value: where that shows."""

    def __init__(self, value: Value, reason: str) -> None:
        super().__init__(reason)
        self.value, self.reason = value, reason

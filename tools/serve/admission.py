"""How many requests, and how many bytes of them, are taken at once. Standard library only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from .refusal import Overloaded


@dataclass
class Held:
    """A request's part: the bytes of its body that are in memory."""

    owner: Admission
    bytes: int = 0

    def take(self, size: int) -> None:
        """Raises Overloaded where all requests together would hold too much."""
        if self.owner.bytes + size > self.owner.most_bytes:
            raise Overloaded("requests being read hold as much memory as they may: try again later")
        self.owner.bytes += size
        self.bytes += size


class Admission:
    """Limits over all requests being answered. For one thread."""

    def __init__(self, requests: int, most_bytes: int) -> None:
        self.most_requests, self.most_bytes = requests, most_bytes
        self.requests = self.bytes = 0

    @contextmanager
    def request(self) -> Iterator[Held]:
        """A place for a request while the block runs. Raises Overloaded where all are taken."""
        if self.requests >= self.most_requests:
            raise Overloaded("as many requests are being answered as may be: try again later")
        self.requests += 1
        held = Held(self)
        try:
            yield held
        finally:
            self.requests -= 1
            self.bytes -= held.bytes

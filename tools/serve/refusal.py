"""What a request is answered with that gets no result. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_OPENAI = {401: "authentication_error", 429: "rate_limit_error"}


class Refusal(Exception):  # noqa: N818
    """A status and a sentence for the client.

    Args:
        status: HTTP's. 4xx: the request, or too many of them; 503 and 504: this server.
        sentence: names the thing and the mend; nothing of this server's inside.
        kind: text-embeddings-inference's error_type.
        param: the field of the request that is meant, as OpenAI's errors say.
        headers: further ones, such as Retry-After.
    """

    def __init__(
        self,
        status: int,
        sentence: str,
        kind: str = "Validation",
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(sentence)
        self.status, self.sentence, self.kind = status, sentence, kind
        self.param, self.code, self.headers = param, code, dict(headers or {})

    def for_tei(self) -> dict[str, Any]:
        """The body as text-embeddings-inference writes it."""
        return {"error": self.sentence, "error_type": self.kind}

    def for_openai(self) -> dict[str, Any]:
        """The body as OpenAI writes it."""
        kind = _OPENAI.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        return {"error": {"message": self.sentence, "type": kind, "param": self.param, "code": self.code}}


class Overloaded(Refusal):
    """Too much is waiting already. seconds: after which there will be room, at the present pace."""

    def __init__(self, sentence: str, seconds: float = 1.0) -> None:
        wait = str(max(1, min(60, round(seconds + 0.5))))
        super().__init__(429, sentence, "Overloaded", headers={"Retry-After": wait})


class Gone(Exception):  # noqa: N818
    """The client has left; nobody is answered."""

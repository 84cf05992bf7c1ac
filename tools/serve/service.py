"""What answers requests: models behind one batcher, and the limits around them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .admission import Admission
from .batching import Batcher, Job
from .body import Receive
from .metrics import Metrics
from .model import Model
from .refusal import Gone, Overloaded, Refusal

if TYPE_CHECKING:
    from tokenizers import Encoding

HANGS = 60.0  # seconds after which a call is taken to have hung
_INLINE = 4096  # characters that are tokenized sooner than they are handed to another thread


@dataclass(frozen=True)
class Limits:
    """waiting: tokens that may wait. requests: being answered at once. body: bytes of one. bodies: bytes of
    all being answered. texts: of a request. seconds: that a body may take to come, and that texts may wait.
    truncate: texts that are too long are cut unless a request says otherwise."""

    waiting: int = 1 << 18
    requests: int = 512
    body: int = 2 << 20
    bodies: int = 64 << 20
    texts: int = 2048
    seconds: float = 30.0
    truncate: bool = False


class Service:
    """Lives on the thread of an event loop.

    Args:
        models: by name; the first is the one that is meant where a request names none.
        parallel: calls computed at once.
    """

    def __init__(self, models: Mapping[str, Model], limits: Limits, parallel: int = 1) -> None:
        self.models, self.limits, self.parallel = dict(models), limits, parallel
        self.default = next(iter(self.models.values()))
        self.admission = Admission(limits.requests, limits.bodies)
        self._workers = ThreadPoolExecutor(parallel, "model")
        self._tokenizer = ThreadPoolExecutor(1, "tokenizer")
        self.metrics = Metrics(lambda: self.batcher.waiting_tokens, lambda: self.admission.requests)
        lanes = {name: model.lane for name, model in self.models.items()}
        self.batcher = Batcher(lanes, self._workers, parallel, limits.waiting, self.metrics.ran)

    def model(self, name: str | None) -> Model:
        """The model of a name. Raises Refusal where there is none."""
        if name is None:
            return self.default
        if name not in self.models:
            raise Refusal(
                404,
                f"there is no model {name[:100]!r} here; there is {', '.join(self.models)}",
                param="model",
                code="model_not_found",
            )
        return self.models[name]

    async def compute(
        self,
        model: Model,
        texts: Sequence[str],
        pairs: Sequence[str] | None,
        truncate: bool | None,
        field: str,
        receive: Receive,
    ) -> tuple[list[np.ndarray], int]:
        """A row a text, and how many tokens that were.

        Args:
            truncate: None takes the server's own.
            receive: says when the client has left.

        Raises:
            Refusal: too many texts, too long, or no room or time for them.
            Gone: the client has left.
        """
        if len(texts) > self.limits.texts:
            raise Refusal(
                413, f"{field} has {len(texts)} texts and at most {self.limits.texts} are taken", param=field
            )
        cut = self.limits.truncate if truncate is None else truncate
        encodings = await self._tokens(model, texts, pairs, cut, field)
        lengths = [len(encoding) for encoding in encodings]
        job = self.batcher.submit(model.name, encodings, lengths)
        return await self._outcome(job, receive), sum(lengths)

    async def _tokens(
        self, model: Model, texts: Sequence[str], pairs: Sequence[str] | None, cut: bool, field: str
    ) -> list[Encoding]:
        if sum(map(len, texts)) + sum(map(len, pairs or ())) <= _INLINE:
            return model.tokenize(texts, pairs, cut, field)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._tokenizer, model.tokenize, texts, pairs, cut, field)

    async def _outcome(self, job: Job, receive: Receive) -> list[Any]:
        left: asyncio.Future[Any] = asyncio.ensure_future(receive())
        seconds: float | None = self.limits.seconds
        try:
            while not job.done.done():
                await asyncio.wait({job.done, left}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
                if left.done() and not job.done.done():
                    if left.exception() is not None or left.result()["type"] == "http.disconnect":
                        raise Gone
                    left = asyncio.ensure_future(receive())
                elif not job.done.done():
                    if self.batcher.withdraw(job):
                        raise Overloaded(f"no turn came within {seconds:g} seconds: try again later", 1)
                    seconds = None  # all of it has begun, so it ends
            return job.done.result()
        finally:
            left.cancel()
            self.batcher.withdraw(job)
            job.done.cancel()

    async def close(self) -> None:
        """Finish what was accepted."""
        await self.batcher.idle()
        self._workers.shutdown()
        self._tokenizer.shutdown()

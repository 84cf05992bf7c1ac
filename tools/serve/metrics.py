"""What Prometheus is told. Labels hold names known at the start only, so that their number is bounded."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from .batching import Ran

_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
_TOKENS = (8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
_TEXTS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """A server's counters, in a registry of its own.

    Args:
        waiting: tokens that wait now. requests: that are being answered now.
    """

    def __init__(self, waiting: Callable[[], float], requests: Callable[[], float]) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._requests = self._counter("requests", "requests answered", ("route", "status"))
        self._seconds = self._histogram("request_seconds", "from head to answer", ("route",), _SECONDS)
        self._texts = self._counter("texts", "texts computed", ("model",))
        self._tokens = self._counter("tokens", "real tokens computed", ("model",))
        self._places = self._counter("padding", "places of calls beyond their real tokens", ("model",))
        self._call_seconds = self._histogram("call_seconds", "of a call of the model", ("model",), _SECONDS)
        self._call_tokens = self._histogram("call_tokens", "real tokens of a call", ("model",), _TOKENS)
        self._call_texts = self._histogram("call_texts", "texts of a call", ("model",), _TEXTS)
        for name, help_, function in (
            ("waiting_tokens", "tokens that wait for a call", waiting),
            ("requests_in_flight", "requests being answered", requests),
        ):
            gauge = Gauge(name, help_, namespace="graphwright", registry=self.registry)
            gauge.set_function(function)

    def answered(self, route: str, status: int, seconds: float) -> None:
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def ran(self, ran: Ran) -> None:
        tokens, texts = sum(ran.lengths), len(ran.lengths)
        self._texts.labels(ran.lane).inc(texts)
        self._tokens.labels(ran.lane).inc(tokens)
        self._places.labels(ran.lane).inc(texts * max(ran.lengths) - tokens)
        self._call_seconds.labels(ran.lane).observe(ran.seconds)
        self._call_tokens.labels(ran.lane).observe(tokens)
        self._call_texts.labels(ran.lane).observe(texts)

    def text(self) -> bytes:
        """In Prometheus' text format."""
        return generate_latest(self.registry)

    def _counter(self, name: str, help_: str, labels: tuple[str, ...]) -> Counter:
        return Counter(name, help_, labels, namespace="graphwright", registry=self.registry)

    def _histogram(
        self, name: str, help_: str, labels: tuple[str, ...], buckets: tuple[float, ...]
    ) -> Histogram:
        return Histogram(
            name, help_, labels, namespace="graphwright", registry=self.registry, buckets=buckets
        )

"""The routes: a request's body in, a response out."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any, TypeVar

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from . import openai, tei
from .body import parse, read_body
from .model import Kind, Model
from .refusal import Refusal
from .service import HANGS, Service

Asked = TypeVar("Asked", bound=tei.Request)
_WANTED = {
    "embedding": "an encoder of texts",
    "classifier": "a classifier of texts",
    "reranker": "a reranker",
}


class Routes:
    """text-embeddings-inference's and OpenAI's routes over a service. A model is named in the path
    (/models/NAME/embed) or, for OpenAI, in the body."""

    def __init__(self, service: Service) -> None:
        self.service = service

    def table(self) -> list[Route]:
        named = [
            ("/embed", self.embed, "POST"),
            ("/rerank", self.rerank, "POST"),
            ("/predict", self.predict, "POST"),
            ("/info", self.info, "GET"),
        ]
        routes = [
            Route(prefix + path, function, methods=[method])
            for path, function, method in named
            for prefix in ("", "/models/{model}")
        ]
        return [
            *routes,
            Route("/", self.whichever, methods=["POST"]),
            Route("/models/{model}", self.whichever, methods=["POST"]),
            Route("/v1/embeddings", self.embeddings, methods=["POST"]),
            Route("/v1/models", self.models, methods=["GET"]),
            Route("/health", self.health, methods=["GET"]),
            Route("/ready", self.ready, methods=["GET"]),
            Route("/metrics", self.metrics, methods=["GET"]),
        ]

    async def embed(self, request: Request) -> Response:
        model = self._model(request, "embedding")
        asked = await self._asked(request, tei.Embed)
        tei.check_dimensions(model, asked.dimensions)
        texts = _prompted(model, asked)
        rows, _ = await self.service.compute(model, texts, None, asked.truncate, "inputs", request.receive)
        return _json(tei.vectors(rows, asked.normalize, asked.dimensions))

    async def rerank(self, request: Request) -> Response:
        model = self._model(request, "reranker")
        asked = await self._asked(request, tei.Rerank)
        queries = [asked.query] * len(asked.texts)
        rows, _ = await self.service.compute(
            model, queries, asked.texts, asked.truncate, "texts", request.receive
        )
        return _json(tei.ranks(rows, asked))

    async def predict(self, request: Request) -> Response:
        model = self._model(request, "classifier", "reranker")
        asked = await self._asked(request, tei.Predict)
        answers: list[Any] = [None] * len(asked.rows)
        for size in {len(row) for row in asked.rows}:  # texts and pairs are tokenized apart
            places = [at for at, row in enumerate(asked.rows) if len(row) == size]
            chosen = [asked.rows[at] for at in places]
            pairs = [row[1] for row in chosen] if size == 2 else None
            rows, _ = await self.service.compute(
                model, [row[0] for row in chosen], pairs, asked.truncate, "inputs", request.receive
            )
            for at, row in zip(places, rows, strict=True):
                answers[at] = tei.predictions(model, row, asked.raw_scores)
        return _json(answers[0] if asked.single else answers)

    async def whichever(self, request: Request) -> Response:
        """What the model is for, as inference clients ask that know an address and no route."""
        kind = self._model(request).kind
        function = {"embedding": self.embed, "classifier": self.predict, "reranker": self.rerank}[kind]
        return await function(request)

    async def embeddings(self, request: Request) -> Response:
        asked = await self._asked(request, openai.Embeddings)
        model = self.service.model(asked.model)
        _check_kind(model, "embedding")
        tei.check_dimensions(model, asked.dimensions)
        rows, tokens = await self.service.compute(model, asked.input, None, None, "input", request.receive)
        return _json(openai.embeddings(asked, tei.vectors(rows, True, asked.dimensions), tokens))

    async def models(self, request: Request) -> Response:
        listed = [{"id": name, "object": "model", "owned_by": "graphwright"} for name in self.service.models]
        return _json({"object": "list", "data": listed})

    async def info(self, request: Request) -> Response:
        model, limits = self._model(request), self.service.limits
        manifest = model.bundle.manifest
        labels = [str(name) for name in manifest.info.get("labels", ())]
        kind: dict[str, Any] = {"embedding": {"dimensions": model.width, "cuts": model.cuts}}
        if model.kind != "embedding":
            kind = {model.kind: {"id2label": dict(enumerate(labels))}}
        return _json(
            {
                "model_id": model.name,
                "model_sha": manifest.record.get("sha256"),
                "variant": model.bundle.variant,
                "model_type": kind,
                "prompts": sorted(model.prompts),
                "moves_with_its_call": manifest.record.get("neighbours"),
                "max_input_length": model.longest,
                "max_batch_tokens": model.budget.tokens,
                "max_client_batch_size": limits.texts,
                "max_concurrent_requests": limits.requests,
                "auto_truncate": limits.truncate,
                "threads": model.bundle.threads,
                "version": version("graphwright"),
            }
        )

    async def health(self, request: Request) -> Response:
        if self.service.batcher.busy_for > HANGS:
            raise Refusal(503, "a call of the model does not end", "Unhealthy")
        return Response()

    async def ready(self, request: Request) -> Response:
        if self.service.batcher.waiting_tokens >= self.service.batcher.most:
            raise Refusal(503, "as many texts wait as may", "Unhealthy")
        return await self.health(request)

    async def metrics(self, request: Request) -> Response:
        return Response(self.service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    def _model(self, request: Request, *kinds: Kind) -> Model:
        model = self.service.model(request.path_params.get("model"))
        _check_kind(model, *kinds)
        return model

    async def _asked(self, request: Request, kind: type[Asked]) -> Asked:
        limits = self.service.limits
        hold = request.scope["held"].take
        body = await read_body(request.scope["headers"], request.receive, limits.body, limits.seconds, hold)
        return parse(kind, body, kind is openai.Embeddings)


def _check_kind(model: Model, *kinds: Kind) -> None:
    """Raises Refusal where a model is of another kind than the route is for."""
    if kinds and model.kind not in kinds:
        raise Refusal(
            424, f"{model.name} is {_WANTED[model.kind]} and this route is for {_WANTED[kinds[0]]}", "Backend"
        )


def _prompted(model: Model, asked: tei.Embed) -> list[str]:
    """Texts behind the prompt that is asked for."""
    if asked.prompt_name is None:
        return asked.inputs
    if asked.prompt_name not in model.prompts:
        known = f"; it has {', '.join(sorted(model.prompts))}" if model.prompts else ""
        raise Refusal(
            422, f"{model.name} has no prompt {asked.prompt_name[:100]!r}{known}", param="prompt_name"
        )
    return [model.prompts[asked.prompt_name] + text for text in asked.inputs]


def _json(content: Any) -> Response:
    return Response(
        orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS),
        media_type="application/json",
    )

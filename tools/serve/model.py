"""A bundle as a server asks it: texts to tokens within limits, and calls of several texts at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ...backends.running.runner import Bundle
from ...ir.errors import BundleError
from ...ir.host.residency import bring_in
from .batching import Lane
from .budget import Budget
from .refusal import Refusal

if TYPE_CHECKING:
    from tokenizers import Encoding

TOKENS = 512  # of a call, unless more is asked for or the model takes longer texts
CHARACTERS = 64  # a token, at most: what is longer is not even tokenized
Kind = Literal["embedding", "classifier", "reranker"]


@dataclass(frozen=True)
class Model:
    """A bundle behind a name. Safe to use from several threads.

    longest: tokens of a text. width: of a vector, or labels of a classifier. cuts: widths that vectors may be
    cut to, because the model was trained for it.
    """

    name: str
    bundle: Bundle
    kind: Kind
    output: str
    budget: Budget
    longest: int
    width: int
    cuts: tuple[int, ...] = ()

    @property
    def lane(self) -> Lane:
        return Lane(self.run, self.budget)

    @property
    def prompts(self) -> Mapping[str, str]:
        """By name, what the model was trained to find in front of a text."""
        found = self.bundle.manifest.info.get("prompts")
        return found if isinstance(found, dict) else {}

    def run(self, encodings: list[Encoding]) -> list[np.ndarray]:
        """The model's output for each text, a row each of float32."""
        found = self.bundle.run(self.bundle.encoder.pad_together(encodings))[self.output]
        # Copies: a row that a slow client waits for must not hold the whole call.
        return [np.array(row, np.float32) for row in found]

    def tokenize(
        self, texts: Sequence[str], pairs: Sequence[str] | None, truncate: bool, field: str
    ) -> list[Encoding]:
        """Each text's tokens.

        Args:
            truncate: cut what is longer than the model takes, instead of refusing it.
            field: of the request, for sentences.

        Raises:
            Refusal: a text is too long, or has no token.
        """
        most = CHARACTERS * self.longest
        for each, what in ((texts, field), (pairs or (), "the second text of " + field)):
            for number, text in enumerate(each):
                if len(text) > most and not truncate:
                    raise self._too_long(what, number)
        firsts = [text[:most] for text in texts]
        encodings = self.bundle.encoder.tokenize(firsts, pairs and [text[:most] for text in pairs])
        for number, encoding in enumerate(encodings):
            if encoding.overflowing and not truncate:
                raise self._too_long(field, number)
            if not len(encoding):
                raise Refusal(422, f"{field}[{number}] has no token", "Tokenizer", field)
        return encodings

    def _too_long(self, field: str, number: int) -> Refusal:
        return Refusal(
            413,
            f"{field}[{number}] is longer than the {self.longest} tokens that {self.name} takes: "
            "shorten it, or send truncate: true where the route has it",
            param=field,
        )


def model(
    name: str, bundle: Bundle, tokens: int | None = None, cuts: Sequence[int] = (), parallel: int = 1
) -> Model:
    """A loaded bundle as a model to serve, after its largest calls: what is to fail or to take memory does so
    before anybody asks.

    Args:
        tokens: of a call; None is 512, or the longest text that the model takes.
        cuts: widths that its vectors may be cut to, beside those that the bundle records.
        parallel: calls that will be made at once.

    Raises:
        BundleError: it isn't an encoder or a classifier of texts, or its inputs aren't made from texts.
    """
    manifest, encoder = bundle.manifest, bundle.encoder
    if manifest.task not in ("embedding", "sequence-classification"):
        raise BundleError(
            f"{bundle.directory} is a model for {manifest.task}; serve answers for encoders of texts "
            "(embedding) and classifiers of texts (sequence-classification)"
        )
    rows, fixed = _rows(bundle), encoder.fixed
    limit = (encoder.tokenizer.truncation or {}).get("max_length")
    tokens = max(TOKENS, limit or 0) if tokens is None else tokens
    longest = min(limit or tokens, tokens)
    if fixed and fixed > tokens:
        raise BundleError(
            f"{bundle.directory} computes {fixed} tokens for every text: let a call have so many"
        )
    encoder.tokenizer.enable_truncation(longest)
    output = _output(bundle)
    budget = Budget(tokens, rows, fixed)
    with ThreadPoolExecutor(parallel) as threads:
        for call in calls(bundle, budget, longest):
            feed = encoder.pad_together(call)
            probe = next(iter(threads.map(bundle.run, [feed] * parallel)))[output]
    bring_in(bundle.directory)
    if probe.ndim != 2 or probe.dtype.kind != "f":
        raise BundleError(
            f"{bundle.directory} gives {output} as {probe.dtype} {list(probe.shape)}: not a row a text"
        )
    width = int(probe.shape[1])
    kind: Kind = "embedding" if manifest.task == "embedding" else "reranker" if width == 1 else "classifier"
    known = {*cuts, *_recorded(manifest.info)}
    if (wrong := next((cut for cut in known if not 0 < cut <= width), None)) is not None:
        raise BundleError(f"{name}'s vectors have {width} numbers and can't be cut to {wrong}")
    return Model(name, bundle, kind, output, budget, longest, width, tuple(sorted(known)))


def calls(bundle: Bundle, budget: Budget, longest: int) -> list[list[Encoding]]:
    """Calls, as texts, that take each graph of a bundle and as much memory as a call may."""
    routes = bundle.manifest.dispatch
    shapes = [(route["batch"], route["length"], route["padding"]) for route in routes]
    full = max(1, min(budget.rows, budget.tokens // (budget.fixed or longest)))
    found = []
    for rows, length, padding in [*shapes, (full, longest, 0.0)]:
        first = min(length, longest)
        rest = max(1, round(first * (1 - padding * rows / max(1, rows - 1))))
        lengths = [first] + [rest] * (rows - 1)
        if budget.holds(rows, first):
            found.append([_of_length(bundle, each, longest) for each in lengths])
    return found or [[_of_length(bundle, 1, longest)]]


def _of_length(bundle: Bundle, tokens: int, longest: int) -> Encoding:
    """The tokens of some text, so many or as many as there are."""
    (encoding,) = bundle.encoder.tokenize(["a " * longest])
    encoding.truncate(tokens)
    return encoding


def _recorded(info: Mapping[str, Any]) -> list[int]:
    found = info.get("matryoshka_dimensions")
    return [each for each in found if type(each) is int] if isinstance(found, list) else []


def _output(bundle: Bundle) -> str:
    names = bundle.output_names
    if bundle.manifest.task == "sequence-classification" and "logits" in names:
        return "logits"
    return names[0]


def _rows(bundle: Bundle) -> int:
    """The most texts of one call."""
    ids = next(spec for spec in bundle.inputs if spec.role == "token_ids")
    rows = ids.shape[0]
    if isinstance(rows, str):
        low, high = bundle.manifest.symbols.get(rows, (1, Budget(1).rows))
    else:
        low = high = rows
    if low > 1:
        raise BundleError(f"{bundle.directory} takes no call of fewer than {low} texts")
    return high

"""A causal language model with its hidden states in sight: at each token a key, and what comes next."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from ...backends.running.text import TextEncoder
from ...backends.running.texts import listed
from ...backends.runtimes.onnxruntime import OnnxRuntime
from ...ir.blocks import recognise
from ...ir.blocks.base import Experts, FeedForward
from ...ir.capture import capture
from ...ir.errors import InputError
from ...ir.program import Program
from ...ir.values import Value
from ...ir.view import view
from ...passes.manager.pipeline import Pipeline
from ..judge.metrics import log_softmax
from ..judge.scores import logits

_TOGETHER = 4  # texts of one call: logits of a large vocabulary take megabytes a token
_LOWERED = "to-onnx,fold-constants"


@dataclass(frozen=True)
class Steps:
    """Tokens of some texts that another follows. keys: (tokens, width) float32. following: (tokens,) int64,
    the next token's id. logs: (tokens, vocabulary) float64, the model's log-probabilities of it. text:
    (tokens,) int64, the number of the text that each is of."""

    keys: np.ndarray
    following: np.ndarray
    logs: np.ndarray
    text: np.ndarray


def keyed(program: Program) -> tuple[Program, str]:
    """An onnx program that also gives what its last feed-forward reads, and the name of that output.

    Khandelwal et al. (2020, arXiv 1911.00172, section 5) found this state to be the best key.

    Raises:
        InputError: no feed-forward was recognised, or it doesn't read one vector a token.
    """
    found = program.clone()
    seen = view(found)
    blocks = recognise(seen)
    order: dict[Value, int] = {value: number for number, value in enumerate(seen.values)}
    layers: list[FeedForward | Experts] = [*blocks.feed_forward, *blocks.experts]
    value = max(layers, key=lambda each: order[each.root]).input if layers else None
    if value is None or value.shape is None or len(value.shape) != 3 or not isinstance(value.shape[-1], int):
        raise InputError(
            "no feed-forward was recognised in the model that reads one vector a token, which would be the "
            "key; `optimize inspect` says what was missed and why"
        )
    native: Any = value.native
    if all(output is not native for output in found.graph.graph.outputs):
        found.graph.graph.outputs.append(native)
    return replace(found, outputs=(*program.outputs, native.name)), native.name


class LanguageModel:
    """A causal language model, run by ONNX Runtime.

    Args:
        source: a directory, a hub id, an .onnx file with its tokenizer, or a program.
        threads: intra-op threads.

    Raises:
        CaptureError: nothing there is a model.
        InputError: it is no causal language model, has no tokenizer, or no key is found.
    """

    def __init__(self, source: str | Path | Program, threads: int = 2) -> None:
        self.name = "a program" if isinstance(source, Program) else str(source)
        program = source if isinstance(source, Program) else capture(source)
        if program.task != "causal-lm" or "tokenizer.json" not in program.tokenizer:
            raise InputError(
                f"{self.name} is no causal language model with a tokenizer.json: its task is {program.task}"
            )
        if program.dialect != "onnx":
            program = Pipeline.parse(_LOWERED).run(program).program
        self.program, self._key = keyed(program)
        self.digest = self.program.fingerprint()
        content = program.tokenizer["tokenizer.json"]
        self.encoder = TextEncoder(content, program.inputs, program.info, program.symbols)
        self._run = OnnxRuntime().build(self.program, threads=threads).run

    def steps(self, texts: Iterable[str]) -> Iterator[Steps]:
        """What the model makes of texts, some at a time; each is cut off where the model's length ends.

        Raises:
            InputError: something is no text.
        """
        stream, first = iter(texts), 0
        while batch := list(islice(stream, _TOGETHER)):
            feed = self.encoder(listed(batch))
            outputs = self._run(feed)
            ids, real = self._tokens(feed)
            places = np.nonzero(real[:, :-1] & real[:, 1:])
            scores = logits({name: outputs[name] for name in outputs if name != self._key}, 3)
            yield Steps(
                outputs[self._key][places].astype(np.float32, copy=False),
                ids[:, 1:][places],
                log_softmax(scores[places]),
                first + places[0],
            )
            first += len(batch)

    def last(self, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """(texts, width) keys and (texts, vocabulary) log-probabilities of what follows each text."""
        keys, logs = [], []
        for text in listed(texts):
            outputs = self._run(self.encoder([text]))
            scores = logits({name: outputs[name] for name in outputs if name != self._key}, 3)
            keys.append(outputs[self._key][0, -1])
            logs.append(log_softmax(scores[0, -1]))
        return np.stack(keys), np.stack(logs)

    def _tokens(self, feed: Any) -> tuple[np.ndarray, np.ndarray]:
        """(texts, tokens) ids, and whether each is the text's own."""
        specs = {spec.role: spec for spec in self.program.inputs}
        ids, mask = feed[specs["token_ids"].name], specs.get("attention_mask")
        return ids, mask.kept(feed[mask.name]).astype(bool) if mask else np.ones(ids.shape, bool)

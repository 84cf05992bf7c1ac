"""A causal language model with its hidden states in sight: at each token a key, and what comes next."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ...backends.runtimes.onnxruntime import OnnxRuntime
from ...ir.blocks import recognise
from ...ir.blocks.base import Experts, FeedForward
from ...ir.capture import capture
from ...ir.errors import InputError
from ...ir.inputs.text import TextEncoder
from ...ir.inputs.texts import listed
from ...ir.program import Program
from ...ir.values import Value
from ...ir.view import view
from ...passes.manager.pipeline import Pipeline
from ..judge.metrics import log_softmax
from ..judge.scores import logits

_ROWS = 64  # of logits looked at together: a large vocabulary has hundreds of kilobytes a row
_LOWERED = "to-onnx,fold-constants"


@dataclass(frozen=True)
class States:
    """Tokens of a text that another follows. keys: (tokens, width) float32. following: (tokens,) int64, the
    next token's id. text: the number of the text."""

    keys: np.ndarray
    following: np.ndarray
    text: int


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
        PassError, ContractError: it could not be lowered to ONNX.
    """

    def __init__(self, source: str | Path | Program, threads: int = 2) -> None:
        self.name = "a program" if isinstance(source, Program) else str(source)
        program = source if isinstance(source, Program) else capture(source)
        if program.task != "causal-lm" or "tokenizer.json" not in program.tokenizer:
            raise InputError(
                f"{self.name} is no causal language model with a tokenizer.json: its task is {program.task}"
            )
        if program.dialect != "onnx":
            program = Pipeline.parse(_LOWERED).run(program).program_or_raise()
        self.program, self._key = keyed(program)
        self.digest = self.program.fingerprint()
        content = program.tokenizer["tokenizer.json"]
        self.encoder = TextEncoder(content, program.inputs, program.info, program.symbols)
        self._runtime, self._threads = OnnxRuntime(), threads

    def states(self, texts: Iterable[str]) -> Iterator[States]:
        """Keys of texts, one at a time, without the logits; each is cut off where the model's length ends.

        Raises:
            InputError: something is no text.
        """
        return (states for states, _, _ in self._read(texts, self._run_key))

    def steps(self, texts: Iterable[str]) -> Iterator[tuple[States, np.ndarray]]:
        """As `states`, with the model's log-probability of each token that follows, (tokens,) float64."""
        for states, outputs, places in self._read(texts, self._run):
            yield states, likelihoods(self._logits(outputs)[0], places, states.following)

    def _read(
        self, texts: Iterable[str], run: Callable[[Any], dict[str, np.ndarray]]
    ) -> Iterator[tuple[States, dict[str, np.ndarray], np.ndarray]]:
        """States, what a call gave, and the places of tokens that another follows.

        A call reads one text: several would be padded, and a long one keeps all threads busy."""
        for number, text in enumerate(texts):
            feed = self.encoder(listed([text]))
            outputs = run(feed)
            ids, real = self._tokens(feed)
            places = np.flatnonzero(real[0, :-1] & real[0, 1:])
            keys = outputs[self._key][0, places].astype(np.float32, copy=False)
            yield States(keys, ids[0, places + 1], number), outputs, places

    @cached_property
    def _run(self) -> Callable[[Any], dict[str, np.ndarray]]:
        return self._runtime.build(self.program, threads=self._threads).run

    @cached_property
    def _run_key(self) -> Callable[[Any], dict[str, np.ndarray]]:
        """The model as far as its keys: what ends in the vocabulary is a fifth of a small one."""
        program = self.program.clone()
        outputs: Any = program.graph.graph.outputs
        outputs[:] = [value for value in outputs if value.name == self._key]
        program = replace(program, outputs=(self._key,))
        return self._runtime.build(program, threads=self._threads).run

    def _logits(self, outputs: dict[str, np.ndarray]) -> np.ndarray:
        return logits({name: outputs[name] for name in outputs if name != self._key}, 3)

    def last(self, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """(texts, width) keys and (texts, vocabulary) log-probabilities of what follows each text."""
        keys, logs = [], []
        for text in listed(texts):
            outputs = self._run(self.encoder([text]))
            keys.append(outputs[self._key][0, -1])
            logs.append(log_softmax(self._logits(outputs)[0, -1]))
        return np.stack(keys), np.stack(logs)

    def _tokens(self, feed: Any) -> tuple[np.ndarray, np.ndarray]:
        """(texts, tokens) ids, and whether each is the text's own."""
        specs = {spec.role: spec for spec in self.program.inputs}
        ids, mask = feed[specs["token_ids"].name], specs.get("attention_mask")
        return ids, mask.kept(feed[mask.name]).astype(bool) if mask else np.ones(ids.shape, bool)


def likelihoods(scores: np.ndarray, places: np.ndarray, following: np.ndarray) -> np.ndarray:
    """(tokens,) float64: log-probabilities of what follows at some places.

    Args:
        scores: (places of a text, vocabulary) floats. places, following: (tokens,) int64.
    """
    found = np.empty(len(places))
    for start in range(0, len(places), _ROWS):
        part = slice(start, start + _ROWS)
        rows = scores[places[part]].astype(np.float32, copy=False)
        rows -= rows.max(axis=1, keepdims=True)
        right = np.take_along_axis(rows, following[part, None], axis=1)[:, 0].astype(np.float64)
        found[part] = right - np.log(np.exp(rows, out=rows).sum(axis=1, dtype=np.float64))
    return found

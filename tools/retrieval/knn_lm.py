"""Nearest-neighbour language models: what followed similar states in a datastore is mixed into what a model
expects next (Khandelwal et al., 2020, arXiv 1911.00172)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...backends.target import allowed_cpus
from ...ir.errors import BundleError, ConfigError, InputError
from . import store
from .keys import LanguageModel
from .record import TEXTS, read_record
from .search import Searcher
from .write import Source, build

NEIGHBOURS = 1024  # as in the paper
WEIGHTS = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
TEMPERATURES = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)


@dataclass(frozen=True)
class Mixed:
    """Perplexity without and with the datastore, over `tokens` tokens of texts that chose neither `weight`
    (of the neighbours, the paper's lambda) nor `temperature` (of squared distances)."""

    plain: float
    mixed: float
    weight: float
    temperature: float
    neighbours: int
    tokens: int


class Datastore:
    """Keys and what followed them, as an index of inner products.

    Of a key k the index holds (k, -|k|^2/2), asked with (q, 1): the largest product is the nearest key. A
    row's text is the next token's id. Search is exact.

    Args:
        directory: that `build` wrote.
        model: that it was built with.

    Raises:
        BundleError: no datastore, one that was tampered with, or one of another model.
    """

    def __init__(self, directory: str | Path, model: LanguageModel) -> None:
        folder = Path(directory)
        record = read_record(folder)
        if record.model != model.digest:
            raise BundleError(f"{folder} holds states of another model than {model.name}: build it again")
        store.verify(folder, record)
        self.model = model
        self._search = Searcher(folder, record, len(allowed_cpus()))
        self._following = np.array(
            (folder / record.file(TEXTS)).read_bytes()[: record.length(TEXTS)].split(), np.int64
        )

    def __len__(self) -> int:
        return len(self._following)

    @classmethod
    def build(
        cls, model: LanguageModel, texts: Iterable[str], out: str | Path, *, force: bool = False
    ) -> Datastore:
        """Write a datastore of every token of the texts that another follows.

        Raises:
            InputError: no texts, or none of two tokens.
            BundleError: the directory exists, or can't be written.
        """
        build(
            Source(_rows(model, texts), model.digest, model.name),
            Path(out),
            "float32",
            None,
            "dot",
            1.0,
            force,
        )
        return cls(out, model)

    def distances(self, keys: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Squared distances to the nearest keys, (tokens, count) float64, nearest first, and what followed
        them, (tokens, count) int64. count is cut to what there is.

        Args:
            keys: (tokens, width) float32.
        """
        asked = np.concatenate([keys, np.ones((len(keys), 1), np.float32)], axis=1)
        rows, products = self._search.search(asked, count)
        lengths = (keys.astype(np.float64) ** 2).sum(axis=1, keepdims=True)
        return np.maximum(lengths - 2 * products, 0), self._following[rows]

    def next_tokens(
        self, texts: list[str], weight: float = 0.25, temperature: float = 1.0, count: int = NEIGHBOURS
    ) -> np.ndarray:
        """(texts, vocabulary) float64: probabilities of what follows each text, with the datastore's part."""
        keys, logs = self.model.last(texts)
        distances, following = self.distances(keys, count)
        found = np.zeros_like(logs)
        for row, shares, tokens in zip(found, near(distances, temperature), following, strict=True):
            np.add.at(row, tokens, shares)
        return (1 - weight) * np.exp(logs) + weight * found

    def perplexity(
        self,
        texts: Iterable[str],
        weight: float | None = None,
        temperature: float | None = None,
        count: int = NEIGHBOURS,
    ) -> Mixed:
        """Perplexity of each token but a text's first, without the datastore and with it.

        What is not given of weight and temperature is chosen by the first, third, ... text, and the
        perplexities are those of the others; where both are given, of all.

        Raises:
            InputError: too few texts of two tokens.
            ConfigError: a weight outside of 0 to 1, or a temperature that is not above 0.
        """
        if not 0 <= (weight or 0) <= 1 or not 0 < (1.0 if temperature is None else temperature) < math.inf:
            raise ConfigError("a weight is a number from 0 to 1, and a temperature one above 0")
        heats = TEMPERATURES if temperature is None else (temperature,)
        shares = WEIGHTS if weight is None else (weight,)
        plain, stored, text = self._expected(texts, heats, count)
        judged, chosen = np.ones(len(plain), bool), (shares[0], 0)
        if len(heats) > 1 or len(shares) > 1:
            judged = text % 2 == 1
            if judged.all() or not judged.any():
                raise InputError("there are too few texts of two tokens to choose by and to judge on")
            options = [(share, heat) for share in shares for heat in range(len(heats))]
            tuning = {each: _perplexity(_mix(plain[~judged], stored[~judged], each)) for each in options}
            chosen = min(options, key=lambda each: tuning[each])
        return Mixed(
            _perplexity(plain[judged]),
            _perplexity(_mix(plain[judged], stored[judged], chosen)),
            chosen[0],
            heats[chosen[1]],
            min(count, len(self)),
            int(judged.sum()),
        )

    def _expected(
        self, texts: Iterable[str], heats: tuple[float, ...], count: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of each token: its probability by the model (tokens,), by the datastore (tokens, heats), its
        text."""
        found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        for states, logs in self.model.steps(texts):
            if not len(states.keys):
                continue
            distances, following = self.distances(states.keys, count)
            right = following == states.following[:, None]
            by_heat = np.stack([(near(distances, heat) * right).sum(axis=1) for heat in heats], axis=1)
            found.append((np.exp(logs), by_heat, np.full(len(logs), states.text)))
        if not found:
            raise InputError("no text has two tokens: there is nothing to judge on")
        plain, stored, text = (np.concatenate(parts) for parts in zip(*found, strict=True))
        return plain, stored, text


def near(distances: np.ndarray, temperature: float) -> np.ndarray:
    """Shares of neighbours, exp(-d / temperature) normalised (equation 2 of the paper), row by row."""
    shares = np.exp(-(distances - distances.min(axis=1, keepdims=True)) / temperature)
    return shares / shares.sum(axis=1, keepdims=True)


def _rows(model: LanguageModel, texts: Iterable[str]) -> Iterator[tuple[list[str], np.ndarray]]:
    for states in model.states(texts):
        if len(states.keys):
            lengths = (states.keys.astype(np.float64) ** 2).sum(axis=1, keepdims=True)
            yield (
                [f"{token}\n" for token in states.following],
                np.concatenate([states.keys, -lengths / 2], axis=1),
            )


def _mix(plain: np.ndarray, stored: np.ndarray, chosen: tuple[float, int]) -> np.ndarray:
    weight, heat = chosen
    return (1 - weight) * plain + weight * stored[:, heat]


def _perplexity(probabilities: np.ndarray) -> float:
    with np.errstate(divide="ignore"):
        return float(np.exp(-np.log(probabilities).mean()))

"""How near a program is to the original, where nobody said what is right: output by output, by what it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ...ir.agreement import floating, row_cosines
from ...ir.errors import DataError
from ...passes.manager.contract import Feed
from .data import Row
from .metrics import divergence, log_softmax, rank_correlation, relative_error, varies
from .scores import Outputs, Runner, Score, embedding

Array = np.ndarray
KEPT = 1 << 26  # bytes of the original's outputs that are kept from one score to the next


@dataclass(frozen=True)
class Fidelity:
    """Agreement with the original on the same inputs. For logits that of the largest, with the KL divergence
    beside it, or the rank correlation of its probability where both always say the same; for a
    single score the rank correlation; for embeddings and hidden states the cosine, at real tokens. Integers
    count where there is nothing else.

    rows: the texts of the feeds. own: the same texts for a program with a tokenizer of its own; its tokens
    are others, so hidden states are compared by their mean. hidden: what the mask holds where it hides.
    """

    feeds: Sequence[Feed]
    reference: Runner
    mask: str | None
    rows: Sequence[Row] = ()
    own: Sequence[Feed] = ()
    hidden: float = 0
    _known: dict[int, Outputs] = field(default_factory=dict, repr=False, compare=False)

    def __call__(self, run: Runner) -> Score:
        logits, scores, vectors, integers = _Logits(), _Scores(), _Vectors(), _Integers()
        for number, (feed, own) in enumerate(zip(self.feeds, self.own or self.feeds, strict=True)):
            # Side by side, batch by batch: large outputs of the original are never all held at once.
            old, new = self._original(number, feed), run(own)
            real = self._real(feed)
            if self.own:
                old, new = _means(old, real), _means(new, self._real(own))
                _same_width(old, new)
            for name, was in old.items():
                a, b = _rows(was, real), _rows(new[name], real)
                if not floating(was):
                    integers.add(a, b)
                elif a.shape[-1] == 1:
                    scores.add(name, a[:, 0], b[:, 0])
                elif "logits" in name:
                    logits.add(name, a, b)
                else:
                    vectors.add(name, a, b)
        found = [each.score() for each in (logits, vectors, scores, integers) if each.names]
        if not found:
            raise DataError("the model has no output to compare")
        return next((score for score in found if not score.nothing), found[0])

    def _original(self, number: int, feed: Feed) -> Outputs:
        """What the original gives for a feed, computed once as far as there is room for it."""
        if number in self._known:
            return self._known[number]
        found = self.reference(feed)
        held = sum(array.nbytes for each in (*self._known.values(), found) for array in each.values())
        if held <= KEPT:
            self._known[number] = found
        return found

    def _real(self, feed: Feed) -> Array | None:
        if self.mask is None:
            return None
        return feed[self.mask] == 0 if self.hidden else feed[self.mask] != 0


class _Vectors:
    """Rows that point somewhere: cosines."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.first: dict[str, Array] = {}
        self.differ: set[str] = set()
        self.lone: set[str] = set()
        self.cosines: list[Array] = []
        self.sizes: list[Array] = []

    def add(self, name: str, a: Array, b: Array) -> None:
        self.names.add(name)
        if not len(a):
            return
        cosines = row_cosines(a, b)
        self.cosines.append(cosines)
        with np.errstate(invalid="ignore", over="ignore"):
            norms = [np.linalg.norm(each.astype(np.float64), axis=-1) for each in (a, b)]
        self.sizes.append(np.stack(norms))
        alone = name not in self.first and len(a) == 1
        first = self.first.setdefault(name, a[0])
        if not np.array_equal(a, np.broadcast_to(first, a.shape), equal_nan=True):
            self.differ.add(name)
        self.lone.add(name) if alone else self.lone.discard(name)

    def score(self) -> Score:
        every = np.concatenate([*self.cosines, np.empty(0)])
        if not every.size:
            return Score("cosine", 0.0, nothing="gives no numbers")
        a, b = np.concatenate(self.sizes, axis=1)
        use = np.isfinite(a) & np.isfinite(b) & (a > 0)
        length = float(np.median(b[use] / a[use])) if use.any() else 1.0
        details = {"worst": 100 * float(every.min())}
        if abs(length - 1) > 0.01:
            details["norm ratio"] = length
        nothing = "" if self.differ | self.lone else "gives every input the same"
        return Score("cosine", 100 * float(every.mean()), details=details, nothing=nothing)


@dataclass
class _Scores:
    """One number a row."""

    names: set[str] = field(default_factory=set)
    old: dict[str, list[Array]] = field(default_factory=dict)
    new: dict[str, list[Array]] = field(default_factory=dict)

    def add(self, name: str, a: Array, b: Array) -> None:
        self.names.add(name)
        self.old.setdefault(name, []).append(a)
        self.new.setdefault(name, []).append(b)

    def score(self) -> Score:
        """Of the worst output among those that vary."""
        found = [
            ranked(np.concatenate(self.old[name]), np.concatenate(self.new[name])) for name in self.names
        ]
        telling = [score for score in found if not score.nothing]
        return min(telling or found, key=lambda score: score.value)


class _Logits:
    """A score a class: which is the largest, and how far the distribution is."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.agreements: list[Array] = []
        self.divergences: list[Array] = []
        self.chosen: dict[str, int] = {}
        self.differ = False
        self.sure = _Scores()  # log-probability of the class that the original chose first

    def add(self, name: str, a: Array, b: Array) -> None:
        self.names.add(name)
        one_sided = np.isnan(a).any(axis=-1) != np.isnan(b).any(axis=-1)
        told = ~np.isnan(a).any(axis=-1) | one_sided
        a, b, one_sided = a[told], b[told], one_sided[told]
        if not len(a):
            return
        guesses = a.argmax(axis=-1)
        first = self.chosen.setdefault(name, int(guesses[0]))
        self.differ |= bool((guesses[~one_sided] != first).any())
        self.agreements.append((guesses == b.argmax(axis=-1)) & ~one_sided)
        self.divergences.append(divergence(a[~one_sided], b[~one_sided]))
        self.sure.add(name, log_softmax(a)[:, first], log_softmax(b)[:, first])

    def score(self) -> Score:
        if not self.agreements:
            return Score("agreement", 0.0, nothing="gives no numbers")
        agreed = np.concatenate(self.agreements)
        if not self.differ and agreed.all():
            return self.sure.score()  # a constant would agree as well
        every = np.concatenate(self.divergences)
        details = {"KL": float(every.mean()), "worst KL": float(every.max())} if every.size else {}
        return Score("agreement", 100 * float(agreed.mean()), details=details)


class _Integers:
    """Values that are the same or are not."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.same: list[Array] = []
        self.seen: set[int] = set()

    def add(self, a: Array, b: Array) -> None:
        self.names.add("")
        self.same.append((a == b).ravel())
        self.seen |= set(np.unique(a)[:2].tolist())

    def score(self) -> Score:
        every = np.concatenate(self.same)
        if len(self.seen) < 2:
            return Score("agreement", 0.0, nothing="gives every input the same")
        return Score("agreement", 100 * float(every.mean()))


def ranked(expected: Array, found: Array) -> Score:
    """Spearman's rank correlation of one number a row with what it should follow; rows without a number count
    as nothing found. Beside it the error, over the standard deviation of what was expected."""
    told = np.isfinite(expected)
    expected, found = expected[told].astype(np.float64), found[told].astype(np.float64)
    if not expected.size:
        return Score("rank correlation", 0.0, nothing="gives no numbers")
    if not varies(expected):
        return Score("rank correlation", 0.0, nothing="gives every input the same")
    use = np.isfinite(found)
    details = {"relative error": relative_error(expected[use], found[use])} if use.any() else {}
    return Score("rank correlation", 100 * rank_correlation(expected, found), details=details)


def _means(outputs: Outputs, real: Array | None) -> dict[str, Array]:
    """Outputs with the mean over tokens in place of what each token has."""
    tokens = {name: array for name, array in outputs.items() if array.ndim == 3}
    return {**outputs, **{name: embedding({name: array}, real) for name, array in tokens.items()}}


def _same_width(old: Outputs, new: Outputs) -> None:
    for name, array in old.items():
        if array.shape != new[name].shape:
            raise DataError(
                f"{name} is {new[name].shape[-1]} scores instead of {array.shape[-1]}, which can't be "
                "compared: judge it on labelled data (--data)"
            )


def _rows(array: Array, real: Array | None) -> Array:
    """(rows, width); outputs of rank 0 and 1 have width 1."""
    if real is not None and array.ndim == 3 and array.shape[:2] == real.shape:
        return array[real]
    width = array.shape[-1] if array.ndim > 1 else 1
    return array.reshape(array.size // width if width else 0, width)

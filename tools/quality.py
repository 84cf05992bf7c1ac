"""How good a program is: the user's metric on the user's rows, or fidelity to the original without labels."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from ..ir.errors import DataError
from ..ir.program import InputSpec, Program
from ..passes.base import Feed
from .data import Data, Row
from .metrics import cosine, divergence, f1, log_softmax, spans, spearman

Outputs = Mapping[str, np.ndarray]
Runner = Callable[[Feed], Outputs]
BATCH = 32


@dataclass(frozen=True)
class Score:
    """value: in points, that is times 100 for everything but perplexity. details: what stands beside it."""

    metric: str
    value: float
    higher_is_better: bool = True
    details: Mapping[str, float] = field(default_factory=dict)

    def drop_from(self, reference: Score) -> float:
        """Points lost against the reference; below zero where this one is better."""
        lost = reference.value - self.value
        return lost if self.higher_is_better else -lost


class Encoder(Protocol):
    """Turns texts into a padded feed for the program."""

    def __call__(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> Feed: ...

    def words(self, texts: Sequence[Sequence[str]]) -> tuple[Feed, list[list[int | None]]]:
        """A feed for texts that are split into words, and each token's word (None for special tokens)."""

    def token_id(self, token: str) -> int | None: ...


class Judge(Protocol):
    """Scores a runner."""

    def __call__(self, run: Runner) -> Score: ...


def judge(program: Program, data: Data, encoder: Encoder, reference: Runner, seed: int = 0) -> Judge:
    """The judge for the data's task.

    Raises:
        DataError: the rows don't fit the model: a wrong label, or a task that its outputs can't serve.
    """
    if data.task == "classification":
        return Accuracy(data, encoder, _label_ids(program, data))
    if data.task == "similarity":
        return Similarity(data, encoder, _role(program, "attention_mask"))
    if data.task == "token-classification":
        return Tagging(data, encoder, _label_names(program))
    if data.task == "perplexity":
        return Perplexity(data, encoder, program, seed)
    feeds = [feed for _, feed in batches(data.rows, encoder)]
    return Fidelity(feeds, reference, _role(program, "attention_mask"), data.rows)


def batches(rows: Sequence[Row], encoder: Encoder, of: str = "text") -> Iterator[tuple[list[int], Feed]]:
    """(row numbers, feed) in batches of like length, so that little is padded."""
    order = sorted(range(len(rows)), key=lambda i: (len(getattr(rows[i], of)), i))
    for start in range(0, len(order), BATCH):
        chosen = order[start : start + BATCH]
        texts = [getattr(rows[i], of) for i in chosen]
        pairs = [rows[i].pair or "" for i in chosen]
        second = pairs if of == "text" and any(pairs) else None
        yield chosen, encoder(texts, second)


@dataclass(frozen=True)
class Accuracy:
    """Share of rows whose largest logit is the label's."""

    data: Data
    encoder: Encoder
    labels: Sequence[int]

    def __call__(self, run: Runner) -> Score:
        right = 0
        for chosen, feed in batches(self.data.rows, self.encoder):
            guesses = logits(run(feed), 2).argmax(axis=-1)
            right += sum(int(guess) == self.labels[i] for guess, i in zip(guesses, chosen, strict=True))
        return Score("accuracy", 100 * right / len(self.data.rows))


@dataclass(frozen=True)
class Similarity:
    """Spearman's rank correlation between the cosine of two embeddings and the score people gave."""

    data: Data
    encoder: Encoder
    mask: InputSpec | None

    def __call__(self, run: Runner) -> Score:
        rows = [Row(row.line, row.text) for row in self.data.rows]
        others = [Row(row.line, row.pair or "") for row in self.data.rows]
        similarity = cosine(self._embed(run, rows), self._embed(run, others))
        gold = [float(row.label) for row in self.data.rows]
        return Score("Spearman", 100 * spearman(similarity.tolist(), gold))

    def _embed(self, run: Runner, rows: Sequence[Row]) -> np.ndarray:
        found: dict[int, np.ndarray] = {}
        for chosen, feed in batches(rows, self.encoder):
            mask = self.mask.kept(feed[self.mask.name]) if self.mask else None
            found.update(zip(chosen, embedding(run(feed), mask), strict=True))
        return np.stack([found[i] for i in range(len(rows))])


@dataclass(frozen=True)
class Tagging:
    """Accuracy over words (a word's first token speaks for it), with the entities' micro F1 beside it."""

    data: Data
    encoder: Encoder
    names: Sequence[str]

    def __call__(self, run: Runner) -> Score:
        wanted, found = [], []
        for row in self.data.rows:
            feed, places = self.encoder.words([row.text])
            guesses = logits(run(feed), 3)[0].argmax(axis=-1)
            first = {word: place for place, word in reversed([*enumerate(places[0])]) if word is not None}
            # Words past the model's length are left out on both sides.
            wanted.append([self._name(row, tag) for tag in row.label][: len(first)])
            found.append([self.names[guesses[first[word]]] for word in sorted(first)])
        pairs = [(a, b) for row in zip(wanted, found, strict=True) for a, b in zip(*row, strict=False)]
        entities = f1([spans(tags) for tags in wanted], [spans(tags) for tags in found])
        return Score(
            "accuracy", 100 * sum(a == b for a, b in pairs) / len(pairs), details={"F1": 100 * entities}
        )

    def _name(self, row: Row, tag: str) -> str:
        if tag in self.names:
            return tag
        if tag.isdigit() and int(tag) < len(self.names):
            return self.names[int(tag)]
        raise _wrong_label(self.data.path, row.line, tag, self.names)


@dataclass(frozen=True)
class Perplexity:
    """exp of the mean negative log-likelihood of a token: of the next one for a causal model, of 15% masked
    ones for a masked model (Devlin et al., 2019, section 3.1, every chosen token masked)."""

    data: Data
    encoder: Encoder
    program: Program
    seed: int

    def __call__(self, run: Runner) -> Score:
        ids, mask = (_role(self.program, role) for role in ("token_ids", "attention_mask"))
        if ids is None or self.program.task not in {"masked-lm", "causal-lm"}:
            raise DataError(
                f"{self.data.path}: perplexity needs a language model, and this model's task is "
                f"{self.program.task}; name another with --task"
            )
        draw = np.random.default_rng(self.seed)
        total, count = 0.0, 0
        for _, feed in batches(self.data.rows, self.encoder):
            real = mask.kept(feed[mask.name]) if mask else np.ones(feed[ids.name].shape, bool)
            if self.program.task == "causal-lm":
                scores = log_softmax(logits(run(feed), 3))[:, :-1]
                goal, judged = feed[ids.name][:, 1:], real[:, 1:] & real[:, :-1]
            else:
                judged = real & (draw.random(real.shape) < 0.15)
                hidden = {**feed, ids.name: np.where(judged, self._mask_token(), feed[ids.name])}
                scores, goal = log_softmax(logits(run(hidden), 3)), feed[ids.name]
            total -= float(np.take_along_axis(scores, goal[..., None], -1)[..., 0][judged].sum())
            count += int(judged.sum())
        if not count:
            raise DataError(f"{self.data.path} is too short to judge a perplexity on")
        return Score("perplexity", math.exp(total / count), higher_is_better=False)

    def _mask_token(self) -> int:
        for token in ("[MASK]", "<mask>"):
            if (number := self.encoder.token_id(token)) is not None:
                return number
        raise DataError(f"{self.data.path}: the model's tokenizer has no mask token to judge it by")


@dataclass(frozen=True)
class Fidelity:
    """Agreement with the original on the same inputs: cosine of embeddings or of hidden states at real
    tokens; for logits the agreement of the largest, with the KL divergence beside it.

    rows: the texts of the feeds. own: the same texts for a program with a tokenizer of its own; its tokens
    are others, so hidden states are compared by their mean.
    """

    feeds: Sequence[Feed]
    reference: Runner
    mask: InputSpec | None
    rows: Sequence[Row] = ()
    own: Sequence[Feed] = ()

    def __call__(self, run: Runner) -> Score:
        cosines: list[np.ndarray] = []
        agreements: list[np.ndarray] = []
        divergences: list[np.ndarray] = []
        for feed, own in zip(self.feeds, self.own or self.feeds, strict=True):
            # Side by side, batch by batch: the original's outputs are never all held at once.
            old, new = self.reference(feed), run(own)
            real = self.mask.kept(feed[self.mask.name]) if self.mask else None
            if self.own:
                others = self.mask.kept(own[self.mask.name]) if self.mask else None
                old, new = _means(old, real), _means(new, others)
                _same_width(old, new)
            for name, was in old.items():
                if not np.issubdtype(was.dtype, np.floating) or was.ndim < 2:
                    continue
                a, b = _rows(was, real), _rows(new[name], real)
                if "logits" in name:
                    agreements.append(a.argmax(axis=-1) == b.argmax(axis=-1))
                    divergences.append(divergence(a, b))
                else:
                    cosines.append(cosine(a, b))
        if agreements:
            kl = float(np.concatenate(divergences).mean())
            details = {"KL": kl, "worst KL": float(np.concatenate(divergences).max())}
            return Score("agreement", 100 * float(np.concatenate(agreements).mean()), details=details)
        if not cosines:
            raise DataError("the model has no floating-point output to compare")
        every = np.concatenate(cosines)
        return Score("cosine", 100 * float(every.mean()), details={"worst": 100 * float(every.min())})


def logits(outputs: Outputs, rank: int) -> np.ndarray:
    """The output that holds one score a class: named so, or the only one of that rank."""
    found = [array for name, array in outputs.items() if "logits" in name and array.ndim == rank]
    found = found or [array for array in outputs.values() if array.ndim == rank]
    if not found:
        shapes = ", ".join(f"{name} {array.shape}" for name, array in outputs.items())
        raise DataError(f"the task needs an output of rank {rank} with one score a class; there is {shapes}")
    return found[0]


def embedding(outputs: Outputs, mask: np.ndarray | None) -> np.ndarray:
    """(batch, size): the model's own sentence embedding, or the mean of its hidden states at real tokens."""
    for name in ("sentence_embedding", *outputs):
        if name in outputs and outputs[name].ndim == 2:
            return outputs[name]
    hidden = next((array for array in outputs.values() if array.ndim == 3), None)
    if hidden is None:
        raise DataError("sentence similarity needs an embedding, and the model gives none")
    weight = np.ones(hidden.shape[:2]) if mask is None else mask.astype(np.float64)
    return (hidden * weight[..., None]).sum(axis=1) / np.maximum(weight.sum(axis=1), 1)[:, None]


def _means(outputs: Outputs, real: np.ndarray | None) -> dict[str, np.ndarray]:
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


def _rows(array: np.ndarray, real: np.ndarray | None) -> np.ndarray:
    if real is not None and array.ndim == 3 and array.shape[:2] == real.shape:
        return array[real]
    return array.reshape(-1, array.shape[-1])


def _role(program: Program, role: str) -> InputSpec | None:
    return next((spec for spec in program.inputs if spec.role == role), None)


def _label_names(program: Program) -> list[str]:
    return [str(name) for name in program.info.get("labels", ())]


def _label_ids(program: Program, data: Data) -> list[int]:
    names = _label_names(program)
    folded = {name.lower(): i for i, name in enumerate(names)}
    ids = []
    for row in data.rows:
        label: Any = row.label
        text = str(int(label) if isinstance(label, bool | float) and label == int(label) else label).strip()
        if text.lower() in folded:
            ids.append(folded[text.lower()])
        elif text.isdigit() and (not names or int(text) < len(names)):
            ids.append(int(text))
        else:
            raise _wrong_label(data.path, row.line, text, names)
    return ids


def _wrong_label(path: str, line: int, label: str, names: Sequence[str]) -> DataError:
    known = f"the model's are {', '.join(names)}" if names else "write labels as numbers from 0"
    return DataError(
        f"{path}, line {line}: {label!r} is no label of the model; {known}, or 0 to {len(names) - 1}"
    )

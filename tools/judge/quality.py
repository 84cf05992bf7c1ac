"""How good a program is: the user's metric on the user's rows, or fidelity to the original without labels."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...backends.running.prompts import Role, prompt_of
from ...ir.agreement import cosine
from ...ir.errors import DataError
from ...ir.program import Program
from ...ir.spec import InputSpec
from .columns import is_number
from .data import GROUPED, Data, Row
from .encoded import BATCH, Encoder, batches
from .fidelity import Fidelity
from .metrics import f1, log_softmax, rank_correlation, spans, varies
from .ranking import Ranking
from .records import place
from .scores import Judge, Runner, Score, class_scores, embedding, logits

__all__ = ["BATCH", "Encoder", "Fidelity", "Judge", "Runner", "Score", "batches", "judge", "labels_tell"]

_WORST = 700.0  # nats a token; exp of more is no float


def judge(program: Program, data: Data, encoder: Encoder, reference: Runner, seed: int = 0) -> Judge:
    """The judge for the data's task.

    Raises:
        DataError: the rows don't fit the model: a wrong label, or a task that its outputs can't serve.
    """
    if data.task == "classification":
        several = len(_label_names(program)) > 1
        return (
            Accuracy(data, encoder, _label_ids(_label_names(program), data))
            if several
            else Labelled(data, encoder)
        )
    if data.task == "similarity":
        return Similarity(data, encoder, _role(program, "attention_mask"))
    if data.task == "token-classification":
        return Tagging(data, encoder, _label_names(program))
    if data.task in GROUPED:
        pairwise = program.task == "sequence-classification"
        if pairwise and data.task == "retrieval":
            raise DataError(
                f"{data.path}: the model reads a query and a document together, and retrieval compares "
                "vectors; judge it with --task rerank"
            )
        if not pairwise and any("logits" in name for name in program.outputs):
            raise DataError(
                f"{data.path}: the model's task is {program.task}, and its logits are no vectors to compare: "
                f"{data.task} needs a sentence encoder, vectors of tokens, or for rerank a score a pair"
            )
        roles: tuple[Role, Role] = ("query", "document")
        prompts = {role: prompt_of(program.info, role) for role in roles}
        return Ranking(data, encoder, _role(program, "attention_mask"), pairwise, prompts)
    if data.task == "perplexity":
        return Perplexity(data, encoder, program, seed)
    feeds = [feed for _, feed in batches(data.rows, encoder)]
    mask = _role(program, "attention_mask")
    return Fidelity(
        feeds, reference, *((mask.name, data.rows, (), mask.hidden) if mask else (None, data.rows))
    )


@dataclass(frozen=True)
class Accuracy:
    """Share of rows whose largest logit is the label's."""

    data: Data
    encoder: Encoder
    labels: Sequence[int]

    def __call__(self, run: Runner) -> Score:
        right = 0
        for chosen, feed in batches(self.data.rows, self.encoder):
            right += int((_guesses(logits(run(feed), 2)) == [self.labels[i] for i in chosen]).sum())
        value = 100 * right / len(self.data.rows)
        usual = 100 * max(Counter(self.labels).values()) / len(self.labels)
        said = f"{value:.1f}% is no more than one answer for all rows gets ({usual:.1f}%)"
        return Score("accuracy", value, said=said if value <= usual else "")


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
        nothing = "" if varies(similarity) else "gives every pair the same similarity, or none"
        return Score("Spearman", 100 * rank_correlation(_numbers(self.data), similarity), nothing=nothing)

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
            guesses = _guesses(logits(run(feed), 3)[0])
            first = {word: place for place, word in reversed([*enumerate(places[0])]) if word is not None}
            # Words past the model's length are left out on both sides.
            wanted.append([self._name(row, tag) for tag in row.label][: len(first)])
            found.append([self._guess(guesses[first[word]]) for word in sorted(first)])
        pairs = [(a, b) for row in zip(wanted, found, strict=True) for a, b in zip(*row, strict=False)]
        if not pairs:
            raise DataError(f"{self.data.path} has no word that the model reads: nothing to judge on")
        entities = f1([spans(tags) for tags in wanted], [spans(tags) for tags in found])
        return Score(
            "accuracy", 100 * sum(a == b for a, b in pairs) / len(pairs), details={"F1": 100 * entities}
        )

    def _guess(self, guess: int) -> str:
        return self.names[guess] if guess >= 0 else ""

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
        mean = total / count
        value = math.exp(mean) if mean < _WORST else math.inf  # NaN too
        nothing = "" if math.isfinite(value) else "gives some token no probability"
        return Score("perplexity", value, higher_is_better=False, nothing=nothing)

    def _mask_token(self) -> int:
        for token in ("[MASK]", "<mask>"):
            if (number := self.encoder.token_id(token)) is not None:
                return number
        raise DataError(f"{self.data.path}: the model's tokenizer has no mask token to judge it by")


@dataclass(frozen=True)
class Labelled:
    """Accuracy where the model gives a score a class; where it gives one alone, as rerankers and regressions
    do, the rank correlation of that score with the labels, which are numbers then."""

    data: Data
    encoder: Encoder

    def __call__(self, run: Runner) -> Score:
        found = np.empty(len(self.data.rows))
        for chosen, feed in batches(self.data.rows, self.encoder):
            scores = class_scores(run(feed))
            if scores.shape[-1] > 1:
                return Accuracy(self.data, self.encoder, _label_ids((), self.data))(run)
            found[chosen] = scores[:, 0]
        nothing = "" if varies(found) else "gives every input the same score, or none"
        return Score("rank correlation", 100 * rank_correlation(_numbers(self.data), found), nothing=nothing)


def labels_tell(data: Data) -> None:
    """Refuse rows on which every model would do equally well.

    Raises:
        DataError: all labels are alike.
    """
    if data.task not in {"classification", "similarity", "token-classification"}:
        return
    labels = {
        tag for row in data.rows for tag in (row.label if isinstance(row.label, tuple) else [row.label])
    }
    if len({str(label) for label in labels}) < 2:
        only = f"every label is {next(iter(labels))!r}" if len(data.rows) > 1 else "it has one row"
        raise DataError(f"{data.path}: {only}, so there is nothing to judge on: give rows of several labels")


def _guesses(scores: np.ndarray) -> np.ndarray:
    """The class with the largest score, row by row; -1, which is none, for rows with NaN."""
    return np.where(np.isnan(scores).any(axis=-1), -1, scores.argmax(axis=-1))


def _numbers(data: Data) -> np.ndarray:
    """Labels as numbers.

    Raises:
        DataError: one is none.
    """
    for row in data.rows:
        if not is_number(row.label) and not isinstance(row.label, bool):
            raise DataError(
                f"{place(data.path, row.line)}: {row.label!r} is no number, and the model gives one score a "
                "text: write labels as numbers"
            )
    return np.array([float(row.label) for row in data.rows])


def _role(program: Program, role: str) -> InputSpec | None:
    return next((spec for spec in program.inputs if spec.role == role), None)


def _label_names(program: Program) -> list[str]:
    return [str(name) for name in program.info.get("labels", ())]


def _label_ids(names: Sequence[str], data: Data) -> list[int]:
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
    known = f"the model's are {', '.join(names)}, or 0 to {len(names) - 1}"
    known = known if names else "write labels as whole numbers from 0"
    return DataError(f"{place(path, line)}: {label!r} is no label of the model; {known}")

"""A tokenizer's model of fewer tokens, trained on texts by the package tokenizers.

Normalizer, pre-tokenizer and everything behind the model are the old tokenizer's. The package breaks ties by
the order of its hash tables, which is another in every process, unless it is given the single characters: so
they are found first and handed over in order.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from itertools import pairwise, takewhile
from typing import Any

from ....ir.errors import PassError
from .tokenizer import Tokens

OFTEN = 2  # times that two pieces must stand together to become one: a word that was seen once is no piece
STEP = 1e-4  # between the scores of characters that Unigram has only so that every text can be split
DIGITS = 6  # of scores: what lies behind them differs with the order that a sum was taken in


def trained(
    tokens: Tokens, texts: Sequence[str], size: int, reserved: Iterable[str], more: Iterable[str] = ()
) -> dict[str, Any]:
    """The model (of a tokenizer.json) with the reserved tokens first, then characters, then pieces.

    Args:
        size: of tokens, at most.
        more: characters to have beside those of the texts.

    Raises:
        PassError: there are no pieces to train, or the size has no room for the characters.
    """
    marks = {
        key: str(tokens.model[key])
        for key in ("continuing_subword_prefix", "end_of_word_suffix")
        if tokens.model.get(key)
    }
    if tokens.kind == "WordLevel" or (tokens.kind == "BPE" and "continuing_subword_prefix" in marks):
        raise PassError(
            f"the tokenizer's model is {tokens.kind}{' that marks how words go on' if marks else ''}, and "
            "WordPiece, Unigram and other BPE can be trained: use prune-vocabulary"
        )
    first = list(dict.fromkeys(reserved))
    seen = set(_model(tokens, texts, "BPE", 0, marks, [])["vocab"])
    cores = {tokens.core(name) for name in seen} | set(more)
    known = {form for core in cores for form in _forms(core, **marks)} & tokens.vocabulary.keys()
    characters = sorted((seen | known) - set(first))
    least = len(first) + len(characters)
    if least > size:
        raise PassError(
            f"size is {size}, and {len(first)} tokens that stay and {len(characters)} single characters are "
            f"{least}: give that or more"
        )
    if tokens.kind == "Unigram":
        return _unigram(tokens, texts, size, first, characters)
    found = _model(tokens, texts, tokens.kind, size, marks, [*first, *characters])
    return {**tokens.model, **{key: found[key] for key in ("vocab", "merges") if key in found}}


def _forms(core: str, continuing_subword_prefix: str = "", end_of_word_suffix: str = "") -> set[str]:
    """A character wherever it may stand in a word."""
    return {core, continuing_subword_prefix + core, core + end_of_word_suffix}


def _unigram(
    tokens: Tokens, texts: Sequence[str], size: int, first: list[str], characters: list[str]
) -> dict[str, Any]:
    from tokenizers import trainers

    number = tokens.model.get("unk_id")
    unknown = None if number is None else str(tokens.model["vocab"][number][0])
    trainer = trainers.UnigramTrainer(
        vocab_size=size, special_tokens=first, unk_token=unknown, initial_alphabet=characters,
        show_progress=False,
    )  # fmt: skip
    found = _run(tokens, texts, {"type": "Unigram", "unk_id": None, "vocab": []}, trainer)
    scores = {piece: round(score, DIGITS) for piece, score in found["vocab"]}
    scores |= _in_order({piece: scores[piece] for piece in characters})
    ordered = [*first, *sorted(scores.keys() - set(first), key=lambda piece: (-scores[piece], piece))]
    place = None if unknown is None else ordered.index(unknown)
    return {**tokens.model, "vocab": [[piece, scores[piece]] for piece in ordered], "unk_id": place}


def _in_order(scores: dict[str, float]) -> dict[str, float]:
    """Scores of characters, the lowest by their order: those that are no piece get a step each, as they come
    out of a hash table."""
    lowest = sorted(scores, key=scores.__getitem__)
    steps = (scores[b] - scores[a] < 1.5 * STEP for a, b in pairwise(lowest))
    run = lowest[: 1 + sum(takewhile(bool, steps))]
    return {**scores, **dict(zip(sorted(run), (scores[piece] for piece in run), strict=True))}


def _model(
    tokens: Tokens, texts: Sequence[str], kind: str, size: int, marks: dict[str, str], first: list[str]
) -> dict[str, Any]:
    from tokenizers import pre_tokenizers, trainers

    options: dict[str, Any] = {
        "vocab_size": size, "special_tokens": first, "min_frequency": OFTEN, "show_progress": False, **marks,
    }  # fmt: skip
    if "ByteLevel" in json.dumps(tokens.content.get("pre_tokenizer")):
        options["initial_alphabet"] = pre_tokenizers.ByteLevel.alphabet()
    trainer = (trainers.WordPieceTrainer if kind == "WordPiece" else trainers.BpeTrainer)(**options)
    empty = {"type": kind, "vocab": {}, **({"merges": []} if kind == "BPE" else tokens.model | {"vocab": {}})}
    return _run(tokens, texts, empty, trainer)


def _run(tokens: Tokens, texts: Sequence[str], empty: dict[str, Any], trainer: Any) -> dict[str, Any]:
    from tokenizers import Tokenizer, pre_tokenizers

    parts = {key: tokens.content.get(key) for key in ("version", "normalizer", "pre_tokenizer")}
    tokenizer = Tokenizer.from_str(json.dumps({**parts, "added_tokens": [], "model": empty}))
    if tokenizer.pre_tokenizer is None:  # SentencePiece's BPE, whose pieces stay within words all the same
        tokenizer.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    tokenizer.train_from_iterator(texts, trainer)
    model: dict[str, Any] = json.loads(tokenizer.to_str())["model"]
    return model

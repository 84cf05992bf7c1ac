"""A sentence encoder of one embedding table over letters: a text's vector is the sum of its letters'."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
from graphwright.backends.bundles.bundle import Variant, write
from graphwright.ir.spec import InputSpec
from handmade import parsed

LETTERS = "abcdefghijklmnopqrstuvwxyz"
_INPUTS = "int64[batch,length] input_ids, int64[batch,length] attention_mask"
_BODY = """words = Gather (table, input_ids)
mask = Cast <to=1> (attention_mask)
column = Unsqueeze (mask, last)
kept = Mul (words, column)
sentence_embedding = ReduceSum <keepdims=0> (kept, along)"""


def table(width: int = 16, seed: int = 0) -> np.ndarray:
    """(28, width) float32: whole numbers, so that sums of letters are exact; the first row is padding's."""
    return np.random.default_rng(seed).integers(-9, 10, (28, width)).astype(np.float32)


def vectors(texts: list[str], weights: np.ndarray) -> np.ndarray:
    """What the encoder gives, in float64."""
    ids = [[2 + LETTERS.index(letter) for letter in text.split()] for text in texts]
    return np.stack([weights.astype(np.float64)[row].sum(0) for row in ids])


def unit(rows: np.ndarray) -> np.ndarray:
    """Each row by its length."""
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def program(weights: np.ndarray, body: str = _BODY, output: str = "", task: str = "embedding", **info):
    words = {word: number for number, word in enumerate(["[PAD]", "[UNK]", *LETTERS])}
    tokenizer = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
        "pre_tokenizer": {"type": "Whitespace"}, "post_processor": None, "decoder": None,
        "model": {"type": "WordLevel", "vocab": words, "unk_token": "[UNK]"},
    }  # fmt: skip
    output = output or f"float[batch,{weights.shape[1]}] sentence_embedding"
    constants = {"table": weights, "last": np.array([2]), "along": np.array([1])}
    found = parsed(body, _INPUTS, output, constants)
    ids, mask = found.inputs
    return replace(
        found,
        inputs=(
            InputSpec("input_ids", ids.dtype, ids.shape, "token_ids", len(words)),
            InputSpec("attention_mask", mask.dtype, mask.shape, "attention_mask"),
        ),
        task=task,
        symbols={"batch": (1, 64), "length": (1, 32)},
        tokenizer={"tokenizer.json": json.dumps(tokenizer).encode()},
        info={"max_length": 32, "pad_token_id": 0, **info},
    )


def bundle(folder: Path, weights: np.ndarray, **changes) -> Path:
    """The encoder's bundle."""
    return write(folder, [Variant("default", program(weights, **changes))], threads=1)

"""How long a person's texts are in tokens, and how much padding batches of them hold."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from ...ir.inputs.text import TextEncoder
from ...ir.program import Program
from .data import Data

MOST = 2000  # texts that are looked at, evenly over the file
BATCHES = (8, 32)  # rows to a batch
APART = ("similarity", "retrieval")  # tasks whose texts of a pair are calls of their own


def lengths(data: Data, program: Program) -> dict[str, Any]:
    """What a report tells of texts.

    Returns:
        source: the file. rows: how many were counted. lengths: tokens -> texts, as the model takes them
        (special tokens counted, too long ones cut). padding: rows to a batch -> the share of it that is
        padding, where texts are put into whole batches as they come.
    """
    encoder = TextEncoder(program.tokenizer["tokenizer.json"], program.inputs, program.info, program.symbols)
    apart = data.task in APART
    words = lambda text: text if isinstance(text, str) else " ".join(text)
    texts, pairs = [words(row.text) for row in data.rows], [row.pair or "" for row in data.rows]
    if apart:
        texts += [pair for pair in pairs if pair]
    step = -(-len(texts) // MOST)
    texts, pairs = texts[::step], pairs[::step]
    found = encoder.tokenize(texts, pairs if not apart and any(pairs) else None)
    tokens = np.array([len(each) for each in found])
    counts = Counter(tokens.tolist())
    return {
        "source": data.path,
        "rows": len(tokens),
        "lengths": {str(length): counts[length] for length in sorted(counts)},
        "padding": {str(rows): _padding(tokens, rows) for rows in BATCHES if rows <= len(tokens)},
    }


def _padding(tokens: np.ndarray, rows: int) -> float:
    batches = tokens[: len(tokens) // rows * rows].reshape(-1, rows)
    return 1 - float(batches.sum()) / float((batches.max(axis=1) * rows).sum())

"""What a token of another vocabulary consists of in a tokenizer's own."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from .tokenizer import Tokens


def splits(tokens: Tokens, names: Sequence[str]) -> list[list[int]]:
    """For each name the ids of the pieces that the tokenizer would split it into where it stands in a word.

    A token that the tokenizer has is itself. One piece at least: the unknown one.
    """
    prefix = str(tokens.model.get("continuing_subword_prefix") or "")
    suffix = str(tokens.model.get("end_of_word_suffix") or "")
    model = {**tokens.model, "type": tokens.kind, **({"dropout": None} if tokens.kind == "BPE" else {})}
    whole = _reads(model)
    # Inside of a word: pieces that go on are spelled as if they began one, and a word's end isn't marked.
    inner = whole
    if prefix:
        inside = {
            name.removeprefix(prefix): i for name, i in model["vocab"].items() if name.startswith(prefix)
        }
        unknown = tokens.model["unk_token"]
        inner = _reads(
            {**model, "vocab": inside | {unknown: tokens.unknown}, "continuing_subword_prefix": ""}
        )
    elif suffix:
        inner = _reads({**model, "end_of_word_suffix": None})

    def split(name: str) -> list[int]:
        if name in tokens.ids:
            return [tokens.ids[name]]
        if prefix and name.startswith(prefix):
            found = inner.tokenize(name.removeprefix(prefix))
        elif suffix and name.endswith(suffix):
            found = whole.tokenize(name.removesuffix(suffix))
        else:
            found = (inner if suffix else whole).tokenize(name)
        return [token.id for token in found] or [tokens.unknown]

    return [split(name) for name in names]


def _reads(model: dict[str, Any]) -> Any:
    from tokenizers import Tokenizer

    return Tokenizer.from_str(json.dumps({"version": "1.0", "added_tokens": [], "model": model})).model

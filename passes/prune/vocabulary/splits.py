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
    suffix = str(tokens.model.get("end_of_word_suffix") or "")
    model = {**tokens.model, "type": tokens.kind, **({"dropout": None} if tokens.kind == "BPE" else {})}
    # WordPiece finds what goes on, too: "##" is spelled as part of those pieces' names.
    whole = _reads(model)
    inner = _reads({**model, "end_of_word_suffix": None}) if suffix else whole  # a word's end isn't marked

    def split(name: str) -> list[int]:
        if name in tokens.ids:
            return [tokens.ids[name]]
        ends = bool(suffix) and name.endswith(suffix)
        found = whole.tokenize(name.removesuffix(suffix)) if ends else inner.tokenize(name)
        return [token.id for token in found] or [tokens.unknown]

    return [split(name) for name in names]


def _reads(model: dict[str, Any]) -> Any:
    from tokenizers import Tokenizer

    return Tokenizer.from_str(json.dumps({"version": "1.0", "added_tokens": [], "model": model})).model

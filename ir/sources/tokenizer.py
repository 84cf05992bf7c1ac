"""The tokenizer's files, and what they say of length and padding."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import CaptureError
from ..quiet import quiet

FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
)
_SLOW = ("vocab.txt", "vocab.json", "spiece.model", "sentencepiece.bpe.model", "tokenizer.model")
_ABSURD = 10**6  # transformers writes 10**30 for "no limit"


def tokenizer_files(directory: Path) -> dict[str, bytes]:
    """The files a bundle carries; tokenizer.json is made from the vocabulary where that is all there is."""
    files = {name: (directory / name).read_bytes() for name in FILES if (directory / name).is_file()}
    if "tokenizer.json" not in files and any((directory / name).is_file() for name in _SLOW):
        files = {**_converted(directory), **files}
    return files


def _converted(directory: Path) -> dict[str, bytes]:
    """transformers' own conversion of an old tokenizer; empty when it has none for it."""
    with quiet(), tempfile.TemporaryDirectory() as saved:
        try:
            from transformers import AutoTokenizer

            AutoTokenizer.from_pretrained(directory, trust_remote_code=False).save_pretrained(saved)
        except (OSError, ValueError, KeyError, ImportError, TypeError):
            return {}  # a model without a usable tokenizer still takes ids
        return {name: (Path(saved) / name).read_bytes() for name in FILES if (Path(saved) / name).is_file()}


def tokenizer_facts(files: Mapping[str, bytes]) -> dict[str, Any]:
    """max_length, where tokenizer_config.json states a real one."""
    length = _object(files, "tokenizer_config.json").get("model_max_length")
    if isinstance(length, int | float) and 0 < length < _ABSURD:
        return {"max_length": int(length)}
    return {}


def pad_token_id(files: Mapping[str, bytes]) -> int | None:
    """The id of the padding token, from the tokenizer's own files."""
    if "tokenizer.json" not in files:
        return None
    stated = (
        _object(files, name).get("pad_token") for name in ("tokenizer_config.json", "special_tokens_map.json")
    )
    token = next(filter(None, stated), None)
    token = token.get("content") if isinstance(token, dict) else token
    if token is None:
        return None
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_str(files["tokenizer.json"].decode()).token_to_id(token)
    except Exception as error:  # tokenizers raises nothing more specific
        raise CaptureError(f"tokenizer.json cannot be read: {error}.") from error


def _object(files: Mapping[str, bytes], name: str) -> dict[str, Any]:
    try:
        value = json.loads(files.get(name, b"{}"))
    except ValueError as error:
        raise CaptureError(f"{name} is not JSON: {error}.") from error
    if not isinstance(value, dict):
        raise CaptureError(f"{name} is not a JSON object.")
    return value

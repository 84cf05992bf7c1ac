"""The tokenizer's files, and what they say of length and padding."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ..errors import CaptureError, short
from ..host.quiet import quiet
from ..host.temporary import TemporaryFolder
from .tokenizer_names import FILES, SLOW

_ABSURD = 10**6  # transformers writes 10**30 for "no limit"


def tokenizer_files(directory: Path) -> dict[str, bytes]:
    """The files a bundle carries; tokenizer.json is made from the vocabulary where that is all there is."""
    for name in (*FILES, *SLOW):
        if (directory / name).exists() and not (directory / name).is_file():
            raise CaptureError(f"'{directory / name}' is not a regular file.")
    files = {name: (directory / name).read_bytes() for name in FILES if (directory / name).is_file()}
    if "tokenizer.json" not in files and any((directory / name).is_file() for name in SLOW):
        files = {**_converted(directory), **files}
    return files


def _converted(directory: Path) -> dict[str, bytes]:
    """transformers' own conversion of an old tokenizer; empty when it has none for it."""
    with quiet(), TemporaryFolder() as saved:
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
    if not isinstance(token, str):
        raise CaptureError(f"the tokenizer's files give pad_token as {short(token)}: a text is meant.")
    return _tokenizer(files).token_to_id(token)


def check_ids(files: Mapping[str, bytes], model: Any) -> None:
    """Looks for ids that a tokenizer gives and the model has no row for.

    Raises:
        CaptureError: there is one; named by its token.
    """
    if "tokenizer.json" not in files:
        return
    rows = table_rows(model)
    tokenizer = _tokenizer(files)
    beyond = {
        i: token for token, i in tokenizer.get_vocab(with_added_tokens=True).items() if i >= (rows or i + 1)
    }
    if beyond:
        first = min(beyond)
        raise CaptureError(
            f"tokenizer.json gives {beyond[first]!r} the id {first}, and the model's table has {rows} rows: "
            "it belongs to another model, or the table was never resized."
        )


def table_rows(model: Any) -> int | None:
    """Rows of the table that token ids look up; None where there is no such table."""
    try:
        table = model.get_input_embeddings()
    except (NotImplementedError, AttributeError):
        return None
    weight = getattr(table, "weight", table)
    return int(weight.shape[0]) if isinstance(table, nn.Embedding | Tensor) else None


def _tokenizer(files: Mapping[str, bytes]) -> Any:
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_str(files["tokenizer.json"].decode())
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

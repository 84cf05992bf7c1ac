"""What a sentence encoder wants in front of its texts. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

Role = Literal["query", "document"]
# As sentence-transformers' encode_query and encode_document look for them, the first that there is.
_NAMES: Mapping[str, tuple[str, ...]] = {"query": ("query",), "document": ("document", "passage", "corpus")}


def prompt_of(info: Mapping[str, Any], role: Role) -> str:
    """The prompt for a question or for a text that is to be found; empty where the model has none.

    Args:
        info: of a program or a manifest; "prompts" are by name, "prompt" is the model's default.
    """
    named = info.get("prompts")
    found = named if isinstance(named, Mapping) else {}
    for name in _NAMES[role]:
        if isinstance(found.get(name), str):
            return found[name]
    default = info.get("prompt")
    return default if isinstance(default, str) else ""

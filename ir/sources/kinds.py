"""Which of transformers' models a directory is, also where its config.json doesn't say so."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..errors import CaptureError, did_you_mean
from .config import architecture


def model_type(
    directory: Path, config: Mapping[str, Any], tensors: Iterable[str], wished: str | None = None
) -> str:
    """The key of transformers' configurations: as stated, as the recorded class has it (checkpoints of 2019
    name their class alone), or as the tensors are called ("bert.encoder...").

    Args:
        tensors: the names of the checkpoint's. wished: what the user says it is.

    Raises:
        CaptureError: the type isn't known, brings its own code, or nothing tells it.
    """
    import transformers
    from transformers import CONFIG_MAPPING

    if wished is not None and wished not in CONFIG_MAPPING:
        raise CaptureError(
            f"transformers has no model type {wished!r}{did_you_mean(wished, CONFIG_MAPPING.keys())}"
        )
    stated = config.get("model_type")
    if stated is not None and wished not in (None, stated):
        raise CaptureError(f"config.json says that '{directory}' is a {stated}, not a {wished}.")
    kind = wished or stated
    if kind is not None and not (isinstance(kind, str) and kind in CONFIG_MAPPING):
        if "auto_map" in config:
            raise CaptureError(
                f"'{directory}' brings its own code (auto_map in config.json): never run here."
            )
        raise CaptureError(f"config.json names model_type {kind!r}, which transformers does not know.")
    if kind is not None:
        return kind
    recorded = getattr(getattr(transformers, architecture(config), None), "config_class", None)
    if getattr(recorded, "model_type", None) in CONFIG_MAPPING:
        return recorded.model_type  # type: ignore[union-attr]
    prefixes = {name.partition(".")[0] for name in tensors if "." in name} & set(CONFIG_MAPPING.keys())
    if len(prefixes) == 1:
        return prefixes.pop()
    raise CaptureError(
        f"config.json of '{directory}' names no model_type, and neither its architectures nor its tensors "
        "tell it: say what it is (--model-type bert)."
    )

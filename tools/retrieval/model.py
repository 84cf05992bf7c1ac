"""The bundle that an index is of: which one it is, and the vectors that it gives texts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ...backends.bundles.manifest import REPORT, Manifest
from ...backends.running.runner import Bundle, load
from ...ir.errors import BundleError, InputError


def opened(bundle: str | Path | Bundle, threads: int | None = None) -> Bundle:
    """A bundle that gives one vector a text.

    Raises:
        BundleError: no bundle, or one whose first output is something else.
    """
    found = bundle if isinstance(bundle, Bundle) else load(bundle, threads)
    if found.manifest.task != "embedding":
        raise BundleError(
            f"{found.directory} is no sentence encoder: its task is {found.manifest.task}, and an index "
            "holds one vector a text"
        )
    return found


def digest(manifest: Manifest) -> str:
    """What makes the model the model: its graphs, weights and tokenizer, and where it cuts texts off."""
    files = {name: entry["sha256"] for name, entry in manifest.files.items() if name != REPORT}
    content = json.dumps([files, manifest.info.get("max_length")], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def embed(bundle: Bundle, texts: Sequence[str]) -> np.ndarray:
    """(texts, width) float32.

    Raises:
        InputError: the bundle gives tokens vectors, and none to a text.
    """
    shape = bundle(texts[:1]).shape[1:]
    if len(shape) != 1:
        raise InputError(
            f"{bundle.directory} gives a text {bundle.output_names[0]} of shape {list(shape)}, and an index "
            "holds one vector a text: build the bundle of a model that pools its tokens"
        )
    return bundle(texts).astype(np.float32, copy=False)

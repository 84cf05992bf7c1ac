"""What an index is of: a bundle, or two towers; which model it is, and the vectors that it gives texts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from ...backends.bundles.manifest import REPORT
from ...backends.running.prompts import Role, prompt_of
from ...backends.running.runner import Bundle, load
from ...ir.errors import BundleError, InputError


class Model(Protocol):
    """Gives texts vectors. directory: where it is. digest: which model it is."""

    @property
    def directory(self) -> Path: ...
    @property
    def digest(self) -> str: ...

    def embed(self, texts: Sequence[str], role: Role) -> np.ndarray:
        """(texts, width) float32. Raises InputError where that isn't what the model gives."""


@dataclass(frozen=True)
class Encoder:
    """A bundle that gives one vector a text, with the model's own prompt in front of it."""

    bundle: Bundle

    def __post_init__(self) -> None:
        task = self.bundle.manifest.task
        if task != "embedding":
            raise BundleError(
                f"{self.directory} is no sentence encoder: its task is {task}, and an index holds one vector "
                "a text"
            )

    @property
    def directory(self) -> Path:
        return self.bundle.directory

    @property
    def digest(self) -> str:
        """Of what decides vectors: graphs, weights and tokenizer, where texts are cut off, and prompts."""
        manifest = self.bundle.manifest
        files = {name: entry["sha256"] for name, entry in manifest.files.items() if name != REPORT}
        prompts = [prompt_of(manifest.info, role) for role in ("query", "document")]
        content = json.dumps([files, manifest.info.get("max_length"), prompts], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()

    def embed(self, texts: Sequence[str], role: Role) -> np.ndarray:
        prompt = prompt_of(self.bundle.manifest.info, role)
        asked = [prompt + text for text in texts]
        shape = self.bundle(asked[:1]).shape[1:]
        if len(shape) != 1:
            raise InputError(
                f"{self.directory} gives a text {self.bundle.output_names[0]} of shape {list(shape)}, and an "
                "index holds one vector a text: build the bundle of a model that pools its tokens"
            )
        return self.bundle(asked).astype(np.float32, copy=False)


def encoder(bundle: str | Path | Bundle, threads: int | None = None) -> Encoder:
    """A bundle of a sentence encoder. Raises BundleError for anything else."""
    return Encoder(bundle if isinstance(bundle, Bundle) else load(bundle, threads))

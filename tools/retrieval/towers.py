"""Two towers: a dual encoder whose questions and texts go through models of their own, as one directory of
two bundles (Karpukhin et al., 2020, arXiv 2004.04906)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...backends.bundles.folder import appearing
from ...backends.bundles.manifest import sealed, unsealed
from ...backends.running.prompts import Role
from ...backends.running.runner import Bundle
from ...backends.typed import table, text
from ...ir.errors import BundleError, short
from ...ir.host.files import FAULTS, MIB, path_of, read_regular, why
from .model import Encoder, Model, encoder

NAME = "towers.json"
FORMAT = 1
ROLES: tuple[Role, Role] = ("query", "document")


class Towers:
    """Two sentence encoders of one space, `query` and `document`.

    Args:
        directory: that `join` or `optimize towers` wrote.
        threads: of each tower.

    Raises:
        BundleError: no such directory, one that was tampered with, or of a newer format.
    """

    def __init__(self, directory: str | Path, threads: int | None = None) -> None:
        self.directory = _path(directory)
        known = _read(self.directory)
        self.query, self.document = (encoder(self.directory / role, threads) for role in ROLES)
        for role in ROLES:
            if self._tower(role).digest != known[role]:
                raise BundleError(
                    f"{self.directory / role} is not the tower that {NAME} was written for: join them again"
                )

    @classmethod
    def join(cls, query: str | Path, document: str | Path, out: str | Path, *, force: bool = False) -> Towers:
        """Copy two bundles into a directory, which appears under its name when it is complete.

        Raises:
            BundleError: one is no sentence encoder, their vectors differ in width, or `out` exists.
        """
        towers = [encoder(query), encoder(document)]
        widths = [tower.embed(["a"], role).shape[1] for tower, role in zip(towers, ROLES, strict=True)]
        if widths[0] != widths[1]:
            raise BundleError(
                f"the vectors of {query} have {widths[0]} dimensions and those of {document} {widths[1]}: "
                "they are no towers of one model"
            )
        with appearing(_path(out), force, NAME) as folder:
            for tower, role in zip(towers, ROLES, strict=True):
                tower.bundle.save(folder / role)
            known = {role: tower.digest for tower, role in zip(towers, ROLES, strict=True)}
            (folder / NAME).write_bytes(sealed({"format": FORMAT, "towers": known}))
        return cls(out)

    @property
    def digest(self) -> str:
        """Which model it is: both towers, in their roles."""
        return hashlib.sha256(f"{self.query.digest} {self.document.digest}".encode()).hexdigest()

    def embed(self, texts: Sequence[str], role: Role) -> np.ndarray:
        """(texts, width) float32, by the tower of the role. Raises InputError for what is no text."""
        return self._tower(role).embed(texts, role)

    def _tower(self, role: Role) -> Encoder:
        return self.query if role == "query" else self.document


def opened(model: str | Path | Bundle | Towers, threads: int | None = None) -> Model:
    """What an index can be made of, from wherever it is.

    Raises:
        BundleError: no bundle of a sentence encoder, and no towers.
    """
    if isinstance(model, Towers):
        return model
    if not isinstance(model, Bundle) and (_path(model) / NAME).exists():
        return Towers(model, threads)
    return encoder(model, threads)


def _read(folder: Path) -> dict[str, str]:
    path = folder / NAME
    try:
        found: Any = unsealed(path, read_regular(path, MIB))
        if found["format"] != FORMAT:
            raise ValueError(f"it is of format {short(found['format'])}, and this graphwright reads {FORMAT}")
        return {role: text(table(found["towers"])[role]) for role in ROLES}
    except FileNotFoundError as error:
        raise BundleError(f"{folder} has no {NAME}: towers are what `optimize towers` writes") from error
    except (OSError, *FAULTS) as error:
        raise BundleError(f"{path} can't be read ({why(error)}): join the towers again") from error


def _path(directory: Any) -> Path:
    try:
        return Path(path_of(directory))
    except (TypeError, ValueError):
        raise BundleError(f"a bundle is a directory, not {short(directory)}") from None

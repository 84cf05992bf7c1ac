"""What a package carries: files by their place in it, the same in the same order whenever it is made."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ...backends.bundles.manifest import MANIFEST, Manifest, read_manifest, sha256, verify_files
from ...ir.errors import ConfigError, short

Source = Path | bytes
"""A file's content, or where it lies."""

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,98}[A-Za-z0-9])?")


@dataclass(frozen=True)
class Content:
    """A bundle that was checked against its manifest.

    name: what the package is called. files: place -> where it lies, the manifest included. digest: sha256 of
    the manifest, and so of everything in it.
    """

    name: str
    folder: Path
    manifest: Manifest
    files: Mapping[str, Path]
    digest: str


def opened(bundle: str, name: str | None) -> Content:
    """A bundle's files.

    Args:
        bundle: a directory that `optimize` wrote.
        name: of the package; None takes the directory's.

    Raises:
        BundleError: no bundle, or one that was tampered with.
        ConfigError: a name that no package can have.
    """
    folder = Path(bundle)
    manifest = read_manifest(folder)
    verify_files(folder, manifest)
    called = folder.resolve().name if name is None else name
    if not _NAME.fullmatch(called):
        raise ConfigError(
            f"{short(called)} can't name a package: --name takes letters, digits, -, _ and . (1 to 100)"
        )
    files = {each: folder / each for each in sorted((*manifest.files, MANIFEST))}
    return Content(called, folder, manifest, files, sha256(folder / MANIFEST))


def streamed(source: Source) -> BinaryIO:
    """A file's content, open for reading."""
    return io.BytesIO(source) if isinstance(source, bytes) else source.open("rb")


def digest_of(source: Source) -> str:
    """The sha256 of a file's content, in hexadecimal digits."""
    return hashlib.sha256(source).hexdigest() if isinstance(source, bytes) else sha256(source)

"""What is shipped by others, under which licence, and the licence's text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

from ...ir.errors import ConfigError

_NAMES = ("LICENSE", "LICENCE", "COPYING", "NOTICE", "THIRDPARTYNOTICES")


@dataclass(frozen=True)
class Part:
    """Something that a package carries.

    kind: CycloneDX's type: "machine-learning-model", "library" or "application".
    licence: an SPDX expression, or the words of whoever made it; None where nobody says.
    files: place in the package -> sha256. texts: file name -> the licence's text.
    """

    name: str
    kind: str
    version: str | None = None
    licence: str | None = None
    purl: str | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    texts: Mapping[str, bytes] = field(default_factory=dict)


def distribution(name: str, files: Mapping[str, str]) -> Part:
    """A part that an installed Python package brought. Raises ConfigError where that isn't installed."""
    try:
        found = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        raise ConfigError(f"the package {name} is not installed: pip install {name}") from None
    told = found.metadata.json.get("license_expression") or found.metadata.json.get("license")
    texts = {
        Path(str(path)).name: Path(str(found.locate_file(path))).read_bytes()
        for path in found.files or ()
        if Path(str(path)).name.upper().startswith(_NAMES) and len(Path(str(path)).parts) <= 3
    }
    purl = f"pkg:pypi/{name.lower().replace('_', '-')}@{found.version}"
    licence = str(told).strip().splitlines()[0] if told else None
    return Part(name, "library", found.version, licence, purl, files, texts)


def texts_of(parts: list[Part]) -> dict[str, bytes]:
    """Every licence's text, by a place below the folder of licences."""
    return {f"{part.name}/{name}": text for part in parts for name, text in sorted(part.texts.items())}

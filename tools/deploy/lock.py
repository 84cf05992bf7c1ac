"""deploy.lock: what every build was made of, what was measured and decided, and its manifest and report.

JSON, written whole or not at all, after every build.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ...ir.errors import ConfigError, GraphwrightError
from ...ir.host.files import FAULTS, MIB, read_regular, why
from .facts import Facts

FORMAT = 1
MOST_BYTES = 256 * MIB
_PLAIN = ("settings", "inputs", "versions", "target", "bundle", "status", "problems")
MOST_TEXT = 32 * MIB  # of a manifest or a report


@dataclass(frozen=True)
class Decisions:
    """What no machine could find again: see `Replay`. tuning: TVM's tuned kernels, file name -> content."""

    ratios: Mapping[str, tuple[float, float, float]] = field(default_factory=dict)
    chosen: tuple[Any, ...] = ()
    tuning: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Entry:
    """One build.

    settings: as the file asks for them, whatever this machine is. inputs: name -> sha256. versions: of what
    decides bytes. target: as found or named. bundle: sha256 of manifest.json. status, problems: as the run
    ended, and a sentence for everything that kept it from 0. manifest, report: their bytes. variants: of a
    bundle of several targets, target -> its build, whose settings, inputs and versions are these.
    """

    settings: Mapping[str, Any]
    inputs: Mapping[str, str]
    versions: Mapping[str, str]
    target: Mapping[str, Any]
    bundle: str
    facts: Facts
    decisions: Decisions
    manifest: bytes = field(repr=False)
    report: bytes = field(repr=False)
    status: int = 0
    problems: tuple[str, ...] = ()
    variants: Mapping[str, Entry] = field(default_factory=dict)

    @property
    def record(self) -> dict[str, Any]:
        """The manifest, read."""
        return json.loads(self.manifest)

    def to_json(self) -> dict[str, Any]:
        packed = {name: _packed(getattr(self, name)) for name in ("manifest", "report")}
        told = {name: getattr(self, name) for name in _PLAIN}
        if self.variants:
            told["variants"] = {name: each.to_json() for name, each in self.variants.items()}
        return told | {"facts": self.facts.to_json(), "decisions": asdict(self.decisions)} | packed

    @staticmethod
    def from_json(record: Mapping[str, Any]) -> Entry:
        """Raises what Python does (files.FAULTS) for anything that `to_json` would not have written."""
        found = record["decisions"]
        ratios = {str(key): _three(each) for key, each in found["ratios"].items()}
        decisions = Decisions(ratios, tuple(found["chosen"]), _texts(found["tuning"]))
        return Entry(
            dict(record["settings"]),
            _texts(record["inputs"]),
            _texts(record["versions"]),
            dict(record["target"]),
            str(record["bundle"]),
            Facts.from_json(record["facts"]),
            decisions,
            _unpacked(record["manifest"]),
            _unpacked(record["report"]),
            int(record["status"]),
            tuple(map(str, record["problems"])),
            {str(name): Entry.from_json(each) for name, each in record.get("variants", {}).items()},
        )


def _three(values: Any) -> tuple[float, float, float]:
    median, low, high = map(float, values)
    return median, low, high


def _texts(values: Any) -> dict[str, str]:
    return {str(name): str(each) for name, each in values.items()}


def _packed(content: bytes) -> str:
    return base64.b64encode(zlib.compress(content, 9)).decode()


def _unpacked(text: str) -> bytes:
    found = zlib.decompressobj()
    content = found.decompress(base64.b64decode(text, validate=True), MOST_TEXT)
    if found.unconsumed_tail:
        raise ValueError("a text is longer than any that was written")
    return content


def read(path: Path) -> dict[str, Entry]:
    """The entries by build; none where there is no file.

    Raises:
        ConfigError: what is there is no such file, or a newer one.
    """
    try:
        record = json.loads(read_regular(path, MOST_BYTES))
        if record["format"] != FORMAT:
            raise ConfigError(f"{path} has another format than this graphwright's {FORMAT}: build without it")
        return {str(name): Entry.from_json(each) for name, each in record["builds"].items()}
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ConfigError(f"{path} can't be read: {why(error)}") from error
    except GraphwrightError:
        raise
    except (*FAULTS, zlib.error) as error:
        raise ConfigError(
            f"{path} is no lock of builds ({why(error)}): take it from where it was committed, or remove it"
        ) from error


def write(path: Path, entries: Mapping[str, Entry]) -> None:
    """Whole or not at all. Raises ConfigError: it can't be written."""
    told = {"format": FORMAT, "builds": {name: each.to_json() for name, each in sorted(entries.items())}}
    partial = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("w", encoding="utf-8", errors="surrogatepass") as file:
                json.dump(told, file, indent=1, sort_keys=True)
                file.write("\n")
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise ConfigError(f"{path} can't be written: {why(error)}") from error

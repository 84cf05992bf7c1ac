"""The system's shared libraries that programs are loaded with, and the Debian packages that they are of."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from ...backends.bundles.manifest import sha256
from ...ir.errors import ConfigError
from .licences import Part

_LINE = re.compile(r"(?:\S+ => )?(/\S+) \(0x[0-9a-f]+\)")


def libraries(programs: Iterable[Path]) -> dict[str, Path]:
    """Absolute path -> file, of what the dynamic loader opens for programs and libraries, itself included.

    Those that lie beside the programs are left out.

    Raises:
        ConfigError: this system has no ldd, or a library is missing.
    """
    found = {}
    for program in programs:
        for line in _said("ldd", str(program)).splitlines():
            if "not found" in line:
                raise ConfigError(f"{program.name} needs {line.split()[0]}, which this system lacks")
            path = _LINE.fullmatch(line.strip())
            if path and Path(path[1]).parent != program.parent:
                found[path[1]] = Path(path[1]).resolve()
    return dict(sorted(found.items()))


def packages(files: dict[str, Path]) -> list[Part]:
    """The packages that files came with, each with its copyright file.

    Args:
        files: place in a package -> file, as `libraries` gives them.

    Raises:
        ConfigError: no Debian package owns a file, so that nobody says what its licence is.
    """
    owned: dict[str, list[str]] = defaultdict(list)
    for place in files:
        owned[_owner(place, files[place])].append(place)
    return [
        _package(name, {place: files[place] for place in places}) for name, places in sorted(owned.items())
    ]


def _package(owner: str, files: dict[str, Path]) -> Part:
    name = owner.partition(":")[0]
    told = _said("dpkg-query", "-W", "-f", "${Version} ${Architecture}", owner)
    version, architecture = told.split()
    text = Path("/usr/share/doc", name, "copyright")
    if not text.is_file():
        raise ConfigError(f"the licence of {name} should stand in {text}, which is not there")
    return Part(
        name,
        "library",
        version,
        f"see licenses/{name}/copyright",
        f"pkg:deb/debian/{name}@{version}?arch={architecture}",
        {place: sha256(file) for place, file in files.items()},
        {"copyright": text.read_bytes()},
    )


def _owner(place: str, file: Path) -> str:
    """By the path that it is opened by, or the one that it has, which packages may know without /usr."""
    for path in (place, str(file), str(file).removeprefix("/usr"), f"/usr{place}"):
        done = subprocess.run(_line("dpkg-query", "-S", path), capture_output=True, text=True)
        if done.returncode == 0:
            return done.stdout.rpartition(f": {path}")[0].splitlines()[-1].split(",")[0]
    raise ConfigError(f"no Debian package owns {place}, so its licence isn't known: make images on Debian")


def _said(*line: str) -> str:
    done = subprocess.run(_line(*line), capture_output=True, text=True)
    if done.returncode:
        raise ConfigError(f"{line[0]} fails: {' '.join(done.stderr.split())[:300]}")
    return done.stdout


def _line(command: str, *arguments: str) -> list[str]:
    path = shutil.which(command)
    if path is None:
        raise ConfigError(f"images are made of this system's libraries, and it has no {command}: use Debian")
    return [path, *arguments]

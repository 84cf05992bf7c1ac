"""A bundle as a wheel, whose `load()` needs NumPy and what runs the bundle, and nothing of graphwright.

Beside the bundle it carries the part of graphwright that runs bundles. Format: the binary distribution format
of packaging.python.org (PEP 427), with SBOMs (PEP 770) and licences (PEP 639) in .dist-info.
"""

from __future__ import annotations

import base64
import hashlib
import keyword
import re
import sys
import zipfile
from collections.abc import Mapping
from importlib import metadata
from typing import IO

from ...backends.tvm.run.versions import PINS
from ...ir.errors import BundleError, ConfigError, short
from ...ir.host.files import MIB
from .closure import running
from .content import Content, Source, digest_of, streamed
from .licences import Part

_TAKEN = {"numpy", "onnxruntime", "tvm", "tvm_ffi", "tokenizers", "graphwright", *sys.stdlib_module_names}
_VERSION = re.compile(r"\d{1,9}(\.\d{1,9}){0,4}((a|b|rc)\d+)?(\.post\d+)?(\+[a-z0-9]+(\.[a-z0-9]+)*)?")
_MODULE = '''"""{name}: a model that graphwright packed, and what runs it."""

from pathlib import Path

BUNDLE = Path(__file__).parent / "bundle"


def load(threads=None, verify=True):
    """The bundle, ready to run: `load().run({{input: array}})`, or `load()(["a text"])` with tokenizers.

    Args:
        threads: that a call runs on; None takes what it was measured with.
        verify: compare every file with its hash first.
    """
    from ._runtime.backends.running.runner import load

    return load(BUNDLE, threads, verify)
'''


def file_name(content: Content, version: str) -> str:
    """What the wheel must be called. Raises ConfigError for a name or a version that no wheel can have."""
    if not _VERSION.fullmatch(version):
        raise ConfigError(f"{short(version)} is no version that a wheel can have; write one like 1.2.0")
    return f"{module_name(content)}-{version}-{_tag(content)}.whl"


def module_name(content: Content) -> str:
    """What the wheel is imported as. Raises ConfigError where that can't be."""
    name = re.sub(r"[-_.]+", "_", content.name).lower()
    if not name.isidentifier() or keyword.iskeyword(name):
        raise ConfigError(f"{name!r} can't be imported: --name gives the wheel another name")
    if name in _TAKEN:
        raise ConfigError(f"{name!r} would hide another package: --name gives the wheel another name")
    return name


def _tag(content: Content) -> str:
    """A compressed set of tags (PEP 425) where variants are for several architectures."""
    compiled = content.manifest.compiled
    if compiled is None:
        return "py3-none-any"
    archs = sorted({each.arch for each in content.manifest.isa} or {compiled.arch})
    return "py3-none-" + ".".join(f"linux_{arch}" for arch in archs)


def runtime(name: str) -> dict[str, Source]:
    """Place in the wheel -> file, of the part of graphwright that it carries."""
    places: dict[str, Source] = {f"{name}/_runtime/__init__.py": b""}
    return {**places, **{f"{name}/_runtime/{place}": file for place, file in running().items()}}


def runtime_part(content: Content) -> Part:
    """graphwright's part that runs bundles, as the SBOM lists it."""
    places = runtime(module_name(content))
    digests = {place: digest_of(source) for place, source in places.items()}
    return Part("graphwright", "library", metadata.version("graphwright"), files=digests)


def write(file: IO[bytes], content: Content, version: str, bom: bytes, texts: Mapping[str, bytes]) -> None:
    """Write the wheel: the same bytes for the same content.

    bom: its SBOM. texts: licences by place.

    Raises:
        BundleError: a file has changed since the bundle was checked.
    """
    name = module_name(content)
    info = f"{name}-{version}.dist-info"
    entries: dict[str, Source] = {
        f"{name}/__init__.py": _MODULE.format(name=content.name).encode(),
        **runtime(name),
        **{f"{name}/bundle/{place}": path for place, path in content.files.items()},
        f"{info}/METADATA": _metadata(content, name, version, texts).encode(),
        f"{info}/WHEEL": _wheel(content).encode(),
        f"{info}/sboms/{name}.cdx.json": bom,
        **{f"{info}/licenses/{place}": text for place, text in texts.items()},
    }
    wanted = {f"{name}/bundle/{each}": entry["sha256"] for each, entry in content.manifest.files.items()}
    record = []
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        order = sorted(entries, key=lambda place: (place.startswith(info), place))
        for place in order:
            digest, size = _add(archive, place, entries[place])
            if digest.hex() != wanted.get(place, digest.hex()):
                raise BundleError(
                    f"{entries[place]!s} has changed since it was checked: pack the bundle again"
                )
            coded = base64.urlsafe_b64encode(digest).decode().rstrip("=")
            record.append(f"{place},sha256={coded},{size}")
        record.append(f"{info}/RECORD,,")
        _add(archive, f"{info}/RECORD", ("\n".join(record) + "\n").encode())


def _add(archive: zipfile.ZipFile, place: str, source: Source) -> tuple[bytes, int]:
    """The sha256 and the size of what was written."""
    entry = zipfile.ZipInfo(place, (1980, 1, 1, 0, 0, 0))  # the earliest time that a zip file knows
    entry.create_system, entry.external_attr = 3, 0o100644 << 16
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.file_size = len(source) if isinstance(source, bytes) else source.stat().st_size
    digest, size = hashlib.sha256(), 0
    with streamed(source) as content, archive.open(entry, "w") as file:
        while block := content.read(MIB):
            digest.update(block)
            size += file.write(block)
    return digest.digest(), size


def _metadata(content: Content, name: str, version: str, texts: Mapping[str, bytes]) -> str:
    ours = metadata.metadata("graphwright")
    wanted = {
        line.split(">")[0].split("=")[0].strip(): line for line in metadata.requires("graphwright") or ()
    }
    runs = [f"{package}=={pin}" for package, pin in PINS.items()]
    needs = ["numpy", *(() if content.manifest.compiled else ("onnxruntime",))]
    lines = [
        "Metadata-Version: 2.4",
        f"Name: {name.replace('_', '-')}",
        f"Version: {version}",
        f"Summary: the model {content.name}, packed by graphwright {ours['Version']}",
        f"Requires-Python: {ours['Requires-Python']}",
        *(f"Requires-Dist: {wanted[each]}" for each in needs),
        *(f"Requires-Dist: {each}" for each in (runs if content.manifest.compiled else ())),
        "Provides-Extra: texts",
        f'Requires-Dist: {wanted["tokenizers"]}; extra == "texts"',
        *(f"License-File: {place}" for place in sorted(texts)),
    ]
    return "\n".join(lines) + "\n"


def _wheel(content: Content) -> str:
    pure = "false" if content.manifest.compiled else "true"
    version = metadata.version("graphwright")
    lines = ["Wheel-Version: 1.0", f"Generator: graphwright {version}", f"Root-Is-Purelib: {pure}"]
    start, _, platforms = _tag(content).rpartition("-")
    return "\n".join([*lines, *(f"Tag: {start}-{each}" for each in platforms.split("."))]) + "\n"

"""A bundle as an OCI image with the C runner and nothing else: no base image, no daemon.

Format: the OCI image format specification 1.1, an image layout in one tar archive ("oci-archive").
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import IO, Any

from ...backends.bundles.manifest import sha256
from ...backends.processor import architecture
from ...backends.runners.build import LIBRARY, ONNXRUNTIME, PROGRAM, TVM
from ...ir.errors import ConfigError
from ...ir.host.temporary import TemporaryFolder
from .archive import write_tar, write_tar_zst
from .content import Content, Source
from .licences import Part, distribution
from .system import libraries, packages

HOME, BUNDLE = "graphwright", "bundle"  # of the runner and the model in the image
_TYPE = "application/vnd.oci.image"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}  # Go's names, which the specification asks for
_EPOCH = "1970-01-01T00:00:00Z"


class Image:
    """What an image of a bundle is made of.

    Args:
        runner: a directory that `optimize runner` made.

    Raises:
        ConfigError: the runner lacks what the bundle needs, or nobody says what a library's licence is.
    """

    def __init__(self, content: Content, runner: Path) -> None:
        self.content = content
        needs = TVM if content.manifest.compiled else (ONNXRUNTIME,)
        names = (PROGRAM, LIBRARY, *needs)
        for name in names:
            if not (runner / name).is_file():
                raise ConfigError(f"the runner in {runner} has no {name}: build one with optimize runner")
        self.home = {f"{HOME}/{name}": runner / name for name in names}
        self.system = libraries([*self.home.values(), *_modules(content)])

    def parts(self, model: Part) -> list[Part]:
        """What the image carries, for its SBOM."""
        digest = lambda *names: {
            f"{HOME}/{name}": sha256(self.home[f"{HOME}/{name}"])
            for name in names
            if f"{HOME}/{name}" in self.home
        }
        ours = Part(
            "graphwright-runner", "library", metadata.version("graphwright"), files=digest(PROGRAM, LIBRARY)
        )
        if self.content.manifest.compiled:
            engines = [
                distribution("apache-tvm", digest(*TVM[1:])),
                distribution("apache-tvm-ffi", digest(TVM[0])),
            ]
        else:
            engines = [distribution("onnxruntime", digest(ONNXRUNTIME))]
        return [model, ours, distribution("nlohmann-json", {}), *engines, *packages(self.system)]

    def write(self, file: IO[bytes], version: str, bom: bytes, texts: Mapping[str, bytes]) -> None:
        """Write the image layout: the same bytes for the same content and runner.

        version: what the image is tagged with. bom: the SBOM. texts: licences by place.
        """
        machine: dict[str, Source] = {
            **self.home,
            **{place.lstrip("/"): f for place, f in self.system.items()},
        }
        model: dict[str, Source] = {f"{BUNDLE}/{place}": path for place, path in self.content.files.items()}
        about: dict[str, Source] = {f"licenses/{place}": text for place, text in texts.items()}
        with TemporaryFolder() as folder:
            blobs = _Blobs(Path(folder))
            layers = [blobs.layer(each) for each in (machine, {**model, **about, "sbom.cdx.json": bom})]
            config = blobs.add(f"{_TYPE}.config.v1+json", _config([each for _, each in layers]))
            manifest = blobs.add(
                f"{_TYPE}.manifest.v1+json",
                _described("manifest", config=config, layers=[each for each, _ in layers]),
            )
            tag = {"org.opencontainers.image.ref.name": version.replace("+", "-")}
            entry = {**manifest, "platform": _platform(), "annotations": tag}
            index = _described("index", manifests=[entry])
            layout = {
                "oci-layout": _json({"imageLayoutVersion": "1.0.0"}),
                "index.json": _json(index),
            }
            write_tar(file, {**layout, **blobs.files})


def _modules(content: Content) -> list[Path]:
    """The compiled functions that this machine's runner may load."""
    manifest, here = content.manifest, architecture()
    if manifest.isa and not any(each.arch == here for each in manifest.isa):
        raise ConfigError(f"an image's runner is this machine's, and no variant of the bundle is for {here}")
    if manifest.compiled is None:
        return []
    if not manifest.isa:
        return [content.files[manifest.compiled.module]]
    mine = (each for each in manifest.record["variants"] if each["arch"] == here)
    return [content.files[each["manifest"]["compiled"]["module"]] for each in mine]


class _Blobs:
    """Content by its sha256, as a layout keeps it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.files = folder, dict[str, Source]()

    def add(self, kind: str, value: Any) -> dict[str, Any]:
        """The descriptor of a JSON value."""
        data = _json(value)
        digest = hashlib.sha256(data).hexdigest()
        self.files[f"blobs/sha256/{digest}"] = data
        return {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(data)}

    def layer(self, files: Mapping[str, Source]) -> tuple[dict[str, Any], str]:
        """The descriptor of a layer of files, and the digest of its archive before compression."""
        plain, path = _Hashed(), self.folder / f"{len(self.files)}.layer"
        programs = {f"{HOME}/{PROGRAM}", *(place for place in files if ".so" in place)}
        write_tar(plain, files, programs)
        with path.open("wb") as file:
            write_tar_zst(file, files, programs)
        digest = sha256(path)
        self.files[f"blobs/sha256/{digest}"] = path
        kind = f"{_TYPE}.layer.v1.tar+zstd"
        descriptor = {"mediaType": kind, "digest": f"sha256:{digest}", "size": path.stat().st_size}
        return descriptor, f"sha256:{plain.digest.hexdigest()}"


class _Hashed:
    """A file that keeps nothing of what is written to it but its sha256."""

    def __init__(self) -> None:
        self.digest = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        return len(data)


def _config(digests: list[str]) -> dict[str, Any]:
    return {
        "created": _EPOCH,
        **_platform(),
        "config": {
            "User": "65534:65534",  # nobody: it reads the bundle and writes where the caller lets it
            "Entrypoint": [f"/{HOME}/{PROGRAM}"],
            "Cmd": [f"/{BUNDLE}"],
            "WorkingDir": "/",
        },
        "rootfs": {"type": "layers", "diff_ids": digests},
        "history": [
            {"created": _EPOCH, "created_by": f"optimize pack: {what}"} for what in ("runner", "model")
        ],
    }


def _described(kind: str, **more: Any) -> dict[str, Any]:
    return {"schemaVersion": 2, "mediaType": f"{_TYPE}.{kind}.v1+json", **more}


def _platform() -> dict[str, str]:
    machine = platform.machine()
    if machine not in _ARCHITECTURES:
        raise ConfigError(f"images are made on x86_64 and aarch64, and this machine is {machine}")
    return {"architecture": _ARCHITECTURES[machine], "os": "linux"}


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), sort_keys=True).encode()

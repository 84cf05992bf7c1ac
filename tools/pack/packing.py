"""`optimize pack`: one file that carries a bundle to where it is served."""

from __future__ import annotations

from pathlib import Path

from ...backends.bundles.manifest import MANIFEST
from ...backends.runners.build import build
from ...ir.errors import ConfigError
from ...ir.host.temporary import TemporaryFolder
from ...ir.host.whole import check_free, written
from . import archive, wheel
from .content import Content, Source, opened
from .formats import Format
from .licences import Part, texts_of
from .oci import Image
from .sbom import sbom
from .spdx import check_licence


def pack(
    bundle: str,
    kind: Format,
    out: str,
    *,
    name: str | None = None,
    version: str | None = None,
    licence: str | None = None,
    runner: str | None = None,
    force: bool = False,
) -> Path:
    """Pack a bundle, with an SBOM and the licences of what is shipped. The same content gives the same bytes.

    Args:
        bundle: a directory that `optimize` wrote.
        out: the directory that the file appears in.
        name: of the package; None takes the bundle directory's.
        version: of the package; None takes one that the content decides.
        licence: of the model, an SPDX expression; None where it isn't known.
        runner: a directory that `optimize runner` made, for an image; None builds one.
        force: replace a file of that name.

    Returns:
        The file.

    Raises:
        BundleError: no bundle, a damaged one, or the file can't be written; nothing is left then.
        ConfigError: a name, a version or a licence that a package can't have; or the extra `pack` is missing.
    """
    _check_installed()
    content = opened(bundle, name)
    if licence is not None:
        check_licence(licence)
    release = version or f"0+g{content.digest[:16]}"  # two packages of one version are one
    target = Path(out, _file_name(content, kind, release))
    check_free(target, force)
    with TemporaryFolder() as folder:
        image = _image(content, runner, Path(folder)) if kind is Format.OCI else None
        parts = [_model(content, licence)]
        if image:
            parts = image.parts(parts[0])
        elif kind is Format.WHEEL:
            parts.append(wheel.runtime_part(content))
        bom, texts = sbom(content.name, release, content.digest, parts), texts_of(parts)
        with written(target, force) as stream:
            if image:
                image.write(stream, release, bom, texts)
            elif kind is Format.WHEEL:
                wheel.write(stream, content, release, bom, texts)
            else:
                archive.write_tar_zst(stream, _laid_out(content, bom, texts))
    return target


def _file_name(content: Content, kind: Format, release: str) -> str:
    if kind is Format.WHEEL:
        return wheel.file_name(content, release)
    return f"{content.name}.oci.tar" if kind is Format.OCI else f"{content.name}.tar.zst"


def _image(content: Content, runner: str | None, folder: Path) -> Image:
    return Image(content, build(folder / "runner") if runner is None else Path(runner))


def _laid_out(content: Content, bom: bytes, texts: dict[str, bytes]) -> dict[str, Source]:
    """A directory that is a bundle, the SBOM and the licences beside its files."""
    files: dict[str, Source] = {f"{content.name}/{place}": path for place, path in content.files.items()}
    files[f"{content.name}/sbom.cdx.json"] = bom
    return {**files, **{f"{content.name}/licenses/{place}": text for place, text in texts.items()}}


def _model(content: Content, licence: str | None) -> Part:
    files = {each: entry["sha256"] for each, entry in content.manifest.files.items()}
    files[MANIFEST] = content.digest
    return Part("model", "machine-learning-model", licence=licence, files=files)


def _check_installed() -> None:
    try:
        import cyclonedx  # noqa: F401
        import zstandard  # noqa: F401
    except ImportError as error:
        raise ConfigError(f"packing needs {error.name}: pip install 'graphwright[pack]'") from None

"""`optimize pack`: one file that carries a bundle to where it is served."""

from __future__ import annotations

from pathlib import Path

from ...backends.bundles.manifest import MANIFEST
from ...ir.errors import ConfigError, short
from ...ir.host.whole import check_free, written
from . import archive, wheel
from .content import Content, Source, opened
from .formats import Format
from .licences import Part, texts_of
from .sbom import sbom


def pack(
    bundle: str,
    kind: Format,
    out: str,
    *,
    name: str | None = None,
    version: str | None = None,
    licence: str | None = None,
    force: bool = False,
) -> Path:
    """Pack a bundle, with an SBOM and the licences of what is shipped. The same content gives the same bytes.

    Args:
        bundle: a directory that `optimize` wrote.
        out: the directory that the file appears in.
        name: of the package; None takes the bundle directory's.
        version: of the package; None takes one that the content decides.
        licence: of the model, an SPDX expression; None where it isn't known.
        force: replace a file of that name.

    Returns:
        The file.

    Raises:
        BundleError: no bundle, a damaged one, or the file can't be written; nothing is left then.
        ConfigError: a name, a version or a licence that a package can't have; or the extra `pack` is missing.
    """
    _check_installed()
    content = opened(bundle, name)
    model = _model(content, licence)
    release = version or f"0+g{content.digest[:16]}"  # two packages of one version are one
    parts = [model]
    if kind is Format.WHEEL:
        file, parts = wheel.file_name(content, release), [model, wheel.runtime_part(content)]
    else:
        file = f"{content.name}.tar.zst"
    target = Path(out, file)
    check_free(target, force)
    bom, texts = sbom(content.name, release, content.digest, parts), texts_of(parts)
    with written(target, force) as stream:
        if kind is Format.WHEEL:
            wheel.write(stream, content, release, bom, texts)
        else:
            archive.write_tar_zst(stream, _laid_out(content, bom, texts))
    return target


def _laid_out(content: Content, bom: bytes, texts: dict[str, bytes]) -> dict[str, Source]:
    """A directory that is a bundle, the SBOM and the licences beside its files."""
    files: dict[str, Source] = {f"{content.name}/{place}": path for place, path in content.files.items()}
    files[f"{content.name}/sbom.cdx.json"] = bom
    return {**files, **{f"{content.name}/licenses/{place}": text for place, text in texts.items()}}


def _model(content: Content, licence: str | None) -> Part:
    if licence is not None:
        _check_licence(licence)
    files = {each: entry["sha256"] for each, entry in content.manifest.files.items()}
    files[MANIFEST] = content.digest
    return Part("model", "machine-learning-model", licence=licence, files=files)


def _check_licence(licence: str) -> None:
    from cyclonedx.spdx import is_expression

    if not licence.strip() or not is_expression(licence):
        raise ConfigError(
            f"{short(licence)} is no SPDX licence expression: write one like MIT, or leave it out"
        )


def _check_installed() -> None:
    try:
        import cyclonedx  # noqa: F401
        import zstandard  # noqa: F401
    except ImportError as error:
        raise ConfigError(f"packing needs {error.name}: pip install 'graphwright[pack]'") from None

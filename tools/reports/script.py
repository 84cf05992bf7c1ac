"""The scripts that a page carries in itself."""

from __future__ import annotations

import os
from functools import cache
from importlib.metadata import version
from pathlib import Path

from ...backends.cache import cache_directory

ASSETS = Path(__file__).parent / "assets"


@cache
def asset(name: str) -> str:
    """A file of this package: style, script or template."""
    return (ASSETS / name).read_text(encoding="utf-8")


@cache
def vega() -> str:
    """Vega, Vega-Lite and their embedding as one script, 0.9 MB, bundled by vl-convert without a network.

    Bundling takes seconds, so the script is kept, a file a version.
    """
    path = kept()
    if own(path):
        return path.read_text(encoding="utf-8")
    import vl_convert

    script = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;").replace("</script", "<\\/script")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(f".{os.getpid()}")
        unfinished.write_text(script, encoding="utf-8")
        unfinished.replace(path)
    except OSError:  # no place to keep it: the next run bundles again
        pass
    return script


def kept() -> Path:
    """Where the script is kept, or will be."""
    return cache_directory() / "scripts" / f"vega-{version('vl-convert-python')}.js"


def own(path: Path) -> bool:
    """Whether a file is there that this user wrote: a page runs what is in it."""
    try:
        return not hasattr(os, "getuid") or path.stat().st_uid == os.getuid()
    except OSError:
        return False

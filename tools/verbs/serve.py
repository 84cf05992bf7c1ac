"""`optimize serve BUNDLE...`: bundles behind HTTP."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from ...backends.bundles.manifest import read_manifest
from ...backends.running.runner import load
from ...backends.target import check_threads, usable_threads
from ...ir.errors import BackendError, ConfigError
from ..serve.keys import read_keys

_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,99}")


def serve(
    bundles: Sequence[str],
    host: str,
    port: int,
    key_file: str | None,
    threads: int | None,
    parallel: int | None,
    tokens: int | None,
    dimensions: str | None,
    limits: dict[str, int | float | bool],
    grace: float,
    log_level: str,
) -> None:
    """Load bundles, try each once, and serve them until SIGTERM.

    Args:
        bundles: directories, or NAME=DIRECTORY.
        threads: of all calls together; None is what this process, or its container's group, may use.
        parallel: calls at once, which share the threads; None is one a thread: a call of one thread waits for
            no other, and computes more for the time that it takes. TVM's functions run one call at a time.
        tokens: of a call. dimensions: widths that vectors may be cut to, "64,128". limits: of `Limits`.

    Raises:
        BackendError: the extra `serve` is not installed.
        ConfigError: settings that don't go together. BundleError: as `load`, or no model to serve.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # its threads would be beyond those granted
    try:
        from ..serve.model import model
        from ..serve.server import Settings
        from ..serve.server import serve as run
        from ..serve.service import Limits
    except ImportError as error:
        raise BackendError(f"serving needs {error.name}: pip install 'graphwright[serve]'") from error
    keys, cuts = read_keys(key_file), _cuts(dimensions)
    paths = named(bundles)
    if cuts and len(paths) > 1:
        raise ConfigError("--dimensions says what one model was trained for: serve it alone, or leave it out")
    total = usable_threads() if threads is None else threads
    check_threads(total)
    if parallel is None:
        compiled = any(read_manifest(Path(path)).compiled for path in paths.values())
        parallel = 1 if compiled else total
    if parallel > total:
        raise ConfigError(f"{parallel} calls at once need as many threads, and there are {total}")
    each = total // parallel
    models = {
        name: model(name, load(path, each, bounded=True), tokens, cuts, parallel)
        for name, path in paths.items()
    }
    run(models, Settings(host, port, keys, Limits(**limits), parallel, grace, log_level))  # type: ignore[arg-type]


def named(bundles: Sequence[str]) -> dict[str, str]:
    """Directories by model name: that before `=`, else the directory's own. Raises ConfigError."""
    found: dict[str, str] = {}
    for given in bundles:
        name, equals, path = given.partition("=")
        if not equals or "/" in name:
            name, path = Path(given).resolve().name, given
        if not _NAME.fullmatch(name):
            raise ConfigError(f"{name!r} can't name a model in an address: write NAME={path}")
        if name in found:
            raise ConfigError(f"two models would be named {name!r}: write NAME=DIRECTORY for one of them")
        found[name] = path
    return found


def _cuts(given: str | None) -> tuple[int, ...]:
    try:
        found = tuple(int(each) for each in given.split(",")) if given else ()
    except ValueError:
        found = (0,)
    if any(cut < 1 for cut in found):
        raise ConfigError(f"--dimensions {given} is no list of widths: write 64,128,256")
    return found

"""A search's folder: whether it can be one, and that one process has it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ...backends.bundles.folder import check_makeable
from ...ir.errors import ConfigError
from ...ir.host.files import why
from ...ir.host.locks import alone

FILE = "study.db"


def check(folder: Path, resume: bool, shared: bool) -> None:
    """Refuse a folder that holds something else, or that can't be made, before anything is captured.

    Args:
        resume: whether it is to hold a search. shared: whether the study lies elsewhere.

    Raises:
        ConfigError: in a sentence.
    """
    try:
        check_makeable(folder)
    except OSError as error:
        raise ConfigError(f"{folder} can't be written to: {why(error)}") from error
    if resume or not folder.exists():
        if resume and not shared and not (folder / FILE).is_file():
            raise ConfigError(f"there is no search in {folder} to resume: leave out --resume to begin one")
        return
    if not folder.is_dir():
        raise ConfigError(f"{folder} exists and is no directory; choose another name")
    if (folder / FILE).is_file():
        raise ConfigError(
            f"{folder} holds a search already: --resume goes on with it, or name another folder"
        )
    left = f".{FILE}."  # by a kill, before there was a study
    strange = [path for path in folder.iterdir() if not path.name.startswith(left)]
    if strange and not shared:
        raise ConfigError(f"{folder} exists already and is no search; choose another directory")


@contextmanager
def own(folder: Path) -> Iterator[None]:
    """The folder for this process alone. A folder that was made for a search that never began goes."""
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    busy = f"another search works in {folder}: wait for it, or name another folder"
    try:
        with alone(folder, ConfigError, busy):
            yield
    finally:
        if made and not any(folder.iterdir()):
            folder.rmdir()

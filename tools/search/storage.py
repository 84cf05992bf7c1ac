"""Where a study lies: a file in the search's folder, or a database that several share."""

from __future__ import annotations

import json
import logging
import os
import socket
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from sqlalchemy import event
from sqlalchemy.exc import SQLAlchemyError

from ...ir.errors import ConfigError
from ...ir.host.files import why
from .goal import Goal
from .place import FILE
from .sampler import Kind, Repeatable
from .study import Study

Identity = Mapping[str, Any]  # what a study's numbers hold for, by what a person would call it


@contextmanager
def opened(
    folder: Path,
    goal: Goal,
    identity: Identity,
    *,
    sampler: Kind = "tpe",
    seed: int = 0,
    storage: str | None = None,
    resume: bool = False,
) -> Iterator[Study]:
    """A study, new or gone on with.

    Args:
        folder: the search's, which this process has for itself.
        identity: must be what the study was begun with.
        storage: a database's URL, shared by several searches whose folders have one name; None is a file in
            the folder.
        resume: whether there has to be one, or must not be one.

    Raises:
        ConfigError: the storage can't be reached; there is a study and should be none, or the other way
            round; it is of another model, processor, version, goal or space.
    """
    optuna.logging.set_verbosity(logging.ERROR)
    worker = f"{socket.gethostname()}:{folder.resolve()}"
    local = folder / FILE
    if storage is None and resume != local.is_file():
        raise ConfigError(
            f"there is no search in {folder} to resume: leave out --resume to begin one"
            if resume
            else f"{folder} holds a search already: --resume goes on with it, or name another folder"
        )
    folder.mkdir(parents=True, exist_ok=True)
    where = storage or str(local)
    with _sentences(where), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if storage is None and not resume:
            _make(folder, goal, identity)
        database = _database(storage or f"sqlite:///{local}")
        study = optuna.create_study(
            storage=database,
            study_name=_name(folder, storage),
            directions=["minimize"] * len(goal.minimise),
            sampler=Repeatable(sampler, seed),
            load_if_exists=True,
        )
        try:
            _same(study, identity, where)
            yield Study(study, database, goal, worker, storage is None)
        finally:
            database.remove_session()
            database.engine.dispose()


def _database(url: str) -> optuna.storages.RDBStorage:
    """A SQLite file writes ahead: what is committed outlives the process, and the disk is waited for once a
    trial (`tell`), not once a choice."""
    storage = optuna.storages.RDBStorage(url)
    if storage.engine.dialect.name == "sqlite":

        @event.listens_for(storage.engine, "connect")
        def _ahead(connection: Any, _: Any) -> None:
            for setting in ("journal_mode=WAL", "synchronous=NORMAL"):
                connection.execute(f"PRAGMA {setting}").close()

        storage.engine.dispose()
    return storage


def _name(folder: Path, storage: str | None) -> str:
    return folder.resolve().name if storage else "search"


def _make(folder: Path, goal: Goal, identity: Identity) -> None:
    """The study's file, which appears whole: a kill leaves either none or one that can be resumed."""
    partial = folder / f".{FILE}.partial"
    partial.unlink(missing_ok=True)
    storage = optuna.storages.RDBStorage(f"sqlite:///{partial}")
    study = optuna.create_study(
        storage=storage, study_name=_name(folder, None), directions=["minimize"] * len(goal.minimise)
    )
    study.set_user_attr("identity", dict(identity))
    storage.remove_session()
    storage.engine.dispose()
    os.replace(partial, folder / FILE)


def _same(study: optuna.Study, identity: Identity, where: str) -> None:
    """Raises ConfigError where a study holds for something else than what is asked for."""
    known = study.user_attrs.get("identity")
    if known is None:
        study.set_user_attr("identity", dict(identity))
        return
    asked = json.loads(json.dumps(identity))
    for name, value in asked.items():
        if known.get(name) != value:
            before, now = (_short(each) for each in (known.get(name), value))
            raise ConfigError(
                f"the study in {where} is of another {name} ({before}, now {now}), and what holds for one is "
                "not mixed with the other: name another folder"
            )


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


@contextmanager
def _sentences(where: str) -> Iterator[None]:
    """What a database says, in a sentence."""
    try:
        yield
    except (SQLAlchemyError, ImportError, optuna.exceptions.StorageInternalError) as error:
        cause = getattr(error, "orig", None) or error.__cause__ or error
        raise ConfigError(f"the storage {where} can't be reached: {why(cause)}") from error

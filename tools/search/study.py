"""The study: the record of every trial in optuna's storage, the only thing that a search goes on from."""

from __future__ import annotations

import json
import logging
import os
import socket
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import Trial, TrialState
from sqlalchemy import event
from sqlalchemy.exc import SQLAlchemyError

from ...ir.errors import ConfigError
from ...ir.host.files import why
from ...passes.manager.varying import Range
from .goal import Goal
from .sampler import Kind, Repeatable
from .space import Choices, Space
from .tried import Tried, tried_from

FILE = "study.db"
_KILLED = 5  # times that a trial is begun, before it is what kills the process
_ORPHANED = 60.0  # seconds after which a trial that nobody put a name to is nobody's
Identity = Mapping[str, Any]  # what a study's numbers hold for, by what a person would call it


@dataclass(frozen=True)
class Asked:
    """A trial to make. recorded: what was found already, where a search was killed before it was told."""

    trial: Trial
    choices: Choices
    recorded: Tried | None

    @property
    def number(self) -> int:
        return self.trial.number


class Study:
    """A study that is open.

    worker: who makes trials here; a search that is resumed is the same one. alone: whether nobody else does.
    """

    def __init__(
        self, study: optuna.Study, storage: optuna.storages.RDBStorage, goal: Goal, worker: str, alone: bool
    ) -> None:
        self._study, self._storage, self._goal = study, storage, goal
        self._worker, self._alone = worker, alone

    def note(self, name: str, value: Any = None) -> Any:
        """What is kept under a name beside the trials; a value is kept where there is none yet."""
        if value is not None and name not in self._study.user_attrs:
            self._study.set_user_attr(name, value)
        return self._study.user_attrs.get(name)

    def tried(self) -> list[Tried]:
        """Every trial that has begun, by number."""
        trials = self._study.get_trials(deepcopy=False)
        return [_of(one) for one in trials if one.state != TrialState.WAITING]

    def propose(self, choices: Choices) -> None:
        """Have a point tried before any other, unless one like it was proposed."""
        self._study.enqueue_trial(dict(choices), skip_if_exists=True)

    def ask(self, space: Space) -> Asked:
        """The next trial: one that was cut off, else one that is decided now. What it is to try is on record
        when this returns."""
        trial = self._cut_off()
        if trial is None:
            trial = self._study.ask()
            trial.set_user_attr("worker", self._worker)
        choices = {name: _suggested(trial, name, one) for name, one in space.dimensions.items()}
        stored = trial.user_attrs.get("tried")
        if stored is None and (begun := trial.user_attrs.get("begun", 0)) >= _KILLED:
            why = f"the process that made it was killed {begun} times: there may not be the memory for it"
            return Asked(trial, choices, self._put(trial, Tried(trial.number, "refused", choices, why=why)))
        trial.set_user_attr("begun", trial.user_attrs.get("begun", 0) + 1)
        return Asked(trial, choices, tried_from(stored) if stored else None)

    def forgive(self, asked: Asked) -> None:
        """A trial was interrupted by a person, which says nothing against it."""
        asked.trial.set_user_attr("begun", 0)

    def tell(self, asked: Asked, found: Tried) -> None:
        """Put a trial on record: what was found first, in one write, so that it is never looked for again."""
        trial = asked.trial
        if asked.recorded is None:
            self._put(trial, found)
        if found.state == "complete" or (found.state == "same" and self._measured(found)):
            known = trial.constraints
            for name, excess in self._goal.excesses(found.values).items():
                if name not in known:
                    trial.set_constraint(name, excess)
            self._study.tell(trial, list(self._goal.objectives(found.values)))
        else:
            self._study.tell(trial, state=TrialState.PRUNED)
        self._settle()

    def _settle(self) -> None:
        """Wait until the disk has everything."""
        if self._storage.engine.dialect.name == "sqlite":
            with self._storage.engine.connect() as connection:
                connection.exec_driver_sql("PRAGMA wal_checkpoint(FULL)")

    def _put(self, trial: Trial, found: Tried) -> Tried:
        trial.set_user_attr("tried", found.to_json())
        return found

    def _measured(self, found: Tried) -> bool:
        return all(one.key in found.values for one in self._goal.minimise) and all(
            limit.of.key in found.values for limit in self._goal.limits
        )

    def _cut_off(self) -> Trial | None:
        """A trial that a search here began and did not end: killed, or interrupted."""
        for one in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            owner = one.user_attrs.get("worker")
            begun = one.datetime_start.timestamp() if one.datetime_start else 0.0
            if owner == self._worker or (owner is None and (self._alone or time.time() - begun > _ORPHANED)):
                return Trial(self._study, one._trial_id)
        return None


def _of(trial: optuna.trial.FrozenTrial) -> Tried:
    stored = trial.user_attrs.get("tried")
    if stored and trial.state != TrialState.RUNNING:
        return tried_from(stored)
    return Tried(trial.number, "running", trial.params)


def _suggested(trial: Trial, name: str, one: Range) -> Any:
    if isinstance(one, tuple):
        return trial.suggest_categorical(name, one)
    if one.whole:
        return trial.suggest_int(name, int(one.low), int(one.high), step=int(one.step) or 1, log=one.log)
    return trial.suggest_float(name, one.low, one.high, step=one.step or None, log=one.log)


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

"""The study: the record of every trial in optuna's storage, the only thing that a search goes on from."""

from __future__ import annotations

import time
from collections.abc import Container
from dataclasses import dataclass, replace
from typing import Any

import optuna
from optuna.trial import Trial, TrialState

from ...passes.manager.varying import Range
from .goal import Goal
from .rising import lowest
from .space import Choices, Space
from .tried import Tried, tried_from

_KILLED = 5  # times that a trial is begun, before it is what kills the process
_ORPHANED = 60.0  # seconds after which a trial that nobody put a name to is nobody's


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

    def recorded(self) -> set[int]:
        """Numbers of the trials that were found and are not told."""
        running = self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        return {one.number for one in running if "tried" in one.user_attrs}

    def ask(self, space: Space, besides: Container[int] = ()) -> Asked:
        """The next trial: one that was cut off, else one that is decided now. What it is to try is on record
        when this returns.

        Args:
            besides: numbers of trials that are being made here, which are not cut off.
        """
        cut_off = self._cut_off(besides)
        if cut_off is None:
            trial = self._study.ask()
            trial.set_user_attr("worker", self._worker)
        else:
            trial = Trial(self._study, cut_off)
        given = self._storage.get_trial(trial._trial_id).system_attrs.get("fixed_params", {})
        choices = {
            name: _suggested(trial, name, one if name in given else lowest(one))
            for name, one in space.dimensions.items()
        }
        stored = trial.user_attrs.get("tried")
        return Asked(trial, choices, tried_from(stored) if stored else None)

    def waits(self, besides: Container[int] = ()) -> bool:
        """Whether what `ask` would give was decided before: it was proposed, or cut off."""
        waiting = self._study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
        return bool(waiting) or self._cut_off(besides) is not None

    def begin(self, asked: Asked) -> Asked:
        """A trial is about to be made by this process; what has killed many is given up."""
        begun = asked.trial.user_attrs.get("begun", 0)
        if begun >= _KILLED:
            return self._given_up(asked)
        asked.trial.set_user_attr("begun", begun + 1)
        return asked

    def lost(self, asked: Asked) -> Asked:
        """The process that made a trial elsewhere was killed, and so again until it is given up."""
        asked.trial.set_user_attr("begun", begun := asked.trial.user_attrs.get("begun", 0) + 1)
        return self._given_up(asked) if begun >= _KILLED else asked

    def _given_up(self, asked: Asked) -> Asked:
        why = f"the process that made it was killed {_KILLED} times: there may not be the memory for it"
        return self.record(asked, Tried(asked.number, "refused", asked.choices, why=why))

    def forgive(self, asked: Asked) -> None:
        """A trial was interrupted by a person, which says nothing against it."""
        asked.trial.set_user_attr("begun", 0)

    def record(self, asked: Asked, found: Tried) -> Asked:
        """Put what was found on record, in one write, so that it is never looked for again."""
        asked.trial.set_user_attr("tried", found.to_json())
        return replace(asked, recorded=found)

    def tell(self, asked: Asked, found: Tried) -> None:
        """End a trial: from now on others are decided by it."""
        if asked.recorded is None:
            self.record(asked, found)
        trial = asked.trial
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

    def _measured(self, found: Tried) -> bool:
        return all(one.key in found.values for one in self._goal.minimise) and all(
            limit.of.key in found.values for limit in self._goal.limits
        )

    def _cut_off(self, besides: Container[int]) -> int | None:
        """The id of a trial that a search here began and did not end: killed, or interrupted."""
        for one in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if one.number in besides:
                continue
            owner = one.user_attrs.get("worker")
            begun = one.datetime_start.timestamp() if one.datetime_start else 0.0
            if owner == self._worker or (owner is None and (self._alone or time.time() - begun > _ORPHANED)):
                return one._trial_id
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

"""A deployment expanded: one case a build, each the settings of one run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from ...backends.target import named
from ...ir.errors import ConfigError, GraphwrightError, did_you_mean
from ..config import RunConfig, make
from . import budgets
from .budgets import Budget
from .schema import ELSEWHERE, MOST_BUILDS, Deployment, Goal, Names, Override, Part, Target

_OURS = {"require", "rpc", "device", "models", "targets", "goals", "skip"}  # no setting of a run


@dataclass(frozen=True)
class Remote:
    """A machine that a TVM tracker lends. tracker: HOST:PORT."""

    tracker: str
    key: str


@dataclass(frozen=True)
class Case:
    """One build. name: of its bundle. parts: model, target and goal, as far as the file names any. config:
    without a place to write to. levels: targets whose builds make one bundle; `config` is then for the first.
    """

    name: str
    parts: tuple[str, ...]
    config: RunConfig
    require: tuple[Budget, ...] = ()
    remote: Remote | None = None
    levels: tuple[str, ...] = ()

    @property
    def settings(self) -> dict[str, Any]:
        """What it asks for beyond what every run does by itself, keyed as in the file."""
        several = {"target": list(self.levels)} if self.levels else {}
        device = {"rpc": self.remote.tracker, "device": self.remote.key} if self.remote else {}
        return settings_of(self.config) | several | device


def cases(deployment: Deployment) -> tuple[Case, ...]:
    """Every build, models first, then targets, then goals, in the file's order.

    Raises:
        ConfigError: settings of a build that can't be together, a target that is none, two builds of one
            name, an override for what there isn't.
    """
    _check_overrides(deployment)
    targets = deployment.targets or {"": Target()}
    goals = deployment.goals or {"": Goal()}
    if len(deployment.models) * len(targets) * len(goals) > MOST_BUILDS:
        raise ConfigError(f"these are over {MOST_BUILDS:,} builds; split the file")
    found: dict[str, Case] = {}
    for model_name, model in deployment.models.items():
        for target_name, target in targets.items():
            for goal_name, goal in goals.items():
                ids = {"models": model_name, "targets": target_name, "goals": goal_name}
                over = [each for each in deployment.overrides if _holds(each, ids)]
                if any(each.skip for each in over):
                    continue
                parts = tuple(part for part in ids.values() if part)
                name = "-".join(parts)
                if name in found:
                    raise ConfigError(f"two builds are named {name}: rename a model, a target or a goal")
                found[name] = _case(name, parts, target, [deployment.defaults, model, target, goal, *over])
    if not found:
        raise ConfigError("overrides leave no build")
    return tuple(found.values())


def only(cases: Sequence[Case], names: Sequence[str]) -> tuple[Case, ...]:
    """The cases of these names: of a build, or of a model, target or goal, with * for anything.

    Raises:
        ConfigError: there is none of a name.
    """
    wanted: dict[str, Case] = {}
    for name in names:
        taken = [each for each in cases if any(fnmatchcase(one, name) for one in (each.name, *each.parts))]
        if not taken:
            known = {each.name for each in cases} | {part for each in cases for part in each.parts}
            raise ConfigError(f"there is no build {name!r}{did_you_mean(name, known)}")
        wanted |= {each.name: each for each in taken}
    return tuple(each for each in cases if each.name in wanted)


def settings_of(config: RunConfig) -> dict[str, Any]:
    """What a case asks for beyond what every run does by itself, keyed as in the file."""
    told = config.model_dump(mode="json", by_alias=True, exclude_defaults=True, exclude_none=True)
    return {key: value for key, value in told.items() if key not in ELSEWHERE}


def _case(name: str, parts: tuple[str, ...], target: Target, layers: Sequence[Part]) -> Case:
    merged: dict[str, Any] = {}
    require: dict[str, str] = {}
    for layer in layers:
        told = layer.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude=_OURS)
        if told.get("preset"):
            merged.pop("pipeline", None)
        if told.get("pipeline"):
            merged.pop("preset", None)
        merged |= told
        require |= layer.require
    limits = tuple(budgets.read(key, limit) for key, limit in require.items())
    drops = [each.limit for each in limits if each.quantity == "drop" and not each.least]
    if drops and "max-drop" not in merged:
        merged["max-drop"] = min(drops)
    levels = tuple(merged["target"]) if isinstance(merged.get("target"), list) else ()
    try:
        config = make(merged | ({"target": levels[0]} if levels else {}))
        named(config.target or "host")
    except GraphwrightError as error:
        raise ConfigError(f"{name}: {error}") from error
    for each in limits:
        if each.workload and config.shapes is not None and each.workload not in config.shapes:
            near = did_you_mean(each.workload, config.shapes)
            raise ConfigError(f"{name}: {each.text} is about a shape that is not measured{near}")
    remote = Remote(target.rpc, target.device) if target.rpc and target.device else None
    if remote and levels:
        raise ConfigError(f"{name}: a device has one processor: name one target for it")
    if remote and config.backend != "tvm":
        raise ConfigError(f"{name}: only TVM's builds are timed on a device; leave it backend: tvm")
    return Case(name, parts, config, limits, remote, levels)


def _listed(names: Names | None) -> tuple[str, ...]:
    return () if names is None else (names,) if isinstance(names, str) else names


def _holds(override: Override, ids: dict[str, str]) -> bool:
    """Whether an override is for a build of these names."""
    asked = {section: _listed(getattr(override, section)) for section in ids}
    return all(not names or any(fnmatchcase(ids[key], one) for one in names) for key, names in asked.items())


def _check_overrides(deployment: Deployment) -> None:
    for number, override in enumerate(deployment.overrides, 1):
        for section in ("models", "targets", "goals"):
            known = getattr(deployment, section)
            for name in _listed(getattr(override, section)):
                if not any(fnmatchcase(one, name) for one in known):
                    raise ConfigError(
                        f"overrides, {number}: {section} has no {name!r}{did_you_mean(name, known)}"
                    )

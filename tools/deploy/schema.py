"""The file of a deployment: models x targets x goals. What one run asks for is a case of it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator

from ...backends.target import NAMES
from ...ir.errors import ConfigError, GraphwrightError, did_you_mean, short
from .. import config
from ..config import Checked, Settings, checked
from . import budgets

MOST_BUILDS = 1024
ELSEWHERE = ("out", "force", "dump", "reproduce", "bisect", "keep-going")  # what the command says, or nobody
_NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"
Name = Annotated[str, StringConstraints(pattern=_NAME)]
Key = Annotated[str, StringConstraints(pattern=budgets.PATTERN)]
Names = str | tuple[str, ...]


class Part(Settings):
    """Settings that every build has which this part takes part in.

    target: one, or a list of named ones, whose builds stand in one bundle over one copy of the weights:
    whatever loads it takes the best that its processor has. require: budgets, such as speedup: ">=2", drop:
    "<=0.5" (points), size: "<=30MB", p50 or p95@8x128: "<=40ms"; a time or a speed-up without a workload is
    one of each.
    """

    target: str | tuple[str, ...] | None = None  # type: ignore[assignment]
    require: dict[Key, str] = Field(default_factory=dict)

    @field_validator("target", mode="before")
    @classmethod
    def _levels(cls, target: Any) -> Any:
        if not isinstance(target, list | tuple):
            return target
        for name in target:
            if name not in NAMES:
                known = "" if name == "host" else did_you_mean(str(name), NAMES)
                raise ValueError(f"{short(name)} is no named target, of which such a list is made{known}")
        if len(set(target)) < len(target) or len(target) < 2:
            raise ValueError("a list of targets names two or more, each once")
        return tuple(target)

    @field_validator("require", mode="before")
    @classmethod
    def _budgets(cls, require: Any) -> Any:
        if not isinstance(require, Mapping):
            raise ValueError('write a budget a line, as in speedup: ">=2"')
        try:
            for key, limit in require.items():
                budgets.read(str(key), str(limit))
        except ConfigError as error:
            raise ValueError(str(error).removeprefix("require: ")) from error
        return {str(key): str(limit) for key, limit in require.items()}


class Model(Part):
    """A model: directory, hub id, .onnx or .pt2, and what holds for it on every target."""

    model: str

    _model = field_validator("model", mode="before")(config.path_text)


class Target(Part):
    """What is built for: `target` (host, a name of `optimize targets`, or a list of such) and `backend`.

    rpc, device: address (HOST:PORT) of a TVM tracker and key of a machine that it lends: the build is timed
    there.
    """

    rpc: str | None = None
    device: str | None = None

    @model_validator(mode="after")
    def _whole(self) -> Target:
        if (self.rpc is None) != (self.device is None):
            raise ValueError("write both rpc (HOST:PORT of a tracker) and device (its key), or neither")
        if self.rpc is not None and self.backend != "tvm":
            raise ValueError("only TVM's builds are timed on a device: write backend: tvm")
        if self.rpc is not None and isinstance(self.target, tuple):
            raise ValueError("a device has one processor: name one target for it")
        return self


class Goal(Part):
    """What a build is for: a preset or a pipeline, shapes, quality and budgets."""


class Override(Part):
    """Settings for those builds that have these models, targets and goals; all where none is named.

    skip: they are left out.
    """

    models: Names | None = None
    targets: Names | None = None
    goals: Names | None = None
    skip: bool = False


class Deployment(BaseModel):
    """Builds: every model for every target with every goal.

    What stands later wins: defaults, model, target, goal, overrides in order. Without targets there is one,
    this host; without goals one, the balanced preset.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, title="graphwright deployment")

    defaults: Part = Field(default_factory=Part)
    models: dict[Name, Model] = Field(min_length=1)
    targets: dict[Name, Target] = Field(default_factory=dict)
    goals: dict[Name, Goal] = Field(default_factory=dict)
    overrides: tuple[Override, ...] = ()


def json_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of the file, as editors take it."""
    found = Deployment.model_json_schema(by_alias=True)
    for name in ("Part", "Model", "Target", "Goal", "Override"):
        part = found["$defs"][name]
        for other in ELSEWHERE:
            part["properties"].pop(other)
        several = {"type": "array", "items": {"enum": [*NAMES]}, "minItems": 2, "uniqueItems": True}
        part["properties"]["target"]["examples"] = ["host", *NAMES]
        part["properties"]["target"]["anyOf"][1] = several
        part["properties"]["shapes"]["anyOf"].append({"type": "string", "examples": ["1x128,8x128"]})
    short_form = {"type": "string", "description": "host, or a name of `optimize targets`"}
    found["properties"]["targets"]["additionalProperties"] = {
        "anyOf": [short_form, several, {"$ref": "#/$defs/Target"}]
    }
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **found}


def read(path: str | Path) -> Deployment:
    """The deployment in a YAML file; paths in it are relative to the working directory.

    Raises:
        ConfigError: as `of`, or as config.read.
    """
    return of(config.read(path), Path(path).stem)


def of(settings: Mapping[str, Any], name: str = "build") -> Deployment:
    """A deployment, checked.

    Args:
        settings: as in the file; or those of one run (`model: ...`), which is one build.
        name: of that build, where the run's `out` gives none.

    Raises:
        ConfigError: naming the place, and the nearest key where one is unknown.
    """
    if "model" in settings:
        run = config.make(settings)
        title = (
            re.sub(r"[^A-Za-z0-9_.-]", "-", Path(run.out).name if run.out else name).lstrip("-._") or "build"
        )
        kept = {key: value for key, value in settings.items() if key not in ELSEWHERE}
        return Deployment(models={title[:64]: checked(Model, kept)})
    known = list(Deployment.model_fields)
    for key in settings:
        if key not in known:
            raise ConfigError(f"unknown section {short(key)}{did_you_mean(str(key), known)}")
    found: dict[str, Any] = {}
    if "defaults" in settings:
        found["defaults"] = _part(Part, settings["defaults"], "defaults")
    for section, kind in (("models", Model), ("targets", Target), ("goals", Goal)):
        if section in settings:
            found[section] = _section(kind, settings[section], section)
    overrides = settings.get("overrides", [])
    if not isinstance(overrides, list | tuple):
        raise ConfigError("overrides: write a list, each with the builds that it is for")
    found["overrides"] = tuple(
        _part(Override, each, f"overrides, {number}") for number, each in enumerate(overrides, 1)
    )
    if "models" not in found:
        raise ConfigError("models: name at least one, as in models: {minilm: {model: ./minilm}}")
    return Deployment(**found)


Kind = TypeVar("Kind", bound=Part)


def _section(kind: type[Kind], entries: Any, section: str) -> dict[str, Kind]:
    if not isinstance(entries, Mapping) or not entries:
        raise ConfigError(f"{section}: write at least one, `name: settings` each")
    for name in entries:
        if not re.fullmatch(_NAME, str(name), re.ASCII):
            raise ConfigError(f"{section}: {short(name)} is no name: use letters, digits, -, _ and dots")
    shorthand = {Target: "target", Model: "model"}.get(kind)
    return {
        str(name): _part(
            kind,
            {shorthand: each} if shorthand and isinstance(each, str | list) else each,
            f"{section}.{name}",
        )
        for name, each in entries.items()
    }


def _part(kind: type[Checked], settings: Any, where: str) -> Checked:
    if not isinstance(settings, Mapping):
        raise ConfigError(f"{where}: write settings, as in {{shapes: [1x128]}}")
    for key in ELSEWHERE:
        if key in settings:
            raise ConfigError(f"{where}: {key} is no setting of a deployment: the command says where and how")
    try:
        return checked(kind, settings)
    except GraphwrightError as error:
        raise ConfigError(f"{where}: {error}") from error


def printed_schema() -> str:
    """The JSON schema as text."""
    return json.dumps(json_schema(), indent=2) + "\n"

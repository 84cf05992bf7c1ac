"""A whole run as one checked object: what the command's options, or a YAML file, ask for."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from ..backends.measuring.workloads import names_in
from ..backends.target import most_threads, named
from ..ir.errors import ConfigError, MeasureError, did_you_mean, short
from ..ir.host.files import FAULTS, path_of, read_regular, why

PresetName = Literal["exact", "bfloat16", "balanced", "fast", "small"]
BackendName = Literal["onnxruntime", "tvm", "auto"]
TaskName = Literal[
    "classification", "similarity", "token-classification", "perplexity", "retrieval", "rerank", "fidelity"
]
ROLES = ("text", "pair", "label")
MOST_SHAPES = 64
MOST_BYTES = 1 << 16  # of a file of settings
MOST_EVENTS = 10_000  # values, beginnings and ends of collections in it
DEEPEST = 10  # collections inside of each other there


def path_text(value: Any) -> Any:
    """A path of any kind as text; what is none as it is."""
    return path_of(value) if isinstance(value, str | bytes | PathLike) else value


class Settings(BaseModel):
    """Everything of a run but its model. Every key of the file is the long option of the same name.

    columns: which column of the data file plays which role ("text", "pair", "label"): a name, or a number
    from 1 for a file without a header. samples: rows used at most. calibrate: a file of texts to calibrate
    on, and to train on. max_drop: points of the metric. quick: measure less. backend: "auto" builds for both
    runtimes and keeps the faster. dump: a directory for the graph's text after every pass and what changed.
    reproduce: one for what it takes to see a pass that is rolled back fail again. bisect: find the rewrite
    that a pass is rolled back for. model_type: what transformers calls a directory's model, where its
    config.json doesn't say.
    """

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        validate_by_name=True,
        validate_by_alias=True,
        alias_generator=lambda name: name.replace("_", "-"),
    )

    out: str | None = None
    preset: PresetName | None = None
    pipeline: str | None = None
    data: str | None = None
    calibrate: str | None = None
    task: TaskName | None = None
    columns: dict[str, str | int] = Field(default_factory=dict)
    samples: int = Field(default=2000, ge=2, le=1_000_000)
    max_drop: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    threads: int | None = Field(default=None, ge=1)
    shapes: tuple[str, ...] | None = None
    seed: int = Field(default=0, ge=0, le=2**32 - 1)
    target: str | None = None
    backend: BackendName = "onnxruntime"
    model_type: str | None = None
    force: bool = False
    keep_going: bool = False
    quick: bool = False
    dump: str | None = None
    reproduce: str | None = None
    bisect: bool = False

    _paths = field_validator("out", "data", "calibrate", "dump", "reproduce", mode="before")(path_text)

    @field_validator("samples", "max_drop", "threads", "seed", mode="before")
    @classmethod
    def _numbers(cls, value: Any) -> Any:
        if isinstance(value, bool):
            raise ValueError(f"input should be a number (given: {value})")
        return value

    @field_validator("threads")
    @classmethod
    def _threads(cls, threads: int | None) -> int | None:
        most = most_threads()
        if threads is not None and threads > most:
            raise ValueError(
                f"{short(threads)} are more than this machine should start; name at most {most}, four for "
                "each CPU that this process may use"
            )
        return threads

    @field_validator("shapes", mode="before")
    @classmethod
    def _shapes(cls, shapes: Any) -> Any:
        if shapes is None:
            return None
        if isinstance(shapes, str):
            shapes = shapes.split(",") if shapes.strip() else []
        if not isinstance(shapes, list | tuple):
            raise ValueError("name shapes as text, such as 1x128,8x128")
        # A batch alone is a number in YAML.
        names = [str(shape).strip() if type(shape) in (int, str) else short(shape) for shape in shapes]
        if not names:
            raise ValueError("name at least one shape, such as 1x128")
        if len(names) > MOST_SHAPES:
            raise ValueError(f"{len(names)} shapes are too many to measure; name at most {MOST_SHAPES}")
        try:
            return names_in(",".join(names))
        except MeasureError as error:
            raise ValueError(str(error)) from error

    @field_validator("columns", mode="before")
    @classmethod
    def _roles(cls, columns: Any) -> Any:
        if not isinstance(columns, str):
            return columns
        pairs = [part.partition("=") for part in columns.split(",")]
        if not all(role.strip() and mark and column.strip() for role, mark, column in pairs):
            raise ValueError("write role=column, as in text=review,label=stars")
        roles = [role.strip() for role, _, _ in pairs]
        if len(set(roles)) < len(roles):
            raise ValueError("each role has one column")
        return {role: column.strip() for role, (_, _, column) in zip(roles, pairs, strict=True)}

    @field_validator("columns")
    @classmethod
    def _columns(cls, columns: dict[str, str | int]) -> dict[str, str | int]:
        for role in columns:
            if role not in ROLES:
                raise ValueError(f"{short(role)} is no role of a column{did_you_mean(role, ROLES)}")
        return columns


class RunConfig(Settings):
    """One run of `optimize`."""

    model: str

    _model = field_validator("model", mode="before")(path_text)

    @model_validator(mode="after")
    def _consistent(self) -> RunConfig:
        if self.preset and self.pipeline is not None:
            raise ValueError("preset and pipeline exclude each other; keep one")
        if self.backend == "auto" and self.target not in (None, "host"):
            raise ValueError("backend auto measures both builds on this machine; name one for another target")
        for name in ("task", "columns"):
            if getattr(self, name) and not self.data:
                raise ValueError(f"{name} describes a data file; name it with data (--data FILE)")
        return self

    def to_yaml(self) -> str:
        """The file that asks for this run again."""
        settings = {"model": self.model, **self.model_dump(mode="json", by_alias=True, exclude_none=True)}
        return yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)


def resolve(run: RunConfig) -> RunConfig:
    """The run with every default that depends on the machine written out."""
    target = named(run.target or "host")
    preset = run.preset or (None if run.pipeline is not None else "balanced")
    return run.model_copy(
        update={"target": target.name, "threads": run.threads or target.cores, "preset": preset}
    )


def make(settings: Mapping[str, Any]) -> RunConfig:
    """Settings, keyed as in the file, checked. Raises ConfigError as `checked`."""
    return checked(RunConfig, settings)


Checked = TypeVar("Checked", bound=BaseModel)


def checked(kind: type[Checked], settings: Mapping[str, Any]) -> Checked:
    """Settings, keyed as in the file, as an object of a kind.

    Raises:
        ConfigError: naming the first key that is unknown (and the nearest) or has a wrong value.
    """
    known = [field.alias or name for name, field in kind.model_fields.items()]
    for key in settings:
        if key not in known:
            near = did_you_mean(key, known) if isinstance(key, str) else ""
            raise ConfigError(f"unknown setting {short(key)}{near}")
    try:
        return kind.model_validate(dict(settings))
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"] if part != "[key]")
        what = (
            first["msg"]
            .removeprefix("Value error, ")
            .replace("Input", "input", 1)
            .replace("Field required", "is required")
        )
        given = "" if first["type"] in {"value_error", "missing"} else f" (given: {short(first['input'])})"
        raise ConfigError(f"{where}: {what}{given}" if where else what) from error


def _check_bounds(text: str) -> None:
    """Raises YAMLError for what takes YAML's reader long: deep nesting, mappings merged into others."""
    depth = 0
    for number, event in enumerate(yaml.parse(text, Loader=yaml.SafeLoader)):
        if number > MOST_EVENTS:
            raise yaml.YAMLError(f"it holds over {MOST_EVENTS:,} values")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise yaml.YAMLError(f"it is nested too deeply, over {DEEPEST} levels")
        if isinstance(event, yaml.ScalarEvent) and event.value == "<<":
            raise yaml.YAMLError("it merges mappings (<<), which are not read: write the settings out")


def read(path: str | Path) -> dict[str, Any]:
    """The settings in a YAML file, unchecked; paths in it are relative to the working directory.

    Raises:
        ConfigError: the file is missing, not YAML, or not a mapping.
    """
    try:
        text = read_regular(path, MOST_BYTES).decode("utf-8-sig")
        _check_bounds(text)
        settings = yaml.safe_load(text)
    except FileNotFoundError:
        raise ConfigError(f"no such configuration file: {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {path}: {why(error)}") from error
    except (yaml.YAMLError, *FAULTS) as error:
        reason = " ".join(str(error).split()) if isinstance(error, yaml.YAMLError) else why(error)
        raise ConfigError(f"{path} is not YAML: {reason}") from error
    if not isinstance(settings, dict):
        raise ConfigError(f"{path} must hold settings, one `name: value` a line")
    return settings

"""What a run can be refused for before it captures anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...backends.bundles.folder import check_free, check_makeable
from ...backends.target import named
from ...backends.tvm.backend import ready
from ...ir.errors import ConfigError, DataError, PipelineError
from ...ir.host.files import check_regular, why
from ...ir.program import Dialect
from ...passes.manager.pipeline import Pipeline
from ..config import RunConfig
from ..judge.records import check_suffix


def preflight(config: RunConfig, source: Any = None, pipeline: Pipeline | None = None) -> Pipeline | None:
    """Looks at everything that a run will need beside the model.

    Args:
        config: resolved.
        source: the model itself, where the configuration can only name it.
        pipeline: passes that were given as such.

    Returns:
        The passes to run, None for those of a preset.

    Raises:
        GraphwrightError: a pipeline that can't be, a place that can't be written to, a file that is not
            there, a backend that is not installed.
    """
    pipeline = passes_of(config, source, pipeline)
    if config.out is not None:
        check_free(Path(config.out), config.force)
    for path in (config.data, config.calibrate):
        if path is not None:
            _check_data(Path(path))
    for name, folder in (("dump", config.dump), ("reproduce", config.reproduce)):
        if folder is not None:
            try:
                check_makeable(Path(folder, "pass"))
            except OSError as error:
                raise ConfigError(f"{name}: {folder} can't be written to: {why(error)}") from error
    if config.backend == "tvm":
        ready(named(config.target or "host"))
    return pipeline


def passes_of(config: RunConfig, source: Any = None, pipeline: Pipeline | None = None) -> Pipeline | None:
    """As `preflight`, which looks at files and directories as well."""
    if pipeline is None and config.pipeline is not None:
        pipeline = Pipeline.parse(config.pipeline)
    start = _dialect(config.model if source is None else source)
    if pipeline is not None and pipeline.leads_to(start) == "fx":
        raise PipelineError(
            "the pipeline leaves a PyTorch graph, which no bundle can hold: end it with to-onnx"
        )
    return pipeline


def _dialect(source: Any) -> Dialect:
    return "onnx" if isinstance(source, str | Path) and Path(source).suffix == ".onnx" else "fx"


def _check_data(path: Path) -> None:
    check_suffix(path)
    try:
        check_regular(path)
    except FileNotFoundError:
        raise DataError(f"no such data file: {path}") from None
    except OSError as error:
        raise DataError(f"cannot read {path}: {why(error)}") from error

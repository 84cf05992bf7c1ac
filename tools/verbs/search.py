"""`optimize search`: candidates tried within a budget, and the Pareto front of those that keep a goal."""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...ir.errors import ConfigError, did_you_mean
from ..config import make
from ..console import Console

if TYPE_CHECKING:
    from ..search.order import Searched

TAKEN = ("calibrate", "columns", "data", "model_type", "quick", "samples", "seed", "shapes", "target",
         "task", "threads", "backend")  # fmt: skip


def search(
    model: Any,
    out: str | Path,
    goal: str,
    *,
    minimise: str | None = None,
    budget: str | None = None,
    trials: int | None = None,
    space: str | Path | None = None,
    sampler: str = "tpe",
    storage: str | None = None,
    resume: bool = False,
    best: str | None = None,
    engine: str = "local",
    inputs: Any = None,
    quiet: bool = True,
    **settings: Any,
) -> Searched:
    """Search pipelines for a model on this machine, and keep bundles of the Pareto front.

    Args:
        model: an nn.Module (with `inputs`), a Hugging Face directory or hub id, an .onnx or .pt2 file.
        out: the search's folder: front.json, its page report.html, bundles in members/, and the study.
        goal: limits, as "latency<=5ms@1x128, drop<=1.0, size<=20MB".
        minimise: what the front is about, as "latency,size"; by default what the goal limits.
        budget: of all trials together, as "2h"; an hour by default, where trials does not limit them.
        trials: at most.
        space: a YAML file that narrows the space.
        sampler: "tpe" or "nsga2".
        storage: URL of a database for the study; by default a file in `out`.
        resume: go on with the search in `out`.
        best: keep only the bundle that is best in this.
        engine: where candidates are made: "local", or "ray" on the machines of the Ray that runs
            (docs/design.md).
        inputs: example inputs of an nn.Module.
        quiet: False prints progress on stderr.
        settings: data, calibrate, task, columns, samples, threads, shapes, seed, backend, model_type, quick:
            as of `optimize`.

    Returns:
        The front and every trial. `status` is 3 where nothing meets the goal.

    Raises:
        GraphwrightError: one sentence on what is wrong with the goal, the space, the study or the model.
    """
    name = os.fsdecode(model) if isinstance(model, str | os.PathLike) else type(model).__name__
    source = name if isinstance(model, str | os.PathLike) else model
    strange = sorted(set(settings) - set(TAKEN))
    if strange:
        raise ConfigError(f"{strange[0]} is no setting of a search")
    wanted = {key.replace("_", "-"): value for key, value in settings.items() if value is not None}
    file = None if space is None else os.fsdecode(space)
    order = {
        "goal": goal,
        "minimise": minimise,
        "budget": budget,
        "trials": trials,
        "space": file,
        "sampler": sampler,
        "storage": storage,
        "resume": resume,
        "best": best,
        "engine": engine,
    }
    return run({**wanted, "model": name, "out": out}, order, Console(quiet=quiet), source, inputs)


def run(
    settings: Mapping[str, Any],
    order: Mapping[str, Any],
    console: Console,
    source: Any = None,
    inputs: Any = None,
) -> Searched:
    """A search.

    Args:
        settings: as `config.make` takes them. order: fields of `Order`, and the engine.
    """
    _installed()
    from ..search.order import Order

    for name, known in (("sampler", ("tpe", "nsga2")), ("engine", ("local", "ray"))):
        if order[name] not in known:
            raise ConfigError(f"{name}: there is no {order[name]!r}{did_you_mean(order[name], known)}")
    asked = {name: value for name, value in order.items() if name != "engine"}
    if order["engine"] == "ray":
        from ..search.cluster.engine import run as searched
    else:
        from ..search.job import run as searched
    try:
        return searched(make(settings), Order(**asked), console, source, inputs)
    finally:
        _page(Path(os.fsdecode(settings["out"])))


def _page(folder: Path) -> None:
    """Write the search's page beside its record, interrupted or not, where there is one."""
    from ...backends.bundles.manifest import PAGE
    from ..reports.searched import is_search
    from .report import report, written

    if is_search(str(folder)):
        written(report([str(folder)], "html"), str(folder / PAGE), force=True)


def shown(settings: Mapping[str, Any], console: Console) -> str:
    """The space of a model, as a --space file."""
    _installed()
    from ..search.begun import Begun
    from ..search.narrowed import shown as text

    return text(Begun(make(settings), None, console, None, None).whole)


def _installed() -> None:
    if find_spec("optuna") is None:
        raise ConfigError("a search needs the package 'optuna': pip install 'graphwright[search]'")


def tables(found: Searched) -> list[Any]:
    """The members of the front, a row each, and where they are."""
    from rich.table import Table

    from ..search.watching import lossy

    states = [one.state for one in found.trials]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    lines: list[Any] = [f"{len(states)} trials: {counts}."]
    shown = found.front.members or ((found.front.nearest,) if found.front.nearest else ())
    if shown:
        keys = [key for key in shown[0].values if key.partition("@")[0] != "early drop"]
        table = Table("trial", *keys, "beside exact passes", box=None, pad_edge=False, header_style="bold")
        for one in shown:
            cells = [f"{one.values[key]:.4g}" if key in one.values else "" for key in keys]
            table.add_row(str(one.number), *cells, lossy(one))
        lines.append(table)
    best = [f"trial {number} is best in {key}" for key, number in found.front.best.items()]
    rows = found.record["conditions"].get("rows")
    if best:
        lines.append(
            "; ".join(best)
            + f". The record is {found.folder / 'front.json'}, its page report.html, and bundles "
            "are in members."
        )
    if best and rows:
        source = found.record["conditions"]["source"]
        lines.append(
            f"Chosen among {len(states)} by {rows} rows of {source}, which flatters: judge on others before "
            "you rely on it."
        )
    return lines

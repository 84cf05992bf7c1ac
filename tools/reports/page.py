"""report.html of one bundle: a page in one file, which needs no network."""

from __future__ import annotations

import json
import zlib
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from . import energy, tables, variants
from .plots import costs, curves, layers, lengths, steps, times
from .plots.base import Plot
from .script import ASSETS, asset, vega
from .summary import tiles

MOST = 3_000_000  # bytes of the graph viewer's in a page


@dataclass
class Section:
    """A heading and what stands under it; left out where nothing does."""

    title: str
    plots: Sequence[tuple[str, Plot]] = ()
    tables: Sequence[tables.Table] = ()
    said: Sequence[str] = field(default_factory=tuple)


def page(
    record: Mapping[str, Any], stages: Mapping[str, Any] | None = None, grid: float | None = None
) -> str:
    """The page of a bundle.

    Args:
        record: what its manifest says, or will say.
        stages: the graph before and after each pass, as `tools.build.stages` tells it.
        grid: grams of CO2 that a kilowatt-hour costs; None says nothing of CO2.
    """
    numbered = Numbered()
    sections = [
        Section("Variants", tables=[variants.variants(record)], said=variants.sentences(record)),
        Section("Speed", numbered(times.times(record), times.gains(record)), [tables.speed(record)]),
        Section("Where the time goes", numbered(costs.kinds(record), costs.blocks(record))),
        Section("What each pass did", numbered(steps.path(record)), [tables.steps(record)]),
        Section("Quantization", numbered(layers.layers(record))),
        Section("Training", numbered(*curves.curves(record))),
        Section("Your data", numbered(lengths.lengths(record), lengths.padding(record))),
        Section("Energy", said=energy.sentences(record, grid)),
    ]
    return rendered(
        "bundle.html",
        numbered.shown,
        title=title(record),
        subtitle=subtitle(record),
        warnings=warnings(record),
        tiles=tiles(record),
        verdict=record.get("verdict") or (),
        sections=[each for each in sections if each.plots or each.said or any(t.rows for t in each.tables)],
        notes=_notes(record),
        made=tables.made(record),
        pipeline=record.get("pipeline") or "",
        viewer=_packed(stages),
    )


def _packed(stages: Mapping[str, Any] | None) -> str:
    """What the graph viewer reads: JSON, deflated, in base64; empty where there is nothing, or too much."""
    if not stages:
        return ""
    text = json.dumps(stages, ensure_ascii=False, separators=(",", ":"))
    packed = b64encode(zlib.compress(text.encode("utf-8", "surrogatepass"), 9)).decode()
    return packed if len(packed) <= MOST else ""


class Numbered:
    """Plots with names of their own in the page; what isn't there is left out."""

    def __init__(self) -> None:
        self.shown: dict[str, Plot] = {}

    def __call__(self, *plots: Plot | None) -> list[tuple[str, Plot]]:
        new = {f"plot{len(self.shown) + number}": plot for number, plot in enumerate(filter(None, plots))}
        self.shown |= new
        return list(new.items())


def rendered(template: str, plots: Mapping[str, Plot], **values: Any) -> str:
    """A page of a template, with its plots and scripts in it."""
    return (
        _environment()
        .get_template(template)
        .render(
            plots=as_script({name: plot.spec for name, plot in plots.items()}),
            vega=vega() if plots else "",
            **values,
        )
    )


@cache
def _environment() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    found = Environment(
        loader=FileSystemLoader(ASSETS), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    found.filters["asset"] = asset
    return found


def as_script(value: Any) -> str:
    """JSON that may stand in an element of HTML: no text in it can end the element."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def title(record: Mapping[str, Any]) -> str:
    """The model's name: the last part of where it lies."""
    model = str((record.get("config") or {}).get("model") or "a model")
    parts = [part for part in model.replace("\\", "/").split("/") if part]
    generic = len(parts) > 1 and parts[-1] in ("model", "model.onnx", "model.pt2")
    return "/".join(parts[-2:] if generic else parts[-1:]) or model


def subtitle(record: Mapping[str, Any]) -> str:
    """How it was made, for what, in a line."""
    config, target = record.get("config") or {}, record.get("target") or {}
    backend = {"onnxruntime": "ONNX Runtime", "tvm": "TVM"}.get(record.get("backend", ""), "")
    threads = record.get("measurements", {}).get("threads")
    parts = [
        f"preset {config['preset']}" if config.get("preset") else "a pipeline of one's own",
        backend and f"for {backend}",
        f"on {target['name']} ({target.get('arch', '')})" if target.get("name") else "",
        f"{threads} thread{'s' * (threads > 1)}" if threads else "",
    ]
    return ", ".join(part for part in parts if part)


def warnings(record: Mapping[str, Any]) -> list[str]:
    """What keeps the run from being a success."""
    found = [f"Not verified: {each}." for each in record.get("unverified") or ()]
    if record.get("met") is False:
        found.append("The quality goal was not met; this is the best candidate.")
    found += [f"A contract was broken and the pass undone: {each}" for each in record.get("faults") or ()]
    plain = record.get("unrewritten") or ()
    if plain:
        found.append(
            f"At {', '.join(plain)} the un-rewritten export of the model runs: nothing tried is faster."
        )
    return found


def _notes(record: Mapping[str, Any]) -> list[str]:
    found = list(record.get("notes") or ())
    for step in record.get("steps") or ():
        name = step["pass"].partition("{")[0]
        counted = ", ".join(f"{key} {value}" for key, value in step["statistics"].items())
        found += [f"{name}: {note}" for note in ([counted] if counted else []) + step["notes"]]
        found += [f"{name}: {step['error']}"] if step.get("error") else []
    found += [energy.NONE] if energy.silent(record) else []
    return found

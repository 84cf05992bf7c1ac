"""Writes a bundle of ONNX graphs over one copy of the weights, with tokenizer, manifest and report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...ir.errors import BundleError
from ...ir.footprint import weight_bytes
from ...ir.program import Program
from .feeds import Feed, coordinates
from .finished import finished
from .manifest import DEFAULT
from .onnx_file import LIMIT, WeightFile, write_external, write_inline

FORMAT = 1  # what reads this manifest
_SHARED = DEFAULT + ".data"


@dataclass(frozen=True)
class Variant:
    """One graph of a bundle. name: letters, digits, - and _; the first variant written is the default."""

    name: str
    program: Program


@dataclass(frozen=True)
class Route:
    """Calls like this workload go to this variant. padding: share of the batch that is padding."""

    workload: str
    batch: int
    length: int
    padding: float
    graph: str


def route(workload: str, program: Program, feed: Feed, variant: str) -> Route:
    """The route that a measured workload's feed stands for."""
    batch, length, padding = coordinates(program.inputs, feed)
    return Route(workload, batch, length, round(padding, 6), variant)


def write(
    directory: str | Path,
    variants: Sequence[Variant],
    dispatch: Sequence[Route] = (),
    *,
    manifest: Mapping[str, Any] | None = None,
    report: str = "",
    pages: Mapping[str, str] | None = None,
    threads: int | None = None,
    tokenizer: Mapping[str, bytes] | None = None,
    force: bool = False,
) -> Path:
    """Write a bundle under its final name only once it is complete.

    Args:
        directory: must not exist, unless `force`, which replaces a bundle (and nothing else).
        variants: onnx programs with the same inputs and outputs; the first is the default, model.onnx, which
            also runs in plain ONNX Runtime. One graph below 2 GB is a single file; otherwise all graphs
            share model.onnx.data, where tensors of equal content are stored once.
        dispatch: which variant runs which calls; without it every call runs the default.
        manifest: what else to record: seed, pipeline, target, evidence, measurements. JSON-able.
        report: the content of report.md.
        pages: what else people look at beside it: file name -> content.
        threads: what the measurements used, and `load` will.
        tokenizer: file name -> content; None takes the default program's.
        force: replace an existing bundle, after the new one is complete.

    Returns:
        The directory.

    Raises:
        BundleError: the directory exists, or can't be written; nothing is left behind then.
    """
    _check(variants, dispatch)
    program = variants[0].program

    def fill(folder: Path) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "graphs": write_graphs(folder, variants),
            "dispatch": [asdict(row) for row in dispatch],
        }

    # At least the largest graph must fit; how much the others add depends on what they share.
    need = max(weight_bytes(variant.program) for variant in variants)
    more = {**(manifest or {}), "threads": threads}
    files = {"report": report, "pages": pages, "tokenizer": tokenizer}
    return finished(directory, program, fill, need, more, **files, force=force)  # type: ignore[arg-type]


def _check(variants: Sequence[Variant], dispatch: Sequence[Route]) -> None:
    if not variants:
        raise BundleError("a bundle needs at least one graph")
    first, names = variants[0].program, [variant.name for variant in variants]
    if len(set(names)) < len(names):
        raise BundleError(f"two graphs of the bundle have one name: {', '.join(names)}")
    for variant in variants:
        program = variant.program
        if not variant.name.replace("-", "").replace("_", "").isalnum():
            raise BundleError(f"{variant.name!r} can't name a graph: use letters, digits, - and _")
        if program.dialect != "onnx":
            raise BundleError(
                f"the graph {variant.name!r} is of the {program.dialect} dialect: run to-onnx first"
            )
        if (program.inputs, program.outputs) != (first.inputs, first.outputs):
            raise BundleError(f"the graph {variant.name!r} has other inputs or outputs than {names[0]!r}")
    for row in dispatch:
        if row.graph not in names:
            raise BundleError(
                f"the dispatch table sends {row.workload} to {row.graph!r}, which isn't written"
            )


def write_graphs(folder: Path, variants: Sequence[Variant]) -> dict[str, str]:
    """Variant name -> file, of the files written; as `write`, which makes a bundle of them."""
    default, *others = variants
    if not others and weight_bytes(default.program) < LIMIT:
        write_inline(default.program.graph, folder / DEFAULT)
        return {default.name: DEFAULT}
    names = {default.name: DEFAULT, **{variant.name: f"model.{variant.name}.onnx" for variant in others}}
    with WeightFile(folder / _SHARED) as weights:
        for variant in variants:
            write_external(variant.program.graph, folder / names[variant.name], weights)
    return names

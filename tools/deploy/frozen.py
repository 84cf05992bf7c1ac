"""A bundle made again from its lock: the same passes over the same model, nothing measured, the same bytes.

What runs is rebuilt and held against the hashes in the locked manifest. The manifest and report.md, which say
what was measured then, are the lock's own bytes, and report.html is made of the manifest.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...backends.base import Engine
from ...backends.bundles.bundle import Variant, write_graphs
from ...backends.bundles.folder import appearing
from ...backends.bundles.manifest import MANIFEST, PAGE, REPORT, sha256
from ...backends.bundles.record import MODULE, WEIGHTS
from ...backends.target import Target
from ...ir.capture import capture
from ...ir.errors import BundleError, ConfigError
from ...ir.program import Program
from ...passes.manager.contract import Ratio
from ...passes.manager.pipeline import Pipeline
from ..build.building import Building
from ..build.building_compiled import GRAPH, Compiled
from ..build.building_graphs import Graphs
from ..build.kept import building
from ..build.preflight import preflight
from ..build.replay import Replayed
from ..build.widening import widened
from ..build.work import Work
from ..config import RunConfig
from ..console import Console
from ..judge.judging import read_calibration, read_data
from ..reports.page import page
from . import coded
from .lock import Entry


def rebuild(config: RunConfig, source: str, entry: Entry, out: Path, console: Console) -> None:
    """Write the bundle of an entry, whole or not at all; one that is there is replaced.

    Args:
        config: as the entry's settings ask for.
        source: the model, whose files are those of the entry's inputs.

    Raises:
        BundleError: a file comes out with other bytes than the lock's.
        GraphwrightError: a pass can't work here as it did then.
    """
    record = entry.record
    made = record["config"]
    engine: Engine = record["backend"]
    # Threads of that machine may be more than this one should start by itself.
    config = config.model_copy(
        update={"threads": made["threads"], "preset": made.get("preset"), "backend": engine}
    )
    pipeline = preflight(config, source)
    console.progress("capturing")
    program = capture(source, model_type=config.model_type)
    wide = widened(program, pipeline, console.progress)
    data, texts = read_data(config, wide.program), read_calibration(config, wide.program)
    first = [Pipeline.parse(",".join(_steps(record, _names(record)[0])))]
    work = Work(config, console, wide.program, data, first, texts, wide, recording=True)
    work.target = Target.from_json(entry.target)
    with building(engine, work) as making, appearing(out, force=True) as folder:
        graphs = _graphs(making, entry)
        console.progress("writing")
        if isinstance(making, Compiled):
            artifact = making.compiler(graphs[_names(record)[0]])
            for name in (MODULE, WEIGHTS):
                shutil.copyfile(artifact.folder / name, folder / name)
        else:
            write_graphs(folder, [Variant(name, graph) for name, graph in graphs.items()])
        for name, content in next(iter(graphs.values())).tokenizer.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        (folder / REPORT).write_bytes(entry.report)
        (folder / PAGE).write_text(page(_as_found(record)), encoding="utf-8")
        compare(folder, record)
        (folder / MANIFEST).write_bytes(entry.manifest)


def _as_found(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """The record as the run had it when it made its page: compiled bundles list no graphs."""
    if record["backend"] != "tvm":
        return record
    first = next(iter(record["measurements"]["contestants"].values()))
    return {**record, "graphs": [GRAPH], "dispatch": dict.fromkeys(first["workloads"], GRAPH)}


def _names(record: Mapping[str, Any]) -> list[str]:
    """The bundle's graphs, the default first."""
    return list(record["graphs"]) or [GRAPH]


def _steps(record: Mapping[str, Any], graph: str) -> list[str]:
    """The passes that are in a graph, in order, without those that widened the model."""
    return [
        step["pass"]
        for step in record["steps"]
        if step["status"] == "applied" and graph in (step["graphs"] or ())
    ]


def _graphs(making: Building, entry: Entry) -> dict[str, Program]:
    """Every graph of the bundle, made as it was: the main one with what was measured, others beside it."""
    record, work = entry.record, making.work
    chosen = coded.decoded(entry.decisions.chosen)
    ratios = {key: Ratio(*each) for key, each in entry.decisions.ratios.items()}
    evidence = work.evidence(Replayed(work.workloads, ratios), timed=bool(ratios))
    context = replace(work.context(evidence), chosen=chosen, runtime=making.backend, cache=None)
    made = {}
    for number, name in enumerate(_names(record)):
        if number and isinstance(making, Graphs):
            context = replace(making.untimed(chosen), cache=None)
        passes = Pipeline.parse(",".join(_steps(record, name)))
        start, rest = making.start(passes)
        ran = Pipeline(rest).run(start, context, verify=False)
        for step in ran.steps:
            if step.error is not None:
                raise step.error
            if step.status != "applied":
                raise ConfigError(
                    f"the pass {step.text} does not do here what it did when the lock was written"
                )
        made[name] = ran.program
    return made


def compare(folder: Path, record: Mapping[str, Any]) -> None:
    """Raises BundleError, naming the file, where what was rebuilt is not what the manifest lists."""
    listed = record["files"]
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    found.pop(MANIFEST, None)
    for name in sorted(listed.keys() | found.keys()):
        if name not in found or name not in listed:
            raise BundleError(f"{name} is in one of the locked and the rebuilt bundle alone: build it anew")
        if sha256(found[name]) != listed[name]["sha256"]:
            raise BundleError(
                f"{name} comes out with other bytes than the lock's: some step computes differently on this "
                "machine than on the one that measured; build there, or without --frozen"
            )

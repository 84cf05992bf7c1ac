"""The evidence as tables: for the terminal with rich, for report.md in Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..ir.inputs.extents import told
from ..passes.manager.contract import Bounded, Effect, Exact
from .build.outcome import Outcome
from .build.steps import BUNDLE, PLAIN, PYTORCH, StepEvidence
from .build.verdict import closing

Rows = tuple[Sequence[str], list[Sequence[str]]]


def tables(outcome: Outcome) -> list[Any]:
    """What the terminal shows when the work is done."""
    from rich.table import Table

    shown: list[Any] = []
    for title, (head, rows) in (("Every step", brief_steps(outcome)), ("ms of a call", brief_speed(outcome))):
        table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
        for number, name in enumerate(head):
            first = number == 0
            table.add_column(
                name,
                justify="left" if first else "right",
                no_wrap=True,
                max_width=30 if first else None,
            )
        for row in rows:
            table.add_row(*row)
        shown += [table, ""]
    return [*shown, *closing(outcome)]


def markdown(outcome: Outcome) -> str:
    """report.md."""
    config, parts = outcome.config, [f"# {outcome.config.model}", ""]
    parts += closing(outcome)
    parts += ["", f"Pipeline: `{outcome.pipeline}`. Seed {config.seed}.", ""]
    for title, (head, rows) in (("Speed", speed(outcome)), ("Every step", steps(outcome))):
        parts += [f"## {title}", "", _line(head), _line(["---"] * len(head)), *map(_line, rows), ""]
    parts += ["## Sizes", "", *(f"- {line}" for line in told(outcome.source)), ""]
    parts += _notes(outcome)
    return "\n".join(parts).rstrip() + "\n"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", "<br>") for cell in cells) + " |"


def steps(outcome: Outcome) -> Rows:
    """A row a pass: what it promised, what came of it, what it cost, and what it brought: ms after it at each
    workload where it was measured, and how many times as fast that is as before it."""
    workloads = list(outcome.dispatch)
    head = ["pass", "contract", "result", "s", "MB", *(f"ms {name}" for name in workloads), "quality"]
    rows: list[Sequence[str]] = []
    for each in outcome.steps:
        step = each.step
        timed = [
            f"{each.ms[name]:.3g} ({step.ratios[name].median:.2f})" if name in each.ms else ""
            for name in workloads
        ]
        score = f"{each.score.value:.2f}" if each.score else ""
        seconds = f"{step.seconds + step.check_seconds:.1f}"
        result = _result(outcome, each)
        size = f"{step.bytes_after / 1e6:.1f}"
        name = step.text.replace(",", ", ")
        rows.append([name, contract(step.effect), result, seconds, size, *timed, score])
    return head, rows


def brief_steps(outcome: Outcome) -> Rows:
    """A row a pass as a terminal of 80 columns holds it: what came of it, how many times as fast calls are
    after it (least and most over the workloads), and what it cost."""
    rows: list[Sequence[str]] = []
    for each in outcome.steps:
        step = each.step
        ratios = sorted(ratio.median for ratio in step.ratios.values())
        times = f"{ratios[0]:.2f}" if ratios else ""
        times += f" to {ratios[-1]:.2f}" if len(ratios) > 1 else ""
        score = f"{each.score.value:.2f}" if each.score else ""
        rows.append([step.text, _result(outcome, each), times, f"{step.bytes_after / 1e6:.1f}", score])
    return ["pass", "result", "times as fast", "MB", "quality"], rows


def brief_speed(outcome: Outcome) -> Rows:
    """A row a workload: ms of the bundle and of what you would otherwise run; intervals are in report.md."""
    cells = outcome.comparison.cells
    usual = [name for name in (PYTORCH, PLAIN) if name in cells]
    other = outcome.other
    several = len(outcome.graphs) > 1
    head = ["calls of", *usual, *([other.backend] if other else []), *([BUNDLE] if outcome.measured else [])]
    rows: list[Sequence[str]] = []
    for workload, graph in outcome.dispatch.items():
        names = [
            *usual,
            *([other.dispatch[workload]] if other else []),
            *([graph] if outcome.measured else []),
        ]
        row = [workload, *(f"{cells[name][workload].ms:.2f}" for name in names)]
        rows.append([*row, graph] if several else row)
    return [*head, "graph"] if several else head, rows


def _result(outcome: Outcome, each: StepEvidence) -> str:
    """What came of a step, and which graphs of the bundle hold it where not all do."""
    if each.step.status == "slower":
        return "slower, undone"
    if each.status != "applied" or each.graphs is None or len(each.graphs) == len(outcome.graphs):
        return each.status
    return f"applied in {', '.join(each.graphs)}"


def contract(effect: Effect) -> str:
    """A contract in two words: how far outputs may move."""
    if isinstance(effect, Exact):
        return f"≤ {effect.tolerance:g}"
    if isinstance(effect, Bounded):
        return f"{effect.metric} ≥ {effect.limit:g}"
    return "lossy"


def speed(outcome: Outcome) -> Rows:
    """A row a contestant: ms and speed-up over the first at each workload, with its 95% interval."""
    workloads = list(outcome.dispatch)
    cells = outcome.comparison.cells
    first = next(iter(cells))
    head = ["ms (times as fast, 95% interval)", *workloads]
    shown: dict[str, Mapping[str, str]] = {
        name: dict.fromkeys(workloads, name) for name in (PYTORCH, PLAIN) if name in cells
    }
    if outcome.other is not None:
        shown[f"{outcome.other.backend} build"] = outcome.other.dispatch
    if outcome.measured:
        shown[BUNDLE] = outcome.dispatch
    rows: list[Sequence[str]] = []
    for name, contestants in shown.items():
        row = [name]
        for workload in workloads:
            contestant = contestants[workload]
            cell = cells[contestant][workload]
            low, high = cell.speedup.interval
            ratio = "" if contestant == first else f" ({cell.speedup.median:.2f}, {low:.2f}–{high:.2f})"
            row.append(f"{cell.ms:.2f}{ratio}")
        rows.append(row)
    if len(outcome.graphs) > 1:
        rows.append(["graph", *(outcome.dispatch[workload] for workload in workloads)])
    return head, rows


def _notes(outcome: Outcome) -> list[str]:
    """What the passes counted, and what they and the driver had to say."""
    notes = [f"- {note}" for note in (*outcome.source.info.get("notes", ()), *outcome.notes)]
    for step in (each.step for each in outcome.steps):
        counted = [step.counted] if step.statistics else []
        notes += [f"- {step.text}: {note}" for note in (*counted, *step.notes)]
    return ["## Notes", "", *notes] if notes else []

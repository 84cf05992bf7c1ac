"""The evidence as tables: for the terminal with rich, for report.md in Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...backends.target import named
from ...ir.inputs.extents import told
from ...passes.manager.contract import Bounded, Effect, Exact, Step
from ..build.outcome import BUNDLE, EXPORT, PLAIN, PYTORCH, Outcome, StepEvidence
from ..judge.quality import Score

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


def statistics(step: Step) -> str:
    """What a pass counted."""
    return ", ".join(f"{name} {value}" for name, value in step.statistics.items())


def contract(effect: Effect) -> str:
    """A contract in two words: how far outputs may move."""
    if isinstance(effect, Exact):
        return f"≤ {effect.tolerance:g}"
    if isinstance(effect, Bounded):
        return f"{effect.metric} ≥ {effect.limit:g}"
    return "lossy"


def scored(score: Score | None) -> str:
    """A score in points, with its details."""
    if score is None:
        return ""
    details = ", ".join(f"{name} {value:.4g}" for name, value in score.details.items())
    return f"{score.metric} {score.value:.2f}" + (f" ({details})" if details else "")


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


def closing(outcome: Outcome) -> list[str]:
    """The verdict in sentences."""
    lines = [*_unrewritten(outcome), *(f"Not verified: {each}." for each in outcome.unverified)]
    lines += [_gains(outcome)] if outcome.measured else []
    if outcome.config.quick:
        lines.append(
            "A first look: no pass was timed by itself, and PyTorch not at all; without --quick they are."
        )
    if outcome.weight_bytes is not None:
        held, original = (size / 1e6 for size in outcome.weight_bytes)
        lines.append(f"Its weights take {held:.1f} MB; the original's {original:.1f} MB.")
    lines += _graphs(outcome)
    other = outcome.other
    if other is not None:
        lines.append(
            f"Built for {outcome.backend}, which is {other.ratio:.2f} times as fast as the build for "
            f"{other.backend} (geometric mean over the workloads)."
        )
    quality = outcome.quality
    if quality is not None:
        lines.append(
            f"Quality on {quality.rows} rows of {quality.source}: {scored(quality.score)}; the original's is "
            f"{quality.reference.value:.2f}, so {abs(quality.drop):.2f} points are "
            f"{'lost' if quality.drop > -0.005 else 'gained'}."
        )
    found = outcome.neighbours
    if found is not None and (sentence := found.sentence()):
        lines.append(sentence)
    if found is not None and outcome.exact:
        lines.append(f"As it runs, outputs are within {found.distance:.1g} of the captured model's.")
    if outcome.met is not None:
        verdict = "met" if outcome.met else "NOT met; this is the best candidate"
        lines.append(f"Goal: at most {outcome.config.max_drop:g} points lost: {verdict}.")
    if outcome.portability.products:
        lines.append(outcome.portability.told(named(outcome.config.target or "host").name))
    for each in outcome.steps:
        if each.step.error is not None:
            broke = each.step.status == "rolled back"
            lines.append(f"Rolled back: {each.step.error}." if broke else f"{each.step.failure}.")
    if faults := len(outcome.faults):
        lines.append(
            f"Contracts that passes broke: {faults}. It was undone; it is a fault of graphwright's, "
            "not of the model: please report it."
        )
    if outcome.bundle is not None:
        lines.append(f"{outcome.bundle} is ready: gw.load({str(outcome.bundle)!r}).")
    return lines


def _graphs(outcome: Outcome) -> list[str]:
    """Which calls take which graph, and what the graph does without, where there are several."""
    if len(outcome.graphs) < 2:
        return []
    lines = []
    for name in (graph.name for graph in outcome.graphs):
        served = [workload for workload, graph in outcome.dispatch.items() if graph == name]
        absent = [
            each.step.text.partition("{")[0]
            for each in outcome.rewrites
            if each.graphs is not None and name not in each.graphs
        ]
        made = f", made without {', '.join(absent)}" if absent else ""
        made = ", the un-rewritten export" if name == EXPORT else made
        lines.append(f"Calls like {', '.join(served)} take the graph {name}{made}.")
    return lines


def _unrewritten(outcome: Outcome) -> list[str]:
    """Where the bundle runs the model as it came."""
    plain = outcome.unrewritten
    if not plain:
        return []
    why = "nothing that was tried is faster" if outcome.rewrites else "no pass changed it"
    if len(plain) < len(outcome.dispatch):
        return [f"At {', '.join(plain)} the un-rewritten export of the model runs: {why} there."]
    return [f"This bundle holds the un-rewritten export of the model: {why}."]


def _gains(outcome: Outcome) -> str:
    cells = outcome.comparison.cells
    first = next(iter(cells))
    gains = ", ".join(
        f"{cells[graph][workload].speedup.median:.2f} times at {workload}"
        for workload, graph in outcome.dispatch.items()
    )
    return (
        f"Against {first}, {outcome.comparison.threads} threads, medians of "
        f"{outcome.comparison.rounds} interleaved rounds: {gains}."
    )


def _notes(outcome: Outcome) -> list[str]:
    """What the passes counted, and what they and the driver had to say."""
    notes = [f"- {note}" for note in (*outcome.source.info.get("notes", ()), *outcome.notes)]
    for step in (each.step for each in outcome.steps):
        counted = [statistics(step)] if step.statistics else []
        notes += [f"- {step.text}: {note}" for note in (*counted, *step.notes)]
    return ["## Notes", "", *notes] if notes else []

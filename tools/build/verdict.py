"""The verdict on a run in sentences."""

from __future__ import annotations

from ...backends.target import named
from ...passes.manager.pipeline import GAIN
from ..judge.quality import Score
from .facts import Facts
from .steps import EXPORT, PLAIN, spares_weights


def closing(outcome: Facts) -> list[str]:
    """The verdict in sentences."""
    lines = [*_unrewritten(outcome), *(f"Not verified: {each}." for each in outcome.unverified)]
    lines += [_gains(outcome), *_slower(outcome)] if outcome.measured else []
    lines += [outcome.comparison.loud] if outcome.measured and outcome.comparison.loud else []
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


def _graphs(outcome: Facts) -> list[str]:
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


def _unrewritten(outcome: Facts) -> list[str]:
    """Where the bundle runs the model as it came."""
    plain = outcome.unrewritten
    if not plain:
        return []
    why = "nothing that was tried is faster" if outcome.rewrites else "no pass changed it"
    if len(plain) < len(outcome.dispatch):
        return [f"At {', '.join(plain)} the un-rewritten export of the model runs: {why} there."]
    return [f"This bundle holds the un-rewritten export of the model: {why}."]


def _gains(outcome: Facts) -> str:
    cells = outcome.comparison.cells
    first = next(iter(cells))
    gains = ", ".join(
        f"{cells[graph][workload].speedup.median:.2f} times at {workload}"
        for workload, graph in outcome.dispatch.items()
    )
    return (
        f"Against {first}, {outcome.comparison.threads} threads, medians of "
        f"up to {outcome.comparison.rounds} interleaved rounds: {gains}."
    )


def _slower(outcome: Facts) -> list[str]:
    """Where a bundle that spares weights pays for them in time."""
    asked = outcome.config.pipeline is not None and spares_weights(outcome.steps)
    if not asked or PLAIN not in outcome.comparison.cells:
        return []
    ratios = {
        workload: outcome.comparison.faster(workload, PLAIN, graph)
        for workload, graph in outcome.dispatch.items()
        if graph != EXPORT
    }
    slower = {workload: ratio.median for workload, ratio in ratios.items() if ratio.low > GAIN}
    if not slower:
        return []
    told = ", ".join(f"{ratio:.2f} times as fast at {workload}" for workload, ratio in slower.items())
    return [f"Kept for its size: the un-rewritten export is {told}."]


def scored(score: Score | None) -> str:
    """A score in points, with its details."""
    if score is None:
        return ""
    details = ", ".join(f"{name} {value:.4g}" for name, value in score.details.items())
    return f"{score.metric} {score.value:.2f}" + (f" ({details})" if details else "")

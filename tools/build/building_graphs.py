"""Candidates for ONNX Runtime: graphs, and which of them serves which workload."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

from ...backends.base import Engine
from ...backends.bundles.bundle import Variant
from ...backends.measuring.gate import Measurer
from ...ir.program import Program
from ...passes.manager.contract import Context, Exact, Pass, Ratio, Run
from ...passes.manager.instruments import Instrument
from ...passes.manager.pipeline import Pipeline
from ..judge.quality import Runner
from .building import Build, Building, Candidate, Made
from .evidence import Evidence
from .points import Points
from .steps import EXPORT, spares_weights
from .variants import DEFAULT, choose, decisions, title
from .work import Work


class Graphs(Building):
    """Decides per workload: a gated pass that slows one down has no part in the graph that serves it."""

    backend: ClassVar[Engine] = "onnxruntime"

    def __init__(self, work: Work) -> None:
        super().__init__(work)
        self.timed = work.config.preset != "small"  # there bytes decide: one graph, whatever it takes
        self.points = Points()
        self.measurer = Measurer(
            work.workloads, work.threads, work.target, effort=work.effort, progress=work.console.progress
        )

    def close(self) -> None:
        self.measurer.close()

    def evidence(self) -> Evidence:
        return self.work.evidence(self.measurer, self.timed)

    def watching(self) -> list[Instrument]:
        return [self.points]

    def graphs(self, start: Program, passes: Sequence[Pass], ran: Run) -> Made:
        """The pipeline's graph, then one for each group of workloads that some measured pass slows down or
        cannot help, made without it."""
        made = Made({DEFAULT: ran.program}, {DEFAULT: ran.applied})
        if not self.timed:
            return made
        names = [pass_.name for pass_ in passes]
        feeds = {workload.name: workload.feed for workload in self.work.workloads}

        def pays(number: int, workload: str) -> bool:
            return passes[number].pays(self.work.plain, feeds[workload])

        # What rounds is in every graph or in none, so that a text's vector is the same in every call.
        exact = [isinstance(pass_.effect, Exact) for pass_ in passes]
        for left_out, served in decisions(ran.steps, list(feeds), pays, exact).items():
            if not left_out:
                continue
            kept = [
                number
                for number, step in enumerate(ran.steps)
                if number not in left_out and step.status in {"applied", "no change"}
            ]
            name = title(served, made.graphs)
            without = " and ".join(names[number] for number in sorted(left_out))
            self.console.say(f"Making a second graph, {name}, without {without}")
            context = self.untimed(self.chosen)
            begin, done = self.points.before(min(left_out)), sum(number < min(left_out) for number in kept)
            if begin is None:
                rest: Sequence[Pass] = [passes[number] for number in kept]
                begin, rest = (start, rest) if start is self.work.plain else self.start(Pipeline(rest))
                done = len(kept) - len(rest)
            again = Pipeline(passes[number] for number in kept[done:]).run(begin, context)
            if again.ok:
                made.graphs[name] = again.program
                before = [number for number in kept[:done] if number in ran.applied]
                made.made_of[name] = [*before, *(kept[done + number] for number in again.applied)]
                made.made_for.update(dict.fromkeys(served, name))
        return made

    def untimed(self, chosen: dict[Any, Any]) -> Context:
        """What passes get for a graph that others of the bundle were made before: data, and no clock."""
        context = replace(self.work.context(None), chosen=chosen, runtime=self.backend)
        if self.work.judging is None:
            return context
        score = self.evidence().score if self.work.judged else None
        judging = self.work.judging
        return replace(context, calibration=judging.calibration, training=judging.training, score=score)

    def runner(self, program: Program) -> Runner:
        return self.work.backend.build(program, threads=self.work.threads).run

    def finished(self, candidate: Candidate, met: bool | None) -> Build:
        """Which graph serves which workload, and the graphs that serve any, the default first.

        The un-rewritten export is a candidate too: where nothing beats it, it is what runs. Not where the
        vocabulary was pruned: a bundle has one tokenizer. Nor where a memory was gained, or a person's
        pipeline makes it smaller.
        """
        graphs, plain = dict(candidate.graphs), self.work.plain
        smaller = self.config.pipeline is not None and spares_weights(candidate.steps)
        alike = [(each.tokenizer, each.outputs) for each in (graphs[DEFAULT], plain)]
        if alike[0] == alike[1] and not smaller:
            graphs[EXPORT] = plain
            shared = [n for n in candidate.made_of[DEFAULT] if candidate.steps[n] in self.work.lowering]
            scores = {EXPORT: self.work.reference} if self.work.judged else {}
            candidate = replace(
                candidate,
                made_of={**candidate.made_of, EXPORT: shared},
                scores={**candidate.scores, **scores},
            )
        if not self.timed:
            graphs = {DEFAULT: candidate.graphs[DEFAULT]}
        known: dict[tuple[str, str, str], Ratio] = {}

        def faster(workload: str, a: str, b: str) -> Ratio:
            if EXPORT not in (a, b) and not self.work.effort.gates:
                return Ratio(
                    1, 1, 1
                )  # what was made for a workload is trusted, as far as it beats the export
            if (workload, a, b) not in known:
                # Asked whether b is slower than a: to be chosen, a has to be faster beyond noise.
                ratio = self.measurer(graphs[a], graphs[b], only=workload, whether=True)[workload]
                known[workload, b, a] = Ratio(ratio.median, ratio.low, ratio.high)
                known[workload, a, b] = Ratio(1 / ratio.median, 1 / ratio.high, 1 / ratio.low)
            return known[workload, a, b]

        names = [workload.name for workload in self.work.workloads]
        made_for = candidate.made_for if self.timed else None
        chosen = choose(names, list(graphs), faster, made_for)
        rounds = any(each.step.status == "applied" and not isinstance(each.step.effect, Exact)
                     for each in candidate.steps)  # fmt: skip
        if rounds and EXPORT in chosen.values() and set(chosen.values()) != {EXPORT}:
            # One call in float and the next in int8 would give a text two vectors: all in one or the other.
            chosen = choose(names, [name for name in graphs if name != EXPORT], faster, made_for)
            if math.prod(faster(name, EXPORT, chosen[name]).median for name in names) > 1:
                chosen = dict.fromkeys(names, EXPORT)
        used = {name: graphs[name] for name in graphs if name in chosen.values()}
        variants = tuple(Variant(name, graph) for name, graph in used.items())
        self.measurer.close()
        self.work.notes += [self.measurer.loud] if self.measurer.loud else []
        candidate, met = self.kept(candidate, list(used), met)
        return Build(self.backend, candidate, met, variants, chosen, used)

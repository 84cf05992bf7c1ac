"""What is foretold of structures, from the latency table and the losses that `prune-to-latency` measures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ...ir.errors import GraphwrightError
from ...passes.common.batches import batches
from ...passes.common.to_budget import cheapest
from ...passes.prune.prune_structure import CHOICES, PruneStructure, blocks
from ...passes.prune.timing.search import Search
from ..build.kept import building
from ..build.work import Work
from .goal import Goal
from .making import Candidate
from .space import Choices
from .tried import Tried

PASS = PruneStructure.name
SLOWER, WORSE = 0.02, 1.25  # of the time, and times the loss: more than a forecast is off by
SPEEDUPS = (1.5, 2.0, 3.0, 4.0, 6.0, 8.0)  # of the structures that are tried first


@dataclass(frozen=True)
class Forecast:
    """saved: of a call's time, as a share. lost: at the outputs."""

    saved: float
    lost: float


class Structures:
    """Forecasts for candidates of `prune-structure`.

    The table and the losses are measured when the first one is asked for, the table once a machine.
    """

    def __init__(self, work: Work, goal: Goal) -> None:
        self._work = work
        wanted = [one.workload for one in goal.minimise if one.workload]
        self._workload = wanted[0] if wanted else ""
        self._search: Search | None = None
        self._failed = False

    def first(self) -> list[tuple[int, ...]]:
        """What each block keeps in the structures that lose least for some speed-ups."""
        search = self._measured()
        if search is None:
            return []
        found = (cheapest(search.lost, search.times, 1 - 1 / speedup) for speedup in SPEEDUPS)
        return list(dict.fromkeys(kept for kept in found if kept is not None))

    def hopeless(self, candidate: Candidate, known: Sequence[Tried]) -> str:
        """Why a structure need not be built: one that differs in nothing else is foretold to be faster and
        to lose less. "" where none is."""
        mine, kept = _parted(candidate.choices)
        if not kept:
            return ""
        rivals = [
            (each, rival)
            for each in known
            if each.state in ("complete", "pruned") and each.pipeline
            for other, rival in [_parted(_of_pipeline(each.choices, candidate.choices))]
            if other == mine and rival and each.runtime == candidate.runtime
        ]
        own = self.forecast(kept) if rivals else None
        if own is None:
            return ""
        for each, rival in rivals:
            foretold = self.forecast(rival)
            if foretold and foretold.saved > own.saved + SLOWER and WORSE * foretold.lost < own.lost:
                return f"it is foretold to be slower than trial {each.number} and to lose more"
        return ""

    def forecast(self, kept: tuple[int, ...]) -> Forecast | None:
        """Of what each block keeps; None where nothing could be measured."""
        search = self._measured()
        if search is None or len(kept) != len(search.times):
            return None
        try:
            saved = sum(row[one] for row, one in zip(search.times, kept, strict=True))
            lost = sum(row[one] for row, one in zip(search.lost, kept, strict=True))
        except KeyError:  # a file of --space names numbers of its own
            return None
        return Forecast(saved, lost)

    def _measured(self) -> Search | None:
        if self._search is None and not self._failed:
            try:
                self._search = self._look()
            except GraphwrightError as error:
                self._failed = True
                self._work.console.say(f"nothing is foretold of structures: {error}")
        return self._search

    def _look(self) -> Search:
        work = self._work
        program, found = blocks(work.program)
        with building("onnxruntime", work) as made:
            context = replace(work.context(made.evidence()), runtime="onnxruntime")
            one = PruneStructure()
            feeds = batches(program, context.training or context.calibration, one.tokens, context.seed)
            return Search(
                program,
                found,
                feeds,
                context,
                method="zip",
                workload=self._workload,
                choices=CHOICES,
                damping=one.damping,
            )


def _parted(choices: Choices) -> tuple[Mapping[str, object], tuple[int, ...]]:
    """What else was chosen, and what each block keeps."""
    prefix = f"{PASS}.keep."
    kept = {name: value for name, value in choices.items() if name.startswith(prefix)}
    rest = {name: value for name, value in choices.items() if name not in kept}
    return rest, tuple(int(kept[f"{prefix}{number}"]) for number in range(len(kept)))


def _of_pipeline(choices: Choices, like: Choices) -> Choices:
    """Of a trial's choices, those that a candidate's pipeline depends on."""
    return {name: value for name, value in choices.items() if name in like}

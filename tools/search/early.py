"""What tells early that a trial is hopeless: a short recovery before a long one, quality before time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import takewhile
from typing import ClassVar

from ...passes.manager.contract import Pass
from ...passes.manager.pipeline import Pipeline
from ...passes.recover.training.recovery import Recovery
from ..build.building import Building
from ..build.work import Work
from .goal import Goal
from .tried import Tried

SHORT = 100  # steps of the short recovery
LONG = 4 * SHORT  # from so many steps on, a short one goes before
SEEN = 3  # trials that recovered, before what recovery gains is taken as known
ROOM = 1.5  # of the most that any of them gained


class Early:
    """Points lost before the costly part of a trial, where the goal limits them."""

    KEY: ClassVar[str] = "early drop"

    def __init__(self, goal: Goal) -> None:
        self._most = next((one.most for one in goal.limits if one.of.metric == "drop"), None)

    def drop(self, made: Building, work: Work, pipeline: Pipeline) -> float | None:
        """Points lost after a short recovery, on the rows that tune; None where there is no long one."""
        first: list[Pass] = list(takewhile(lambda each: each.name != "to-onnx", pipeline.passes))
        long = [each for each in first if isinstance(each, Recovery) and each.steps >= LONG]
        if self._most is None or not long or work.judged is None:
            return None
        short = [replace(each, steps=SHORT) if each in long else each for each in first]
        evidence = made.evidence()
        context = replace(work.context(evidence), chosen={}, runtime=made.backend)
        ran = Pipeline(short).run(work.program, context, instruments=[evidence])
        for step in ran.steps:
            if step.error is not None:
                raise step.error
        return evidence.judged(ran.program).drop_from(evidence.judged(work.program))

    def hopeless(self, drop: float, known: Sequence[Tried]) -> str:
        """Why no recovery gets from there to the goal, by what others gained; "" where one may."""
        assert self._most is not None
        gains = [
            each.values[self.KEY] - each.values["drop"]
            for each in known
            if each.state == "complete" and self.KEY in each.values
        ]
        if len(gains) < SEEN or drop - ROOM * max(0.0, *gains) <= self._most:
            return ""
        return (
            f"{drop:.1f} points are lost after {SHORT} steps, and the rest of the steps has won back "
            f"{max(gains):.1f} at most"
        )

    def lost(self, drop: float) -> str:
        """Why its time need not be measured; "" where it may be worth it."""
        if self._most is None or drop <= self._most + max(1.0, abs(self._most)):
            return ""
        return f"{drop:.1f} points are lost, and {self._most:g} may be"

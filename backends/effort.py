"""How much is measured: what decides a build, or a first look at one."""

from __future__ import annotations

from dataclasses import dataclass

TURNED, STARTED = 1.3, 1.0  # of a turn: its warm-up beside it; seconds for a contestant's process to start


@dataclass(frozen=True)
class Effort:
    """turn: seconds of timed calls that a turn aims at, where two programs are timed for a decision; seconds:
    after which their ratio is taken as it stands; fewest: rounds, least: calls a turn, at any rate. rounds,
    runs, limit: of the comparison at the end, its timed calls a turn, and the seconds after which these end.
    eager: whether PyTorch takes part in that comparison, which loads it once more."""

    turn: float = 0.25
    seconds: float = 4.0
    fewest: int = 3
    least: int = 2
    rounds: int = 7
    runs: int = 4
    limit: float = 1.0
    eager: bool = True

    def estimate(self, decisions: int, contestants: int, calls: list[float]) -> float:
        """Seconds that measuring takes, about.

        Args:
            decisions: passes that are kept only where they pay, each timed against what was before it.
            contestants: of the final comparison.
            calls: seconds of one call of each workload.
        """
        decided = sum(
            self.fewest * 2 * TURNED * max(self.turn, self.least * call) + STARTED / len(calls)
            for call in calls
        )
        turns = sum(min(self.limit, self.runs * call) + 2 * call for call in calls)
        return decisions * decided + contestants * (self.rounds * turns + STARTED)


THOROUGH = Effort()
QUICK = Effort(turn=0.03, seconds=0.3, fewest=2, least=1, rounds=3, runs=3, limit=0.1, eager=False)

"""How much is measured: what decides a build, or a first look at one."""

from __future__ import annotations

from dataclasses import dataclass

# When a process takes its turn, the scheduler needs some hundredths of a second to give each thread a core of
# its own again: until then calls of a few milliseconds take up to twice their time.
SETTLE, LEAST = 0.03, 0.1  # seconds before a turn's timed calls, and of these, where a turn's runs end sooner
STARTED = 1.0  # seconds for a contestant's process to start


@dataclass(frozen=True)
class Effort:
    """turn: seconds of timed calls that a turn aims at, where two programs are timed for a decision; seconds:
    after which their ratio is taken as it stands; fewest: rounds, least: calls a turn, at any rate. warm:
    calls before the first timed one. rounds, runs, limit: of the comparison at the end, its timed calls a
    turn, and the seconds after which these end. gates: whether passes are timed one by one, and left out of
    what they slow down; else the graph that all of them made is held against the un-rewritten export alone.
    eager: whether PyTorch takes part in the comparison, which loads it once more."""

    turn: float = LEAST
    seconds: float = 4.0
    fewest: int = 3
    least: int = 1
    warm: int = 2
    rounds: int = 7
    runs: int = 2
    limit: float = 1.0
    gates: bool = True
    eager: bool = True

    def estimate(self, decisions: int, contestants: int, calls: list[float]) -> float:
        """Seconds that measuring takes, about.

        Args:
            decisions: times that two programs are held against each other, at each workload.
            contestants: of the final comparison.
            calls: seconds of one call of each workload.
        """
        began = sum(self.warm * call for call in calls) + STARTED  # a process, until its calls are warm
        decided = sum(SETTLE + max(self.turn, self.least * call) for call in calls)
        turns = sum(SETTLE + max(min(LEAST, self.limit), self.runs * call) for call in calls)
        each = began + self.fewest * 2 * decided
        return decisions * each + contestants * (began + self.rounds * turns)


THOROUGH = Effort()
SEARCH = Effort(seconds=2.0, gates=False, eager=False)  # of each of many candidates
QUICK = Effort(0.0125, 0.3, fewest=2, least=1, warm=1, rounds=3, runs=1, limit=0.05, gates=False, eager=False)

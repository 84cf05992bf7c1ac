"""Trials a second with one Ray worker and with two on this machine, measuring pretended.

    PYTHONPATH=.. python benchmarks/cluster.py [--trials 60] [--seconds 0.5]

Real `ray start` processes on loopback, real workers, study and decisions; a candidate's figures follow from
its choices after --seconds. Printed are trials a second, once workers have begun, and what two workers do
over one (at most 2). It takes about a minute and a half.
"""

import argparse
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

SUPPORT = Path(__file__).parents[1] / "tests" / "support"
sys.path.insert(0, str(SUPPORT))

from graphwright.tools.search.cluster.joined import RESOURCE, joined  # noqa: E402
from graphwright.tools.search.cluster.machines import here  # noqa: E402
from graphwright.tools.search.cluster.workers import Cluster  # noqa: E402
from pretend_cluster import WIDE, Noted  # noqa: E402
from pretend_search import GOAL, record, run  # noqa: E402
from ray_nodes import nodes  # noqa: E402


def rate(count: int, trials: int, seconds: float) -> float:
    """Made trials a second."""
    resources = [{RESOURCE + here().model: 1}] * count
    with tempfile.TemporaryDirectory() as folder, nodes(*resources, paths=[SUPPORT]):
        with joined(), Cluster(partial(Noted, folder, seconds), GOAL) as cluster:
            search = Path(folder, "search")
            run(search, cluster.ahead, space=WIDE, workers=lambda evaluate: cluster)  # workers begin
            began = time.monotonic()
            run(search, trials, space=WIDE, workers=lambda evaluate: cluster, resume=True)
            took = time.monotonic() - began
        found = record(search)[0][cluster.ahead :]
    made = sum(one["state"] in ("complete", "pruned") for one in found)
    print(f"{count} workers: {made} trials of {seconds} s made in {took:.1f} s", flush=True)
    return made / took


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--seconds", type=float, default=0.5)
    args = parser.parse_args()
    one, two = (rate(count, args.trials, args.seconds) for count in (1, 2))
    print(f"one: {one:.2f} trials a second, two: {two:.2f}, {two / one:.2f}x")


if __name__ == "__main__":
    main()

"""How long `optimize` takes before it does anything, in turn with a Python that does nothing.

python benchmarks/startup.py [--rounds N]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "optimize --help": [str(Path(sys.executable).with_name("optimize")), "--help"],
    "optimize passes": [str(Path(sys.executable).with_name("optimize")), "passes"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for turn in range(rounds + 1):
        for name, command in COMMANDS.items():
            began = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            if turn:  # the first warms the file cache
                seconds[name].append(time.perf_counter() - began)
    for name, each in seconds.items():
        low, middle, high = statistics.quantiles(each, n=4)
        print(f"{name:16} {middle:.3f} s [{low:.3f}, {high:.3f}]")


if __name__ == "__main__":
    main()

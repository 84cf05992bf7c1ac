"""Tiles of the library's kernels for shapes that many models have, searched on this machine.

    python benchmarks/tiles.py

takes some minutes on an idle machine and writes backends/tvm/tune/tiles.jsonl, which is shipped: the tiles
that are faster than the analytic choice. Lines of other processors stay as they are.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

from graphwright.backends.target import detect
from graphwright.backends.tvm.tune import tiles
from graphwright.backends.tvm.tune.jsonl import read_lines
from graphwright.backends.tvm.tune.tunable import Question, tune_tiles
from graphwright.backends.tvm.tune.tunables import DENSE

ROWS = (128, 1024, 2048)  # a build asks for the tokens of its largest bucket
WEIGHTS = [
    (hidden * deep, hidden * wide)
    for hidden in (384, 768, 1024)
    for deep, wide in ((1, 1), (1, 3), (1, 4), (4, 1))  # attention's output, q/k/v together, feed-forward
]


def main() -> None:
    target = detect()
    questions = [
        Question(DENSE, (rows, k, n), dtype, target)
        for rows in ROWS
        for k, n in WEIGHTS
        for dtype in ("float32", "int8")
    ]
    shipped = tiles.SHIPPED
    others = [line for line in read_lines(shipped) if line["cpu"] != tiles.cpu(target)]
    with tempfile.TemporaryDirectory() as folder:
        os.environ["GRAPHWRIGHT_CACHE"] = folder
        tiles.SHIPPED = Path(folder, "none")  # or what is shipped would count as searched
        for question, gain in tune_tiles(questions):
            print(f"{question}: {gain:.2f}", file=sys.stderr, flush=True)
        found = [line for line in read_lines(tiles.own_file()) if line["ratio"] > 1]
    text = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in [*others, *found])
    shipped.write_text(text)


if __name__ == "__main__":
    main()

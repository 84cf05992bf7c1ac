"""How large the page of a search of many trials is, and how soon a person can use it, in headless Chromium.

python benchmarks/reports.py [--trials 500] [--rounds N]      (Chromium: python tests/support/browser.py)

Used means: every plot is drawn, and the pointer over a point of the front gets its answer.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path

from graphwright.tools.reports.searched import searched
from graphwright.tools.search.front import front
from graphwright.tools.search.goal import goal
from graphwright.tools.search.kept import Kept
from graphwright.tools.search.tried import Tried

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))


def record(folder: Path, count: int) -> dict:
    """What a search of so many trials writes."""
    draw, known = random.Random(0), []
    for number in range(count):
        size = draw.uniform(3, 90)
        values = {
            "latency@1x128": size * draw.uniform(0.02, 0.4),
            "size": size,
            "drop": draw.uniform(0, 40) / size,
        }
        pipeline = (
            f"prune-heads{{keep={number % 12 + 1}}},prune-ffn{{keep={draw.random():.3f}}},"
            f"distill{{steps={number}}},to-onnx,fold-constants,eliminate-identities,fuse-attention,remove-padding,quantize-static"
        )
        choices = {f"layer {layer}": draw.randint(1, 12) for layer in range(12)}
        known.append(Tried(number, "complete", choices, pipeline, "onnxruntime", values, "", 30.0))
    wanted = goal("latency<=5ms@1x128, drop<=1", "latency@1x128,size")
    facts = {"model": "minilm", "baseline": {"latency@1x128": 30.0, "size": 90.0, "drop": 0.0}, "notes": []}
    return Kept(folder, wanted, facts).record(known, front(known, wanted))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=7)
    told = parser.parse_args()
    from browser import browser, opened

    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder, "report.html")
        page.write_text(searched(record(Path(folder), told.trials)), encoding="utf-8")
        seconds = []
        with browser() as chromium:
            for turn in range(told.rounds + 1):
                began = time.perf_counter()
                with opened(chromium, page) as (shown, wrong):
                    shown.hover("#plot0 svg .mark-symbol.role-mark path >> nth=0", force=True)
                    shown.wait_for_selector("#vg-tooltip-element.visible")
                    if turn:  # the first starts the browser's processes
                        seconds.append(time.perf_counter() - began)
                    assert not wrong, wrong
        low, middle, high = statistics.quantiles(seconds, n=4)
        size = page.stat().st_size / 1e6
        print(f"{told.trials} trials: {size:.2f} MB, used after {middle:.2f} s [{low:.2f}, {high:.2f}]")


if __name__ == "__main__":
    main()

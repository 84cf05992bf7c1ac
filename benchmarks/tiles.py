"""Searches tiles for the products of common encoders on this machine and adds them to those that are shipped.

    python benchmarks/tiles.py [--rows 128,1024,2048] [--hidden 384,768]

Products of layers of these hidden sizes (merged q/k/v, output, and a feed-forward of four times the width),
in float32 and int8, on all cores. What is faster than the analytic choice is added. Run it on a machine that
does nothing else.
"""

import argparse
import os
import tempfile

from graphwright.backends.target import detect


def numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=numbers, default=[128, 1024, 2048])
    parser.add_argument("--hidden", type=numbers, default=[384, 768])
    args = parser.parse_args()
    target = detect()
    os.environ["TVM_NUM_THREADS"] = str(target.cores)  # read when tvm starts its threads
    from graphwright.backends.tvm import tiles, tunables
    from graphwright.backends.tvm.jsonl import append_lines, read_lines
    from graphwright.backends.tvm.tunable import asked, tune_tiles

    with asked() as questions:
        for hidden in args.hidden:
            for k, n in ((hidden, 3 * hidden), (hidden, hidden), (hidden, 4 * hidden), (4 * hidden, hidden)):
                for rows in args.rows:
                    tunables.dense_tile(rows, k, n, "float32", target)
                    tunables.dense_tile(rows, k, n, "int8", target)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["GRAPHWRIGHT_CACHE"] = folder
        for question, gain in tune_tiles(questions):
            print(f"{question}: {gain:.2f}x the analytic tile", flush=True)
        append_lines(tiles.SHIPPED, [line for line in read_lines(tiles.own_file()) if line["ratio"] > 1])


if __name__ == "__main__":
    main()

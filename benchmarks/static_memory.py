"""Peak memory of static calibration against the number of samples.

    python benchmarks/static_memory.py --calibrate ../shared/data/stsb/train.csv [--ranges mse]
        [--samples 64,1024] [--json FILE]

Every linear layer's input of all-MiniLM-L6-v2 is calibrated by `quantize-static` in a process of its own for
each number of samples, batches of 32 x 128 tokens all alike; the peak is that process's largest resident size
(interpreter and runtime included). The target: the largest within 10% of the smallest.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from graphwright.tools.verbs.demo import model_directory
from rich.console import Console
from rich.table import Table
from sentences import export, feeds, spread


def calibrated(plain: Path, texts: Path, samples: int, ranges: str) -> int:
    """Bytes at the peak of this process, which should have done nothing else."""
    from graphwright.ir.capture import capture
    from graphwright.passes.manager.contract import Context
    from graphwright.passes.quantize.quantize_static import QuantizeStatic

    program = capture(plain)
    given = list(feeds(model_directory(), spread(texts, samples), length=128))
    context = Context(calibration=given)
    result = QuantizeStatic(ranges=ranges, min_cosine=0.0).run(program, context)
    assert result.statistics["products in int8"] == 36
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--calibrate", type=Path, required=True)
    parser.add_argument("--ranges", default="mse")
    parser.add_argument("--samples", default="64,1024")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(calibrated(Path(args.child[0]), args.calibrate, int(args.child[1]), args.ranges))
        return
    peaks: dict[int, int] = {}
    with tempfile.TemporaryDirectory(prefix="graphwright-static-memory-") as folder:
        plain = Path(folder, "plain.onnx")
        export(model_directory(), plain)
        for samples in map(int, args.samples.split(",")):
            command = [sys.executable, __file__, "--calibrate", str(args.calibrate), "--ranges", args.ranges]
            done = subprocess.run(
                [*command, "--child", str(plain), str(samples)], check=True, capture_output=True, text=True
            )
            peaks[samples] = int(done.stdout.split()[-1])
    table = Table("samples", "peak MB", "over the first", title=f"calibration, ranges={args.ranges}")
    first = next(iter(peaks.values()))
    for samples, peak in peaks.items():
        table.add_row(str(samples), f"{peak / 1e6:.0f}", f"{peak / first:.3f}")
    Console().print(table)
    if args.json:
        args.json.write_text(json.dumps({"ranges": args.ranges, "peak_bytes": peaks}))


if __name__ == "__main__":
    main()

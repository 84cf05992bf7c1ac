"""What compiled sizes of all-MiniLM-L6-v2 cost: seconds to compile, bytes on disk and in memory, and a call's
own share beside its functions.

    python benchmarks/tvm_buckets.py [--shapes 1x16,1x128,8x128,32x64,1x256] [--threads 2]

Builds the plain export (canonical passes only) at the largest shape alone and at all of them. Memory is the
resident size of a fresh process that has loaded the bundle and run every shape of it three times. The
overhead is of a function that does next to nothing: what `run` takes for two inputs of 1x4, checks, hand-over
between threads, padding and results included.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from graphwright.backends.target import detect
from graphwright.backends.tvm.backend import Tvm
from graphwright.ir.capture import capture
from graphwright.passes.manager.contract import Context
from graphwright.tools.build.presets import chain
from graphwright.tools.verbs.demo import model_directory

CALLS = 3000
RUN = """
import sys
import numpy as np
import graphwright as gw
bundle = gw.load(sys.argv[1])
for shape in sys.argv[2].split(","):
    ids = np.ones(tuple(map(int, shape.split("x"))), np.int64)
    for _ in range(3):
        bundle.run({spec.name: ids for spec in bundle.inputs})
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmRSS")))
"""
SMALL = """<ir_version: 9, opset_import: ["" : 18]>
add (int64[batch,length] ids, int64[batch,length] mask) => (int64[batch,length] y) { y = Add (ids, mask) }"""


def built(program, shapes, threads, folder):
    """(seconds to build, bundle) at the given shapes."""
    buckets = [dict(zip(("batch", "length"), map(int, shape.split("x")), strict=True)) for shape in shapes]
    start = time.perf_counter()
    artifact = Tvm().build(program, threads=threads, buckets=buckets)
    seconds = time.perf_counter() - start
    artifact.save(folder)
    return seconds, folder


def resident(folder, shapes):
    line = [sys.executable, "-P", "-c", RUN, str(folder), ",".join(shapes)]
    return int(subprocess.run(line, capture_output=True, text=True, check=True).stdout) / 1024


def overhead(folder, threads):
    """Median microseconds of a call of a program that adds two numbers a token."""
    path = folder / "add.onnx"
    import onnx

    onnx.save(onnx.parser.parse_model(SMALL), path)
    artifact = Tvm().build(capture(str(path)), threads=threads, buckets=[{"batch": 1, "length": 4}])
    feed = {name: np.ones((1, 4), np.int64) for name in artifact.input_names}
    taken = []
    for _ in range(CALLS):
        start = time.perf_counter()
        artifact.run(feed)
        taken.append(time.perf_counter() - start)
    return 1e6 * float(np.median(taken))


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shapes", default="1x16,1x128,8x128,32x64,1x256")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    shapes = options.shapes.split(",")
    largest = max(shapes, key=lambda shape: np.prod([int(n) for n in shape.split("x")]))
    captured = capture(str(model_directory()))
    program = chain("exact", captured, "tvm")[0].run(captured, Context(target=detect())).program
    with tempfile.TemporaryDirectory() as scratch:
        for name, chosen in ((largest, [largest]), ("all", shapes)):
            seconds, folder = built(program, chosen, options.threads, Path(scratch, name))
            disk = sum(file.stat().st_size for file in folder.glob("model.*")) / 1e6
            print(
                f"{name}: {seconds:.1f} s, {disk:.1f} MB on disk, {resident(folder, chosen):.0f} MiB resident"
            )
        print(f"overhead of a call: {overhead(Path(scratch), options.threads):.0f} us")


if __name__ == "__main__":
    main()

"""What a call costs around the graph: from Python, and from C by the runner.

    python benchmarks/runner.py [--rounds 31] [--calls 2000] [--shape 1x16] [--json FILE]

The graph is next to nothing: a lookup, a masked mean, a product of 16 x 16. Both make the same calls of one
bundle with two graphs, on one thread, in turn (ABAB), in a process each; the ratio is that of each round.
"""

import argparse
import json
import subprocess
import tempfile
import time
from pathlib import Path
from statistics import median, quantiles

import numpy as np
import onnx
import onnx_ir
from graphwright.backends.bundles.bundle import Route, Variant, write
from graphwright.backends.runners.build import build
from graphwright.backends.running.runner import load
from graphwright.ir.program import Program
from graphwright.ir.spec import InputSpec
from rich.console import Console
from rich.table import Table

BOUND = 0.5  # of Python's time, at most
VOCABULARY = 40
GRAPH = """<ir_version: 9, opset_import: ["" : 18]>
encoder (int64[batch,length] input_ids, int64[batch,length] attention_mask) => (float[batch,16] embedding) {
    words = Gather (table, input_ids)
    mask = Cast <to=1> (attention_mask)
    axis = Constant <value_ints=[2]> ()
    column = Unsqueeze (mask, axis)
    kept = Mul (words, column)
    along = Constant <value_ints=[1]> ()
    mean = ReduceMean <keepdims=0> (kept, along)
    embedding = MatMul (mean, dense)
}"""


def program(seed):
    draw = np.random.default_rng(seed)
    proto = onnx.parser.parse_model(GRAPH)
    for name, rows in (("table", VOCABULARY), ("dense", 16)):
        array = draw.standard_normal((rows, 16)).astype(np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    inputs = (
        InputSpec("input_ids", "int64", ("batch", "length"), "token_ids", VOCABULARY),
        InputSpec("attention_mask", "int64", ("batch", "length"), "attention_mask"),
    )
    bounds = {"batch": (1, 4096), "length": (1, 4096)}
    return Program(onnx_ir.from_proto(proto), "onnx", inputs, ("embedding",), "embedding", bounds)


def bundle(folder):
    """Two graphs, so that each call is routed."""
    variants = [Variant(name, program(seed)) for seed, name in enumerate(("small", "large"))]
    return write(
        folder,
        variants,
        [Route("1x16", 1, 16, 0.0, "small"), Route("64x16", 64, 16, 0.5, "large")],
        threads=1,
    )


def python_calls(out, shape, calls):
    loaded, ones = load(out), np.ones(shape, np.int64)
    feed = dict.fromkeys(loaded.input_names, ones)

    def timed():
        start = time.perf_counter_ns()
        for _ in range(calls):
            loaded.run(feed)
        return time.perf_counter_ns() - start

    return timed


def c_calls(process, calls):
    def timed():
        process.stdin.write(f"{calls}\n")
        process.stdin.flush()
        return int(process.stdout.readline())

    return timed


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--calls", type=int, default=2000)
    parser.add_argument("--shape", default="1x16")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    shape = tuple(map(int, args.shape.split("x")))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        out, runner = bundle(folder / "bundle"), build(folder / "runner")
        source = Path(__file__).with_name("runner_calls.c")
        line = ["cc", "-O2", f"-I{runner}", source, "-o", runner / "calls", f"-L{runner}", "-lgraphwright"]
        subprocess.run([*line, "-Wl,-rpath,$ORIGIN"], check=True)
        words = [runner / "calls", out, *map(str, shape)]
        with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            timed = {"Python": python_calls(out, shape, args.calls), "C": c_calls(process, args.calls)}
            for each in timed.values():
                each()
            turns = [{who: each() for who, each in timed.items()} for _ in range(args.rounds)]
            process.stdin.close()
    ratios = [turn["C"] / turn["Python"] for turn in turns]
    low, _, high = quantiles(ratios, n=4)
    table = Table("", "microseconds a call", title=f"{args.shape}, median of {args.rounds} rounds")
    for who in timed:
        table.add_row(who, f"{median(turn[who] for turn in turns) / args.calls / 1000:.2f}")
    Console().print(
        table, f"C / Python: {median(ratios):.3f} [{low:.3f}, {high:.3f}], at most {BOUND} wanted"
    )
    if args.json:
        args.json.write_text(json.dumps({"shape": args.shape, "calls": args.calls, "turns": turns}, indent=1))


if __name__ == "__main__":
    main()

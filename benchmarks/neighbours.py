"""How far a text's vector moves with the call that it is in: all-MiniLM-L6-v2, every preset, both runtimes.

    python benchmarks/neighbours.py --sts ../shared/data/stsb/dev.csv [--texts 500]
        [--backends onnxruntime,tvm] [--presets exact,balanced,fast,small]
        [--old DIRECTORY] [--rounds 31] [--json FILE]

Builds what `optimize MODEL -o OUT --preset P --backend B` writes, and runs it through gw.load: each text
alone, in batches of 8 and of 32, and padded to 128 tokens. The figure is the worst cosine of a text's two
vectors. ONNX Runtime's own quantize_dynamic stands beside them.
--sts: csv of sentence, sentence, score without a header.
--old: a checkout of another commit, in a folder named graphwright: its `balanced` for ONNX Runtime is built
and asked by that checkout, and its graphs are timed in turn with ours, each workload on the graph that either
bundle runs it on; ratios are medians of rounds with quartiles.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import graphwright as gw
import numpy as np
from graphwright.backends.measuring.measure import compare
from graphwright.backends.measuring.workloads import workloads
from graphwright.tools.verbs.demo import model_directory
from rich.console import Console
from rich.table import Table
from sentences import Feed, embedded, export, feeds, rows, runner

SHAPES = "1x128,8x128,1x16,mixed:32"
WAYS = {"batches of 8": (8, None), "batches of 32": (32, None), "padded to 128": (1, 128)}


def build(model: Path, out: Path, preset: str, backend: str, checkout: Path | None = None) -> Path:
    """A bundle by the command that a user types, of this checkout or of another one."""
    command = [sys.executable, "-m", "graphwright.tools.cli", str(model), "-o", str(out)]
    command += ["--preset", preset, "--backend", backend, "--shapes", SHAPES]
    subprocess.run(command, check=True, env=environment(checkout, out.parent))
    return out


def environment(checkout: Path | None, scratch: Path) -> dict[str, str]:
    if checkout is None:
        return dict(os.environ)
    cache = str(scratch / "cache")
    return {**os.environ, "PYTHONPATH": str(checkout.parent), "GRAPHWRIGHT_CACHE": cache}


def graph_of(bundle: Path, workload: str) -> Path:
    """The graph that a bundle runs a workload on."""
    manifest = json.loads((bundle / "manifest.json").read_text())
    [row] = [row for row in manifest["dispatch"] if row["workload"] == workload] or [None]
    names = manifest["graphs"]
    return bundle / (names[row["graph"]] if row else next(iter(names.values())))


def worst(run: Callable[[Feed], np.ndarray], model: Path, texts: Sequence[str]) -> dict[str, float]:
    """The smallest cosine between a text's vector alone and in another call."""

    def vectors(batch: int, length: int | None) -> np.ndarray:
        calls = feeds(model, texts, batch, length)
        return np.concatenate([embedded(run(feed), feed).astype(np.float64) for feed in calls])

    alone, found = vectors(1, None), {}
    for way, (batch, length) in WAYS.items():
        other = vectors(batch, length)
        norms = np.linalg.norm(alone, axis=-1) * np.linalg.norm(other, axis=-1)
        found[way] = float(((alone * other).sum(-1) / norms).min())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sts", type=Path, required=True)
    parser.add_argument("--texts", type=int, default=500)
    parser.add_argument("--backends", default="onnxruntime,tvm")
    parser.add_argument("--presets", default="exact,balanced,fast,small")
    parser.add_argument("--old", type=Path)
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--ask", type=Path, help="only ask this bundle, and print JSON")
    args = parser.parse_args()
    model, console, record = model_directory(), Console(width=120), {"worst": {}}
    # Different texts, the first of each pair, in an order that mixes long and short ones.
    texts = list(dict.fromkeys(row[0] for row in rows(args.sts)))
    texts = [texts[n] for n in np.random.default_rng(0).permutation(len(texts))[: args.texts]]
    if args.ask:
        print(json.dumps(worst(runner(args.ask), model, texts)))
        return
    with tempfile.TemporaryDirectory(prefix="graphwright-neighbours-") as folder:
        scratch = Path(folder)
        found = {
            f"{preset}, {backend}": build(model, scratch / f"{preset}-{backend}", preset, backend)
            for backend in args.backends.split(",")
            for preset in args.presets.split(",")
        }
        export(model, scratch / "plain.onnx")
        from onnxruntime.quantization import quantize_dynamic

        quantize_dynamic(scratch / "plain.onnx", scratch / "theirs.onnx")
        found["ONNX Runtime quantize_dynamic"] = scratch / "theirs.onnx"
        table = Table("build", *(f"{way}: 1 - cosine" for way in WAYS), title=f"{len(texts)} texts, worst")
        for name, path in found.items():
            record["worst"][name] = worst(runner(path), model, texts)
        if args.old:
            (scratch / "old").mkdir()
            old = build(model, scratch / "old" / "balanced", "balanced", "onnxruntime", args.old.resolve())
            asking = [sys.executable, __file__, "--ask", old, "--sts", args.sts, "--texts", args.texts]
            there = environment(args.old.resolve(), scratch / "old")
            asked = subprocess.run([*map(str, asking)], check=True, env=there, stdout=subprocess.PIPE)
            record["worst"]["balanced, onnxruntime, --old"] = json.loads(asked.stdout)
        for name, moved in record["worst"].items():
            table.add_row(name, *(f"{1 - value:.1e}" for value in moved.values()))
        console.print(table)
        record["speed"] = {}
        for work in workloads(gw.trace(model), SHAPES.split(","), texts) if args.old else ():
            paths = {"old": old, "new": found["balanced, onnxruntime"]}
            field = {name: graph_of(path, work.name) for name, path in paths.items()}
            timed = compare(field, [work], threads=2, rounds=args.rounds)
            record["speed"][work.name] = timed.to_json()
            ratio = timed.cells["new"][work.name].speedup
            console.print(
                f"{work.name}: {ratio.median:.3f} times as fast [{ratio.low:.3f}, {ratio.high:.3f}]"
            )
    if args.json:
        args.json.write_text(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()

"""Products in bfloat16 beside float32 on TVM: dense kernels, all-MiniLM-L6-v2 whole, and what rounding costs.

    python benchmarks/bfloat16.py --sts ../shared/data/stsb/dev.csv [--only kernels,minilm,quality]
        [--rounds 15] [--threads 2] [--json FILE]

kernels: the shapes of compiled.py, each with a bias; rows come rounded, as the kernel before leaves them.
Also PyTorch's linear in bfloat16 (oneDNN). One process a contestant, in turn. minilm: up to the token
vectors, at 1x128, 8x128, 1x16 and mixed:32, with linear layers alone in bfloat16 and with attention too;
Spearman x 100 over --sts. quality: Spearman of the rewritten graphs in ONNX Runtime, which computes what they
say in float32, on any processor; of attention alone too.
"""

import argparse
import json
import tempfile
from functools import partial
from pathlib import Path
from statistics import median, quantiles

import compiled
import numpy as np
from graphwright.backends.measuring.workloads import workloads
from graphwright.backends.runtimes.onnxruntime import save_model
from graphwright.backends.target import detect
from graphwright.backends.tvm.kernels.machine import Machine
from graphwright.ir.capture import capture
from graphwright.passes.manager.pipeline import Pipeline
from graphwright.tools.verbs.demo import model_directory
from rich.console import Console
from rich.table import Table
from sentences import export, rows, score

PIPELINES = {
    "float32": compiled.CLEAN,
    "linear layers": f"{compiled.CLEAN},compute-bfloat16{{min_cosine=0.0,products=linear}}",
    "bfloat16": f"{compiled.CLEAN},compute-bfloat16{{min_cosine=0.0}}",
}
SHAPES = ["1x128", "8x128", "1x16", "mixed:32"]
BOUND = 1.5  # times as fast as float32, with AVX512-BF16 and without AMX


def torch_bfloat16(shape, threads):
    import torch

    torch.set_num_threads(threads)
    x, w, _, _ = compiled.operands(shape)
    x, w = (torch.from_numpy(each).bfloat16() for each in (x, w.T.copy()))
    return torch.inference_mode()(lambda: torch.nn.functional.linear(x, w))


MAKERS = {
    "torch bfloat16": torch_bfloat16,
    "float32": partial(compiled.ours, rows="float"),
    "bfloat16": partial(compiled.ours, rows="bfloat16"),
}
if compiled.AMX:
    MAKERS["bfloat16 in AMX"] = partial(compiled.ours, rows="bfloat16", amx=True)


def kernels(args, console):
    """GFLOP/s of each contestant, and bfloat16 against float32, per shape."""
    table = Table("m x k x n", *MAKERS, "bfloat16 / float32", title="dense, GFLOP/s")
    record = {}
    with compiled.asking(MAKERS, args.threads) as ask:
        for shape in compiled.SHAPES:
            turns = compiled.turns(ask, MAKERS, shape, args.rounds)
            work = 2 * np.prod(shape) / 1e9
            speed = {kind: work / median(turn[kind] for turn in turns) for kind in MAKERS}
            ratios = [turn["float32"] / turn["bfloat16"] for turn in turns]
            low, _, high = quantiles(ratios)
            name = "x".join(map(str, shape))
            cells = (f"{speed[kind]:.0f}" for kind in MAKERS)
            table.add_row(name, *cells, f"{median(ratios):.2f} [{low:.2f}, {high:.2f}]")
            record[name] = {"speed": speed, "ratios": ratios}
    console.print(table)
    middle = median(median(each["ratios"]) for each in record.values())
    console.print(f"in the middle {middle:.2f}x of float32; wanted {BOUND}x")
    return record


def minilm(args, console):
    model = model_directory()
    with tempfile.TemporaryDirectory(prefix="graphwright-bfloat16-") as folder:
        plain = Path(folder) / "plain.onnx"
        export(model, plain)
        texts = [row[0] for row in rows(args.sts)]
        work = workloads(capture(model), args.shapes, texts)
        sizes = [w.feed["input_ids"].shape for w in work]
        buckets = [{"batch": batch, "length": length} for batch, length in sizes]
        bundles = compiled.compiled(plain, PIPELINES, (), buckets, Path(folder), args.threads)
        quality = {name: score(path, model, args.sts) for name, path in bundles.items()}
        for name, value in quality.items():
            console.print(f"Spearman, {name}: {value:.2f}")
        groups = {"float32": ["float32"]}
        speed = compiled.speeds("MiniLM", bundles, work, args, console, groups, ["linear layers", "bfloat16"])
        return {"spearman": quality, "speed": speed}


def quality(args, console):
    """Spearman of each rewrite, in ONNX Runtime."""
    pipelines = PIPELINES | {
        "attention": f"{compiled.CLEAN},compute-bfloat16{{min_cosine=0.0,products=attention}}"
    }
    lowered, record = Pipeline.parse("to-onnx").run(capture(model_directory())).program_or_raise(), {}
    with tempfile.TemporaryDirectory() as folder:
        for name, text in pipelines.items():
            path = Path(folder, f"{name}.onnx")
            save_model(Pipeline.parse(text).run(lowered).program_or_raise(), path)
            record[name] = score(path, model_directory(), args.sts)
            console.print(f"Spearman in ONNX Runtime, {name}: {record[name]:.3f}")
    return record


PARTS = {"kernels": kernels, "minilm": minilm, "quality": quality}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sts", type=Path, required=True)
    parser.add_argument("--only", type=lambda text: text.split(","), default=list(PARTS))
    parser.add_argument("--shapes", type=lambda text: text.split(","), default=SHAPES)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    console = Console(width=140)
    console.print(f"{detect().model}: products by {Machine.of(detect(), args.threads).bfloat16}")
    record = {name: PARTS[name](args, console) for name in args.only}
    if args.json:
        args.json.write_text(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()

"""all-MiniLM-L6-v2 in codebooks and few-bit weights: bytes of the real model.onnx, and Spearman on STS pairs.

    python benchmarks/codebooks.py --calibrate ../shared/data/stsb/train.csv --sts ../shared/data/stsb/dev.csv

Each build is a pipeline (BUILDS, or --build NAME=PIPELINE) that ends in to-onnx and the canonical passes; it
learns from the texts of --calibrate alone, which may be given several times: no labels are read there. The
file is what onnx_ir writes, weights inside, and is scored through ONNX Runtime. --texts bounds the texts, and
--only picks builds by name.
"""

import argparse
import csv
import json
import tempfile
import time
from pathlib import Path

import graphwright as gw
import numpy as np
import onnx_ir
import onnxruntime
from graphwright.ir.inputs.text import TextEncoder
from graphwright.passes.manager.contract import Context
from graphwright.tools.judge.data import Row
from graphwright.tools.judge.quality import batches
from graphwright.tools.judge.records import records
from graphwright.tools.verbs.demo import model_directory
from rich.console import Console
from rich.table import Table
from scipy.stats import spearmanr

CANONICAL = "to-onnx,fold-constants,eliminate-common-subexpressions,eliminate-dead-code"
BUILDS = {
    "fp32": "",
    "product 2.3 bits": "quantize-product{block=3,embedding_block=4,steps=0,finish=0}",
    "product 2 bits": "quantize-product{block=4,steps=0,finish=0}",
    "product 1 bit": "quantize-product{block=8,steps=0,finish=0}",
    "product 1 bit, learned": "quantize-product{block=8}",
    "ternary": "quantize-ternary{steps=0}",
    "ternary, learned": "quantize-ternary",
    "binary": "quantize-binary{steps=0}",
    "binary, learned": "quantize-binary",
}


def texts(path: Path) -> list[str]:
    """Every text of a file: the cells of a csv or tsv, or the values of a jsonl, that hold several words."""
    found = []
    for _, record in records(path):
        cells = record.values() if isinstance(record, dict) else record
        found += [cell for cell in cells if isinstance(cell, str) and " " in cell.strip()]
    return found


def feeds(encoder: TextEncoder, chosen: list[str]) -> list[dict[str, np.ndarray]]:
    """Batches of 32 of like length."""
    rows = [Row(number, text) for number, text in enumerate(chosen, 1)]
    return [feed for _, feed in batches(rows, encoder)]


def score(path: Path, encoder: TextEncoder, sts: Path) -> float:
    """Spearman's rank correlation x 100 between cosine and gold over all pairs."""
    with open(sts, newline="", encoding="utf-8") as file:
        rows = [row for row in csv.reader(file) if len(row) >= 3]
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    sides = []
    for side in (0, 1):
        vectors = [
            session.run(None, encoder([row[side] for row in rows[start : start + 32]]))[0]
            for start in range(0, len(rows), 32)
        ]
        sides.append(np.concatenate(vectors))
    unit = [side / np.linalg.norm(side, axis=-1, keepdims=True) for side in sides]
    return float(100 * spearmanr((unit[0] * unit[1]).sum(1), [float(row[2]) for row in rows]).statistic)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--calibrate", type=Path, action="append", required=True)
    parser.add_argument("--sts", type=Path, required=True)
    parser.add_argument("--texts", type=int, default=20000)
    parser.add_argument("--only", nargs="+", default=None)
    parser.add_argument("--build", action="append", default=[], metavar="NAME=PIPELINE")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    builds = BUILDS | dict(build.split("=", 1) for build in args.build)
    program = gw.trace(model_directory())
    encoder = TextEncoder(program.tokenizer["tokenizer.json"], program.inputs, program.info, program.symbols)
    every = list(dict.fromkeys(text for path in args.calibrate for text in texts(path)))
    chosen = [every[i] for i in sorted(np.random.default_rng(0).permutation(len(every))[: args.texts])]
    context = Context(calibration=feeds(encoder, chosen))
    console, record = Console(width=150), {"texts": len(chosen)}
    table = Table("build", "pipeline", "model.onnx", "Spearman", "minutes", "cosine")
    with tempfile.TemporaryDirectory(prefix="graphwright-codebooks-") as folder:
        for name, pipeline in builds.items():
            if args.only and name not in args.only:
                continue
            start = time.perf_counter()
            run = gw.Pipeline.parse(f"{pipeline},{CANONICAL}".lstrip(",")).run(program, context, verify=False)
            minutes = (time.perf_counter() - start) / 60
            path = Path(folder) / "model.onnx"
            onnx_ir.save(run.program.graph, path)
            statistics = dict(run.steps[0].statistics)
            row = {
                "pipeline": pipeline,
                "bytes": path.stat().st_size,
                "spearman": score(path, encoder, args.sts),
                "minutes": minutes,
                "statistics": statistics,
            }
            record[name] = row
            mega, spearman = f"{row['bytes'] / 1e6:.2f} MB", f"{row['spearman']:.2f}"
            table.add_row(name, pipeline, mega, spearman, f"{minutes:.1f}", str(statistics.get("cosine", "")))
            console.print(f"{name}: {mega}, Spearman {spearman}, {statistics}")
            if args.json:
                args.json.write_text(json.dumps(record, indent=1))
    console.print(table)


if __name__ == "__main__":
    main()

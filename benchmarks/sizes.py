"""all-MiniLM-L6-v2 on disk: what each way of storing weights saves, and what it costs on STS pairs.

    python benchmarks/sizes.py --sts ../shared/data/stsb/dev.csv --calibrate ../shared/data/stsb/train.csv
        [--only TEXT] [--json FILE]

Every row is a pipeline run on the exported model (after the canonical passes), written as model.onnx and read
back by ONNX Runtime: bytes are those of the file, and the score is Spearman's correlation x 100 between the
cosine of two embeddings and the gold score, over all pairs of --sts. --calibrate: csv whose first two columns
are sentences; 256 pairs spread over it calibrate. --only: rows whose pipeline has this text in it. What the
file must stay under, and the points it may lose, are printed with the smallest file that keeps to them.
"""

import argparse
import csv
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import onnxruntime
from graphwright.backends.runtimes.onnxruntime import save_model
from graphwright.ir.capture import capture
from graphwright.ir.host.quiet import quiet
from graphwright.ir.program import Program
from graphwright.passes.manager.contract import Context
from graphwright.passes.manager.pipeline import Pipeline
from graphwright.tools.verbs.demo import model_directory
from rich.console import Console
from rich.table import Table
from scipy.stats import spearmanr
from tokenizers import Tokenizer

CANONICAL = "to-onnx,fold-constants,eliminate-identities,eliminate-common-subexpressions,eliminate-dead-code"
PIPELINES = (
    "quantize-dynamic{min_cosine=0.0},quantize-weights{bits=0,embeddings=8,group=128}",
    "quantize-dynamic{min_cosine=0.0},quantize-weights{bits=0,embeddings=4}",
    "quantize-weights{bits=8,group=128}",
    "quantize-weights{bits=8,embeddings=4}",
    *(f"quantize-weights{{bits=4,method={method}}}" for method in ("rtn", "hqq", "awq", "gptq")),
    *(f"quantize-weights{{bits=4,method={method},group=64}}" for method in ("rtn", "gptq")),
    "quantize-weights{bits=4,embeddings=3,method=gptq}",
    "quantize-weights{bits=3,embeddings=4,method=gptq}",
    *(f"quantize-weights{{bits=3,method={method}}}" for method in ("rtn", "hqq", "awq", "gptq")),
    "quantize-weights{bits=3,embeddings=2,method=gptq,group=64}",
    *(f"quantize-weights{{bits=2,method={method}}}" for method in ("rtn", "hqq", "awq", "gptq")),
    "quantize-weights{bits=2,method=gptq,group=64}",
    "quantize-weights{bits=2,embeddings=3,method=gptq}",
    "quantize-gobo",
    "quantize-gobo{bits=4,embeddings=3}",
    "quantize-gobo{bits=4}",
    "quantize-gobo{bits=2}",
)
GOALS = ((23e6, 0.5), (14e6, 1.0), (7e6, 3.0))  # bytes, points
INPUTS = ("input_ids", "attention_mask", "token_type_ids")


def sentences(path: Path) -> list[list[str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return [row for row in csv.reader(file) if len(row) >= 2]


def feeds(texts: list[str], size: int = 32) -> list[tuple[list[int], dict[str, np.ndarray]]]:
    """(which texts, arrays) in batches of like length."""
    tokenizer = Tokenizer.from_file(str(model_directory() / "tokenizer.json"))
    tokenizer.enable_truncation(256)
    tokenizer.enable_padding()
    order, found = sorted(range(len(texts)), key=lambda i: len(texts[i])), []
    for start in range(0, len(texts), size):
        chosen = order[start : start + size]
        batch = tokenizer.encode_batch([texts[i] for i in chosen])
        ids, mask = (np.array([getattr(one, key) for one in batch]) for key in ("ids", "attention_mask"))
        found.append((chosen, dict(zip(INPUTS, (ids, mask, np.zeros_like(ids)), strict=True))))
    return found


def score(path: Path, rows: list[list[str]]) -> float:
    """Spearman x 100 of a file over the pairs."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    texts = [row[side] for side in (0, 1) for row in rows]
    vectors: dict[int, np.ndarray] = {}
    for chosen, feed in feeds(texts):
        vectors.update(zip(chosen, session.run(None, feed)[0], strict=True))
    a, b = (np.stack([vectors[i + side * len(rows)] for i in range(len(rows))]) for side in (0, 1))
    return 100 * spearmanr((a * b).sum(1), [float(row[2]) for row in rows]).statistic


def built(program: Program, text: str, context: Context, path: Path) -> float:
    """Write what a pipeline makes of the program; the seconds it took."""
    start = time.perf_counter()
    run = Pipeline.parse(text).run(program, context, verify=False)
    for step in run.steps:
        if step.error is not None or step.status == "no change":
            raise SystemExit(f"{step.text}: {step.error or step.notes}")
    save_model(run.program, path)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sts", type=Path, required=True)
    parser.add_argument("--calibrate", type=Path, required=True)
    parser.add_argument("--only", default="")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    pairs = sentences(args.calibrate)
    chosen = [row[side] for row in pairs[:: max(1, len(pairs) // 256)][:256] for side in (0, 1)]
    context = Context(calibration=[feed for _, feed in feeds(chosen)])
    rows = sentences(args.sts)
    console, table = Console(width=130), Table("pipeline", "MB", "Spearman", "lost", "made in s")
    found = []
    with tempfile.TemporaryDirectory(prefix="graphwright-sizes-") as folder, quiet():
        path = Path(folder) / "model.onnx"
        program = Pipeline.parse(CANONICAL).run(capture(model_directory()), context, verify=False).program
        save_model(program, path)
        reference = score(path, rows)
        found.append({"pipeline": "fp32", "bytes": path.stat().st_size, "spearman": reference, "lost": 0.0})
        table.add_row("fp32", f"{path.stat().st_size / 1e6:.2f}", f"{reference:.2f}", "", "")
        for text in (text for text in PIPELINES if args.only in text):
            seconds = built(program, text, context, path)
            value, size = score(path, rows), path.stat().st_size
            found.append({"pipeline": text, "bytes": size, "spearman": value, "lost": reference - value})
            table.add_row(
                text, f"{size / 1e6:.2f}", f"{value:.2f}", f"{reference - value:+.2f}", f"{seconds:.0f}"
            )
            console.print(text, f"{size / 1e6:.2f} MB", f"{value:.2f}", f"{reference - value:+.2f}")
    console.print(table)
    for limit, points in GOALS:
        kept = [row for row in found if row["bytes"] <= limit and row["lost"] <= points]
        best = min(kept, key=lambda row: row["lost"], default=None)
        said = (
            "none"
            if best is None
            else f"{best['pipeline']}: {best['bytes'] / 1e6:.2f} MB, {best['lost']:+.2f}"
        )
        console.print(f"at most {limit / 1e6:.0f} MB and {points} points: {said}")
    if args.json:
        args.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()

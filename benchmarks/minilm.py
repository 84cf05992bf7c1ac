"""all-MiniLM-L6-v2: our bundles beside what a user would otherwise run, timed in turn, scored on STS pairs.

    python benchmarks/minilm.py --sts ../shared/data/stsb/dev.csv [--shapes 1x128,mixed:32] [--json FILE]

Contestants: PyTorch eager (the first: ratios are against it), torch.compile, plain ONNX Runtime on the dynamo
export at ORT's default (best) settings, ORT's own dynamic int8, ORT's transformer optimizer followed by its
dynamic int8 (on the TorchScript export, where that optimizer finds its patterns), and the bundles that
`optimize MODEL -o OUT --preset exact|balanced` writes. A second table has every ratio against plain ORT.
--sts: csv of sentence, sentence, score without a header.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import graphwright as gw
from graphwright.backends.measuring.measure import compare
from graphwright.backends.measuring.workloads import workloads
from graphwright.tools.verbs.demo import model_directory
from rich.console import Console
from rich.table import Table
from sentences import export, rows, score


def baselines(directory: Path, scratch: Path) -> dict[str, Path]:
    """What ONNX Runtime's own tools make of the model."""
    from onnxruntime.quantization import quantize_dynamic
    from onnxruntime.transformers.optimizer import optimize_model

    plain, old = scratch / "plain.onnx", scratch / "torchscript.onnx"
    export(directory, plain, old)
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
            texts = [row[0] for row in rows(args.sts)]
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

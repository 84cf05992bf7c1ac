"""Norms and activations of MobileBERT and MiniLM shapes, random weights: what each costs on both runtimes.

    python benchmarks/simplify.py [--models minilm,mobilebert] [--shapes 1x128] [--backends onnxruntime,tvm]
        [--rounds 11] [--threads 2] [--layers N] [--json FILE]

The four rows of MobileBERT's Table 5 (Sun et al., 2020, arXiv:2004.02984: 192, 167, 92 and 62 ms on a phone):
LayerNorm or NoNorm with GELU or ReLU, made from the first by `nonorm` and `replace-activation`; and the last
with its maps in the products beside them (`fold-affine`). All are lowered by the preset `exact`, and timed in
turn; ratios are against LayerNorm with GELU on the same runtime. --layers: fewer, to try the script.
"""

import argparse
import json
import tempfile
from pathlib import Path

from graphwright.backends.measuring.measure import compare
from graphwright.backends.measuring.workloads import workloads
from graphwright.backends.runtimes.onnxruntime import save_model
from graphwright.backends.target import detect
from graphwright.ir.capture import capture
from graphwright.ir.program import Program
from graphwright.passes.manager.contract import Context
from graphwright.passes.manager.pipeline import Pipeline
from graphwright.tools.build.presets import chain
from rich.console import Console
from rich.table import Table

NONORM, RELU = "nonorm{init=weights}", "replace-activation{from=gelu,to=relu}"
ROWS = {
    "LayerNorm + GELU": "",
    "LayerNorm + ReLU": RELU,
    "NoNorm + GELU": NONORM,
    "NoNorm + ReLU": f"{NONORM},{RELU}",
    "NoNorm + ReLU, folded": f"{NONORM},{RELU},fold-affine",
}
PHONE = {"LayerNorm + GELU": 192, "LayerNorm + ReLU": 167, "NoNorm + GELU": 92, "NoNorm + ReLU": 62}


def model(name: str, layers: int | None, folder: Path) -> Program:
    """LayerNorm and GELU in the shapes of a model, random weights."""
    import torch
    import transformers

    torch.manual_seed(0)
    if name == "minilm":
        sizes = {"hidden_size": 384, "num_attention_heads": 12, "intermediate_size": 1536}
        config = transformers.BertConfig(num_hidden_layers=layers or 6, hidden_act="gelu", **sizes)
        module = transformers.BertModel(config, add_pooling_layer=False)
    else:
        kinds = {"normalization_type": "layer_norm", "hidden_act": "gelu"}
        config = transformers.MobileBertConfig(num_hidden_layers=layers or 24, **kinds)
        module = transformers.MobileBertModel(config, add_pooling_layer=False)
    module.eval().save_pretrained(folder)
    return capture(folder)


def lowered(program: Program, text: str, backend: str) -> Program:
    rewritten = Pipeline.parse(text).run(program, Context()) if text else None
    before = rewritten.program_or_raise() if rewritten is not None else program
    made = chain("exact", before, backend)[0].run(before, Context(target=detect()))
    return made.program_or_raise()


def build(program: Program, backend: str, path: Path, shapes: str, threads: int) -> Path:
    if backend == "onnxruntime":
        save_model(program, path.with_suffix(".onnx"))
        return path.with_suffix(".onnx")
    from graphwright.backends.tvm.backend import Tvm
    from graphwright.backends.tvm.build.padding import padding_of
    from graphwright.backends.tvm.run.artifact import write_compiled

    sizes = [dict(zip(("batch", "length"), map(int, s.split("x")), strict=True)) for s in shapes.split(",")]
    made = Tvm().build(program, detect(), threads, buckets=sizes, padding=padding_of(program))
    write_compiled(path, made, force=True)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", default="minilm,mobilebert")
    parser.add_argument("--shapes", default="1x128")
    parser.add_argument("--backends", default="onnxruntime,tvm")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--layers", type=int)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    found: dict[str, dict] = {}
    for name in args.models.split(","):
        with tempfile.TemporaryDirectory(prefix="graphwright-simplify-") as folder:
            program = model(name, args.layers, Path(folder, "model"))
            work = workloads(program, args.shapes.split(","))
            for backend in args.backends.split(","):
                field = {}
                for number, (row, text) in enumerate(ROWS.items()):
                    path = Path(folder, f"{backend}-{number}")
                    made = lowered(program, text, backend)
                    field[row] = build(made, backend, path, args.shapes, args.threads)
                timed = compare(field, work, threads=args.threads, rounds=args.rounds)
                found[f"{name}, {backend}"] = timed.to_json()
                show(f"{name}, {backend}", timed.cells, args.shapes.split(","))
                if args.json:
                    args.json.write_text(json.dumps(found, indent=1))


def show(title: str, cells, shapes: list[str]) -> None:
    table = Table("build", *shapes, "on a phone, ms", title=title)
    for row in ROWS:
        texts = [
            f"{cell.ms:.2f} ms, {cell.speedup.median:.2f}x [{cell.speedup.low:.2f}, {cell.speedup.high:.2f}]"
            for cell in (cells[row][shape] for shape in shapes)
        ]
        table.add_row(row, *texts, str(PHONE.get(row, "")))
    Console(width=150).print(table)


if __name__ == "__main__":
    main()

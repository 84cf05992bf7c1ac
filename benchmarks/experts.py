"""Feed-forwards as mixtures of experts on ONNX Runtime: measured time beside dense ones, and what is kept.

    python benchmarks/experts.py --train ../shared/data/stsb/train.csv [--sts ../shared/data/stsb/dev.csv]
        [--models minilm,relu] [--experts 4,8,16,32] [--share 0.25,0.5] [--shapes 1x128,8x128]
        [--rounds 11] [--threads 2] [--layers N] [--json FILE]

minilm: all-MiniLM-L6-v2, split by its activations on --train; scored on --sts where that is given (Spearman
x 100). relu: BERT-base's shapes with ReLU and random weights, split by random tokens, for time alone. Each
number of experts with each share of them for a token is lowered by the preset `exact`, as is the model
without; all of a model are timed in turn. --layers: fewer, to try the script.
"""

import argparse
import json
import tempfile
from pathlib import Path

import graphwright as gw
from graphwright.backends.measuring.measure import compare
from graphwright.backends.measuring.workloads import workloads
from graphwright.backends.runtimes.onnxruntime import save_model
from graphwright.backends.target import detect
from graphwright.ir.capture import capture
from graphwright.ir.program import Program
from graphwright.passes.manager.contract import Context
from graphwright.passes.manager.pipeline import Pipeline
from graphwright.tools.build.presets import chain
from graphwright.tools.verbs.demo import model_directory
from rich.console import Console
from rich.table import Table
from sentences import feeds, score, spread

DENSE = "dense"
KEPT = ("energy kept by layer", "largest load over mean by layer", "tokens that an expert sees")


def relu(layers: int | None) -> Program:
    import torch
    import transformers

    torch.manual_seed(0)
    config = transformers.BertConfig(num_hidden_layers=layers or 12, hidden_act="relu")
    module = transformers.BertModel(config, add_pooling_layer=False).eval()
    ids = torch.randint(1000, 20000, (2, 8))
    return capture(module, inputs={"input_ids": ids, "attention_mask": torch.ones_like(ids)})


def minilm(layers: int | None) -> Program:
    program = gw.trace(model_directory())
    if layers is None:
        return program
    return made(program, f"prune-layers{{keep={layers}}}", Context())[0]


def made(program: Program, text: str, context: Context) -> tuple[Program, list]:
    ran = Pipeline.parse(text).run(program, context)
    return ran.program_or_raise(), ran.steps


def save(program: Program, path: Path) -> Path:
    lowered = chain("exact", program, "onnxruntime")[0].run(program, Context(target=detect()))
    save_model(lowered.program_or_raise(), path)
    return path


def grid(program: Program, data: list, args: argparse.Namespace, folder: Path, sts: Path | None) -> dict:
    """Each split built, with what is known of it before it is timed."""
    found: dict[str, dict] = {DENSE: {"path": save(program, folder / "dense.onnx")}}
    for experts in map(int, args.experts.split(",")):
        for share in map(float, args.share.split(",")):
            top = max(1, round(experts * share))
            name = f"{top} of {experts}"
            context = Context(calibration=data)
            text = f"mixture-of-experts{{experts={experts},top={top}}}"
            split, steps = made(program, text, context)
            said = {kind: steps[0].statistics[kind] for kind in KEPT}
            path = save(split, folder / f"{experts}-{top}.onnx")
            found[name] = {"path": path, "seconds": steps[0].seconds, **said}
    for row in found.values():
        if sts is not None:
            row["spearman"] = score(row["path"], model_directory(), sts)
    return found


def show(title: str, found: dict, shapes: list[str]) -> None:
    table = Table("experts", *shapes, "Spearman", *KEPT, title=title)
    for name, row in found.items():
        spearman = f"{row['spearman']:.2f}" if "spearman" in row else ""
        table.add_row(
            name, *(row[shape] for shape in shapes), spearman, *(row.get(kind, "") for kind in KEPT)
        )
    Console(width=200).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--sts", type=Path)
    parser.add_argument("--models", default="minilm,relu")
    parser.add_argument("--experts", default="4,8,16,32")
    parser.add_argument("--share", default="0.25,0.5")
    parser.add_argument("--shapes", default="1x128,8x128")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--layers", type=int)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    shapes = args.shapes.split(",")
    written: dict[str, dict] = {}
    for name in args.models.split(","):
        program = {"minilm": minilm, "relu": relu}[name](args.layers)
        texts = list(feeds(model_directory(), spread(args.train, 1000)))
        names = {spec.name for spec in program.inputs}
        data = [{key: array for key, array in feed.items() if key in names} for feed in texts]
        work = workloads(program, shapes)
        with tempfile.TemporaryDirectory(prefix="graphwright-experts-") as folder:
            found = grid(program, data, args, Path(folder), args.sts if name == "minilm" else None)
            field = {row: each.pop("path") for row, each in found.items()}
            timed = compare(field, work, threads=args.threads, rounds=args.rounds)
        for row, cells in timed.cells.items():
            for shape in shapes:
                cell = cells[shape]
                ratio = f"{cell.speedup.median:.2f}x [{cell.speedup.low:.2f}, {cell.speedup.high:.2f}]"
                found[row][shape] = f"{cell.ms:.2f} ms, {ratio}"
        show(name, found, shapes)
        written[name] = {"rows": found, "timed": timed.to_json()}
        if args.json:
            args.json.write_text(json.dumps(written, indent=1))


if __name__ == "__main__":
    main()

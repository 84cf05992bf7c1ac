"""A search on all-MiniLM-L6-v2: its front beside `--preset balanced` and PyTorch, scored on STS pairs.

    python benchmarks/search.py --train ../shared/data/stsb/train.csv --sts ../shared/data/stsb/dev.csv \\
        --work DIR [--budget 2h] [--threads 2] [--drop 1.0] [--space FILE] [--resume]

--train: rows of sentence, sentence, score without a header, that the search judges and teaches on; --sts:
such rows that it never sees, which everything is scored on afterwards. Printed are the members of the front,
each timed in turn beside the preset's bundle, the un-rewritten export and PyTorch eager, and what a search
costs beside its trials: its wall clock less the seconds that are on record of them. The search stays in
--work, and --resume goes on with it.
"""

import argparse
import json
import time
from pathlib import Path

import graphwright as gw
from graphwright.backends.measuring.measure import compare, workloads
from graphwright.backends.runtimes.onnxruntime import save_model
from graphwright.tools.verbs.demo import model_directory
from sentences import score

SHAPE = "1x128"
COLUMNS = "text=1,pair=2,label=3"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--sts", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--budget", default="2h")
    parser.add_argument("--trials", type=int)
    parser.add_argument("--space", help="a file that narrows the space")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--drop", type=float, default=1.0)
    parser.add_argument("--resume", action="store_true")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    model, out = model_directory(), args.work / "search"
    common = {"data": args.train, "task": "similarity", "columns": COLUMNS, "threads": args.threads}
    before = json.loads((out / "front.json").read_text())["seconds"] if args.resume else 0.0
    began = time.monotonic()
    found = gw.search(
        model, out, f"drop<={args.drop}", minimise=f"latency@{SHAPE},size", budget=args.budget,
        trials=args.trials, space=args.space, resume=args.resume, quiet=False, calibrate=args.train,
        shapes=SHAPE, **common,
    )  # fmt: skip
    wall, trials = time.monotonic() - began, found.record["seconds"] - before
    preset = args.work / "balanced"
    if not preset.exists():
        gw.optimize(model, preset, preset="balanced", shapes=SHAPE, **common)
    plain = gw.Pipeline.parse("to-onnx").run(gw.trace(model)).program
    save_model(plain, args.work / "plain.onnx")
    members = {f"trial {number}": out / path for number, path in found.record["bundles"].items()}
    times = compare(
        {"PyTorch eager": model, "export": args.work / "plain.onnx", "balanced": preset, **members},
        workloads(plain, [SHAPE]),
        args.threads,
    )
    print(f"{len(found.trials)} trials in {wall:.0f} s, of which {wall - trials:.0f} s beside them "
          f"({(wall - trials) / wall:.1%}: capture, judges and the latency table are in it)")  # fmt: skip
    scores = {"export": score(args.work / "plain.onnx", model, args.sts)}
    scores |= {name: score(path / "model.onnx", model, args.sts) for name, path in members.items()}
    scores["balanced"] = score(preset / "model.onnx", model, args.sts)
    for name, cells in times.cells.items():
        ratio = {than: times.faster(SHAPE, name, than).median for than in ("balanced", "PyTorch eager")}
        kept = f"{scores[name]:.2f}" if name in scores else ""
        print(f"| {name} | {cells[SHAPE].ms:.2f} ms | {ratio['balanced']:.2f}x of balanced "
              f"| {ratio['PyTorch eager']:.1f}x of eager | {kept} |")  # fmt: skip


if __name__ == "__main__":
    main()

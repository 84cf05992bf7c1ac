"""all-MiniLM-L6-v2 without its norms: quality and measured speed, calibrated alone and then distilled.

    python benchmarks/nonorm_quality.py --train ../shared/data/stsb/train.csv \\
        --sts ../shared/data/stsb/dev.csv --work DIR [--only PIECE,...] [--rounds N] [--minutes M] [--texts N]

Data and scores are those of pruning.py. Pieces: `calibrated` (nonorm alone), `distilled` (and distill),
`annealed` (norms mixed out over half of the steps), `relu` (GELU by ReLU too, distilled), `folded` (the best
of `distilled` and `annealed` after fold-affine), `tvm` (whatever was made, compiled), and `times`. What was
made is not made again, and a training that was stopped goes on.
--texts: fewer to train on, to try the script.
"""

import argparse
import json
from pathlib import Path

import graphwright as gw
from graphwright.backends.target import detect
from graphwright.passes.manager.contract import Context
from graphwright.passes.manager.pipeline import Pipeline
from graphwright.tools.build.presets import chain
from pruning import Bench, compiled, plain, show, times

NAMES = {"calibrated": "nonorm", "distilled": "nonorm distilled", "annealed": "nonorm annealed"}


def results(bench: Bench) -> dict:
    path = bench.folder / "results.json"
    return json.loads(path.read_text()) if path.exists() else {}


def make(bench: Bench, name: str, text: str) -> None:
    if "spearman" not in results(bench).get(name, {}):
        bench.make(name, text)


def calibrated(bench: Bench) -> None:
    make(bench, NAMES["calibrated"], "nonorm")


def distilled(bench: Bench) -> None:
    make(bench, NAMES["distilled"], f"nonorm,distill{{{bench.args.training}}}")


def annealed(bench: Bench) -> None:
    make(bench, NAMES["annealed"], f"nonorm,distill{{{bench.args.training},anneal=0.5}}")


def relu(bench: Bench) -> None:
    make(bench, "nonorm relu distilled", f"nonorm,replace-activation,distill{{{bench.args.training}}}")


def folded(bench: Bench) -> None:
    """The training is taken from its checkpoint, so this costs no time."""
    known = results(bench)
    made = [piece for piece in ("distilled", "annealed") if NAMES[piece] in known]
    best = max(made, key=lambda piece: known[NAMES[piece]]["spearman"])
    make(bench, f"{NAMES[best]} folded", f"{known[NAMES[best]]['pipeline']},fold-affine")


def tvm(bench: Bench) -> None:
    for name in [name for name, row in results(bench).items() if "pipeline" in row or "bytes" in row]:
        other = f"{name}, TVM"
        if name.endswith("TVM") or "spearman" in results(bench).get(other, {}):
            continue
        program = gw.trace(bench.path(name))
        made = chain("exact", program, "tvm")[0].run(program, Context(target=detect()))
        build = compiled(bench, made.program, program, other)
        bench.note(other, build=str(build))
        bench.judge(other, build)


PIECES = {
    "calibrated": calibrated, "distilled": distilled, "annealed": annealed, "relu": relu, "folded": folded,
    "tvm": tvm, "times": times,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--sts", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--only", default=",".join(PIECES))
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--minutes", type=float, default=25.0, help="of each distillation, at most")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--texts", type=int)
    args = parser.parse_args()
    args.training = f"minutes={args.minutes},steps={args.steps}"
    Pipeline.parse(f"distill{{{args.training}}}")
    bench = Bench(args)
    if args.texts:
        bench.training = bench.training[:: max(1, len(bench.training) * 32 // args.texts)]
    plain(bench)
    for piece in args.only.split(","):
        PIECES[piece](bench)
    show(bench)


if __name__ == "__main__":
    main()

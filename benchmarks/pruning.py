"""all-MiniLM-L6-v2 pruned: quality, bytes and measured speed of every way, and what training recovers.

    python benchmarks/pruning.py --train ../shared/data/stsb/train.csv --sts ../shared/data/stsb/dev.csv \\
        --work DIR [--only PIECE,...] [--rounds N] [--minutes M]

Sentences of --train that --sts does not have, without their scores, are all that is learned from; pairs of
--sts are scored (Spearman x 100). Both are csv of sentence, sentence, score without a header. Pieces:
`least-squares` (1.5x, no training), `distilled` (2x), `int8` (that one rounded after it, for ONNX Runtime and
for TVM), `layers` (three of six), `importance` (half the heads, and half the neurons, by each importance,
three seeds), `vocabulary`, and `times`, which times whatever was made, each at 1x128 in turn. Every piece
leaves its results in --work, and a training that was stopped goes on.
"""

import argparse
import json
import time
from pathlib import Path

import graphwright as gw
import numpy as np
from graphwright.backends.cache import cache_directory
from graphwright.backends.measuring.gate import Measurer
from graphwright.backends.measuring.measure import compare
from graphwright.backends.measuring.workloads import workloads
from graphwright.backends.runtimes.onnxruntime import save_model
from graphwright.backends.target import detect
from graphwright.ir.footprint import weight_bytes
from graphwright.ir.program import Program
from graphwright.passes.manager.contract import Context
from graphwright.passes.manager.pipeline import Pipeline
from graphwright.passes.prune.importance.choose import Method
from graphwright.tools.build.presets import chain
from graphwright.tools.verbs.demo import model_directory
from rich.console import Console
from rich.table import Table
from sentences import feeds, rows, runner, score

WORK = "1x128"
PLAIN, EAGER = "unpruned, ONNX Runtime", "unpruned, PyTorch eager"


class Bench:
    """The model, the texts, and the folder of results."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.folder = args, args.work
        self.folder.mkdir(parents=True, exist_ok=True)
        self.model = model_directory()
        self.program = gw.trace(self.model)
        judged = {text for row in rows(args.sts) for text in row[:2]}
        texts = dict.fromkeys(text for row in rows(args.train) for text in row[:2])
        self.texts = [text for text in texts if text not in judged]
        self.training = list(feeds(self.model, self.texts))
        self.work = workloads(self.program, [WORK])

    def context(self, seed: int = 0, **more) -> Context:
        step = max(1, len(self.training) // 8)
        return Context(
            target=detect(), threads=2, seed=seed, calibration=self.training[::step], training=self.training,
            cache=cache_directory(), original=self.program, **more,
        )  # fmt: skip

    def make(self, name: str, text: str) -> None:
        """Runs a pipeline on the model, lowers and scores what comes out, and keeps it under a name."""
        began = time.monotonic()
        with Measurer(self.work, 2) as measurer:
            context = self.context(measure=measurer, conditions=measurer.conditions)
            ran = Pipeline.parse(f"{text},to-onnx").run(self.program, context)
        seconds = time.monotonic() - began
        save_model(ran.program_or_raise(), self.path(name))
        steps = [{"pass": s.text, "seconds": s.seconds, "notes": s.notes, **s.statistics} for s in ran.steps]
        self.note(name, pipeline=text, seconds=seconds, bytes=weight_bytes(ran.program), steps=steps)
        self.judge(name)

    def path(self, name: str) -> Path:
        return self.folder / f"{name.replace(' ', '-')}.onnx"

    def judge(self, name: str, build: Path | None = None) -> None:
        self.note(name, spearman=score(build or self.path(name), self.model, self.args.sts))

    def note(self, name: str, **found) -> None:
        """Adds to what is known of a build."""
        path = self.folder / "results.json"
        known = json.loads(path.read_text()) if path.exists() else {}
        known.setdefault(name, {}).update(found)
        path.write_text(json.dumps(known, indent=1))
        print(name, {key: value for key, value in found.items() if key != "steps"}, flush=True)


def plain(bench: Bench) -> None:
    """What everything is compared with."""
    if not bench.path(PLAIN).exists():
        lowered = Pipeline.parse("to-onnx").run(bench.program).program
        save_model(lowered, bench.path(PLAIN))
        bench.note(PLAIN, bytes=weight_bytes(lowered))
        bench.judge(PLAIN)


def least_squares(bench: Bench) -> None:
    bench.make("1.5x by least squares", "prune-to-latency{speedup=1.5,workload=1x128}")


def distilled(bench: Bench) -> None:
    bench.make(
        "2x distilled",
        f"prune-to-latency{{speedup=2.0,workload=1x128}},distill{{minutes={bench.args.minutes}}}",
    )


def layers(bench: Bench) -> None:
    bench.make("three layers distilled", f"prune-layers{{keep=3}},distill{{minutes={bench.args.minutes}}}")


def int8(bench: Bench) -> None:
    """The distilled one rounded as the preset `balanced` rounds, for both runtimes."""
    program = gw.trace(bench.path("2x distilled"))
    for backend in ("onnxruntime", "tvm"):
        name = f"2x distilled int8 {backend}"
        context = Context(target=detect(), calibration=bench.context().calibration)
        made = Pipeline(p for p in chain("balanced", program, backend)[0].passes).run(program, context)
        if backend == "onnxruntime":
            build = bench.path(name)
            save_model(made.program_or_raise(), build)
        else:
            build = compiled(bench, made.program, program, name)
        bench.note(name, bytes=weight_bytes(made.program), build=str(build))
        bench.judge(name, build)


def compiled(bench: Bench, program: Program, before: Program, name: str) -> Path:
    """before: not rounded yet, which moves with the range of the padding in ONNX Runtime and not here."""
    from graphwright.backends.tvm.backend import Tvm
    from graphwright.backends.tvm.build.padding import padding_of
    from graphwright.backends.tvm.run.artifact import write_compiled

    sizes = [{"batch": 1, "length": 128}, {"batch": 32, "length": 64}]
    build = bench.folder / name.replace(" ", "-")
    made = Tvm().build(program, detect(), 2, buckets=sizes, padding=padding_of(before))
    write_compiled(build, made, force=True)
    return build


def importance(bench: Bench) -> None:
    """Half of the heads, or of the neurons, without any training."""
    for kind in ("heads", "ffn"):
        for method in Method.__args__:
            for seed in range(3):
                name = f"half the {kind} by {method}, seed {seed}"
                picked = np.random.default_rng(seed).permutation(len(bench.training))[:16]
                context = bench.context(seed)
                context.training = context.calibration = [bench.training[i] for i in picked]
                text = f"prune-{kind}{{ratio=0.5,importance={method}}},to-onnx"
                ran = Pipeline.parse(text).run(bench.program, context, verify=False)
                save_model(ran.program, bench.folder / "tried.onnx")
                bench.judge(name, bench.folder / "tried.onnx")


def vocabulary(bench: Bench) -> None:
    """Bytes, and the outputs on the text that the tokens were taken from."""
    from tokenizers import Tokenizer

    ran = Pipeline.parse("prune-vocabulary,to-onnx").run(bench.program, bench.context())
    path = bench.path("vocabulary")
    save_model(ran.program, path)
    smaller = bench.folder / "tokenizer"
    smaller.mkdir(exist_ok=True)
    for name, content in ran.program.tokenizer.items():
        (smaller / name).write_bytes(content)
    assert Tokenizer.from_file(str(smaller / "tokenizer.json")).get_vocab_size() < 30522
    before, after, worst = runner(bench.path(PLAIN)), runner(path), 0.0
    few = bench.texts[:: max(1, len(bench.texts) // 2000)]
    for old, new in zip(feeds(bench.model, few), feeds(smaller, few), strict=True):
        worst = max(worst, float(np.abs(before(old) - after(new)).max()))
    bench.note(
        "vocabulary", bytes=weight_bytes(ran.program), largest_difference=worst, **ran.steps[0].statistics
    )
    bench.note("vocabulary", spearman=score(path, smaller, bench.args.sts))


def times(bench: Bench) -> None:
    """Every build that was made, in turn, against plain ONNX Runtime and against PyTorch eager."""
    known = json.loads((bench.folder / "results.json").read_text())
    builds = {
        name: Path(row.get("build", bench.path(name)))
        for name, row in known.items()
        if "pipeline" in row or "build" in row
    }
    for base, contestant in ((PLAIN, bench.path(PLAIN)), (EAGER, f"torch:{bench.model}")):
        timed = compare({base: contestant, **builds}, bench.work, threads=2, rounds=bench.args.rounds)
        for name, row in timed.cells.items():
            cell = row[WORK]
            ratio = [round(x, 3) for x in (cell.speedup.median, cell.speedup.low, cell.speedup.high)]
            bench.note(name, **{f"against {base}": ratio, f"ms beside {base}": round(cell.ms, 3)})


def show(bench: Bench) -> None:
    known = json.loads((bench.folder / "results.json").read_text())
    table = Table("build", "Spearman", "MB", "against plain ORT", "against eager", "minutes")
    for name, row in known.items():
        ratios = [
            "{:.2f}x [{:.2f}, {:.2f}]".format(*row[f"against {base}"]) if f"against {base}" in row else ""
            for base in (PLAIN, EAGER)
        ]
        table.add_row(
            name,
            f"{row['spearman']:.2f}" if "spearman" in row else "",
            f"{row['bytes'] / 1e6:.1f}" if "bytes" in row else "",
            *ratios,
            f"{row['seconds'] / 60:.1f}" if "seconds" in row else "",
        )
    Console(width=150).print(table)


PIECES = {
    "least-squares": least_squares, "distilled": distilled, "int8": int8, "layers": layers,
    "importance": importance, "vocabulary": vocabulary, "times": times,
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
    parser.add_argument("--minutes", type=float, default=20.0, help="of distillation, at most")
    args = parser.parse_args()
    bench = Bench(args)
    plain(bench)
    for piece in args.only.split(","):
        PIECES[piece](bench)
    show(bench)


if __name__ == "__main__":
    main()

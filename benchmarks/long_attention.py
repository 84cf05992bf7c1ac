"""Every kind of attention at growing lengths, beside full attention fused by the same runtime.

    python benchmarks/long_attention.py --work DIR [--part layer|minilm] [--runtimes onnxruntime,tvm]
        [--kinds window,linear,...] [--lengths 512,1024,2048,4096,8192] [--rounds 5] [--plot FILE.svg]

layer: embeddings and one attention of 12 heads of 32 with its projections, random weights. minilm:
all-MiniLM-L6-v2 whole, its positions extended to 4,096. One text that fills the call. Both are lowered by the
preset `exact`; patterns of keys go through `block-attention` for ONNX Runtime, and as masks to TVM's own
kernels. All contestants of a runtime and length are timed in turn, two threads; ratios are over full
attention. Exponents are fitted to time over lengths from 1,024 on (least squares of the logarithms). Peak
memory is that of a contestant's process, interpreter and runtime included. What was measured is kept in
--work and not measured again. --plot needs matplotlib.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from graphwright.backends.measuring.measure import compare
from graphwright.backends.measuring.workloads import Workload
from graphwright.backends.runtimes.onnxruntime import save_model
from graphwright.backends.target import detect
from graphwright.backends.tvm.backend import Tvm
from graphwright.backends.tvm.build.padding import padding_of
from graphwright.backends.tvm.run.artifact import write_compiled
from graphwright.ir.capture import capture
from graphwright.ir.program import Program
from graphwright.passes.manager.contract import Context
from graphwright.passes.manager.pipeline import Pipeline
from graphwright.tools.build.presets import chain
from graphwright.tools.verbs.demo import model_directory
from torch import nn

WIDTH, HEADS, WORDS, FULL, FIRST = 384, 12, 1000, "full", 1024
LONGEST = 8192
PATTERNS = {
    "window": "window=128",
    "block": "block=128",
    "strided": "stride=128",
    "axial": "",
    "random": "",
    "bigbird": "",
    "etc": "",
}
OTHERS = {
    "linear": "",
    "performer": "features=64",
    "linformer": f"rank=256,length={LONGEST}",
    "nystrom": "",
    "lsh": "",
    "routing": "clusters={root}",  # of the length, as in the paper (section 4.1)
    "clustered": "",
    "sinkhorn": "",
    "conv": "",
    "lsra": "",
    "entmax": "",
    "adaptive-span": "",
    "synthesizer": f"form=factorised-random,length={LONGEST}",
}


class Layer(nn.Module):
    """Words, learned places, and self-attention with its four projections."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, WIDTH)
        self.places = nn.Embedding(LONGEST, WIDTH)  # which bounds texts, as tables of blocks must be
        self.q, self.k, self.v, self.o = (nn.Linear(WIDTH, WIDTH) for _ in range(4))

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        hidden = self.words(input_ids) + self.places(torch.arange(input_ids.shape[1]))
        q, k, v = (
            side(hidden).unflatten(-1, (HEADS, -1)).transpose(1, 2) for side in (self.q, self.k, self.v)
        )
        mask = (attention_mask != 0)[:, None, None, :]
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.o(mixed.transpose(1, 2).flatten(2))


def given(part: str) -> Program:
    if part == "minilm":
        run = Pipeline.parse("extend-positions{length=4096}").run(capture(model_directory()), Context())
        assert run.ok, run.steps[0].error
        return run.program
    torch.manual_seed(0)
    ones = torch.ones(2, 40, dtype=torch.long)
    inputs = {"input_ids": ones, "attention_mask": ones}
    return capture(Layer().eval(), inputs=inputs)


def feed(program: Program, length: int) -> dict[str, np.ndarray]:
    rng, arrays = np.random.default_rng(0), {}
    for spec in program.inputs:
        low, high = (1, 2) if spec.role == "attention_mask" else (0, spec.high or 1)
        arrays[spec.name] = rng.integers(low, high, (1, length))
    return arrays


def pipeline(kind: str, options: str, runtime: str) -> str:
    if kind == FULL:
        return ""
    inside = ",".join(filter(None, (f"kind={kind.partition(' ')[0]}", options)))
    blocks = ",block-attention" if kind.partition(" ")[0] in PATTERNS and runtime == "onnxruntime" else ""
    return f"substitute-attention{{{inside}}}{blocks}"


def built(folder: Path, program: Program, kind: str, options: str, runtime: str, length: int) -> Path:
    """A file for ONNX Runtime at any length, or a build of TVM at one."""
    name, sized = kind.replace(" ", "-"), "{root}" in options
    options = options.format(root=round(length**0.5))
    whole = f"{name}-{length}.onnx" if sized else f"{name}.onnx"
    path = folder / (whole if runtime == "onnxruntime" else f"{name}-{length}")
    if path.exists():
        return path
    if text := pipeline(kind, options, runtime):
        texts = Context(calibration=[feed(program, FIRST)])  # what some kinds start from; values don't matter
        run = Pipeline.parse(text).run(program, texts, verify=False)
        for step in run.steps:
            print(step.text, step.status, step.counted, *step.notes, flush=True)
        program = run.program_or_raise()
    lowered = chain("exact", program, runtime)[0].run(program, Context(target=detect()), verify=False).program
    if runtime == "onnxruntime":
        save_model(lowered, path)
    else:
        made = Tvm().build(
            lowered, detect(), 2, buckets=[{"batch": 1, "length": length}], padding=padding_of(lowered)
        )
        write_compiled(path, made, force=True)
    return path


def measured(args: argparse.Namespace, program: Program, kinds: dict[str, str], found: dict) -> None:
    for runtime in args.runtimes.split(","):
        for length in map(int, args.lengths.split(",")):
            key = lambda kind, r=runtime, n=length: f"{args.part} {r} {kind} {n}"
            wanted = [kind for kind in kinds if key(kind) not in found]
            if not wanted:
                continue
            contestants = {}
            for kind in dict.fromkeys((FULL, *wanted)):
                try:
                    options = kinds.get(kind, "")
                    contestants[kind] = built(args.work / args.part, program, kind, options, runtime, length)
                except Exception as error:  # a runtime that lacks an operator leaves a row, not the table
                    found[key(kind)] = {"refused": f"{type(error).__name__}: {error}".partition("\n")[0]}
                    print(key(kind), found[key(kind)], flush=True)
            calls = [Workload(f"1x{length}", feed(program, length))]
            told = compare(contestants, calls, threads=2, rounds=args.rounds)
            for kind, row in told.cells.items():
                cell = row[calls[0].name]
                ratio = (cell.speedup.median, cell.speedup.low, cell.speedup.high)
                found[key(kind)] = {
                    "ms": round(cell.ms, 3),
                    "ratio": [round(x, 3) for x in ratio],
                    "peak_mb": round(told.peak_bytes[kind] / 1e6, 1),
                }
                print(key(kind), found[key(kind)], flush=True)
            (args.work / "long.json").write_text(json.dumps(found, indent=1))


def exponent(points: dict[int, float]) -> float | None:
    """The slope of log time over log length from 1,024 on."""
    some = {n: ms for n, ms in points.items() if n >= FIRST}
    if len(some) < 3:
        return None
    return float(np.polyfit(np.log(list(some)), np.log(list(some.values())), 1)[0])


def series(args: argparse.Namespace, found: dict) -> dict[str, dict[str, dict[int, dict]]]:
    """What was found, by runtime, kind and length."""
    table: dict[str, dict[str, dict[int, dict]]] = {}
    for key, row in found.items():
        part, runtime, *kind, length = key.split()
        if part == args.part and "ms" in row:
            table.setdefault(runtime, {}).setdefault(" ".join(kind), {})[int(length)] = row
    return table


def report(args: argparse.Namespace, found: dict) -> None:
    for runtime, kinds in series(args, found).items():
        lengths = sorted({n for rows in kinds.values() for n in rows})
        head = [
            "",
            "exponent",
            *(f"1x{n}, ms" for n in lengths),
            *(f"{n}: over full" for n in lengths),
            "peak, MB",
        ]
        print(f"\n{runtime}\n\n| {' | '.join(head)} |\n|{'---|' * len(head)}")
        for kind, rows in kinds.items():
            slope = exponent({n: row["ms"] for n, row in sorted(rows.items())})
            cells = [kind, "" if slope is None else f"{slope:.2f}"]
            cells += [f"{rows[n]['ms']:.1f}" if n in rows else "" for n in lengths]
            cells += [f"{rows[n]['ratio'][0]:.2f}x" if n in rows else "" for n in lengths]
            print(f"| {' | '.join([*cells, str(round(rows[max(rows)]['peak_mb']))])} |")


def plot(args: argparse.Namespace, found: dict) -> None:
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    tables = series(args, found)
    figure, axes = pyplot.subplots(1, len(tables), figsize=(6 * len(tables), 5), sharey=True, squeeze=False)
    for axis, (runtime, kinds) in zip(axes[0], tables.items(), strict=True):
        for number, (kind, rows) in enumerate(kinds.items()):
            lengths = sorted(rows)
            style = (
                {"linewidth": 2.5, "color": "black"}
                if kind == FULL
                else {"linestyle": ("-", "--", ":")[number % 3]}
            )
            axis.plot(lengths, [rows[n]["ms"] for n in lengths], marker=".", label=kind, **style)
        axis.set(xscale="log", yscale="log", title=runtime, xlabel="tokens", ylabel="ms")
        axis.set_xticks(lengths, [str(n) for n in lengths])
        axis.tick_params(axis="x", which="minor", labelbottom=False)
        axis.legend(fontsize="small", ncols=2)
    figure.tight_layout()
    figure.savefig(args.plot, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--part", choices=("layer", "minilm"), default="layer")
    parser.add_argument("--runtimes", default="onnxruntime,tvm")
    parser.add_argument("--kinds", help="names of kinds; all where none are given")
    parser.add_argument("--lengths", default="512,1024,2048,4096,8192")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--plot", type=Path)
    args = parser.parse_args()
    known = PATTERNS | OTHERS | {"window 256": "window=256"}
    names = args.kinds.split(",") if args.kinds else [*PATTERNS, *OTHERS]
    kinds = {FULL: "", **{name: known[name] for name in names}}
    (args.work / args.part).mkdir(parents=True, exist_ok=True)
    kept = args.work / "long.json"
    found = json.loads(kept.read_text()) if kept.exists() else {}
    measured(args, given(args.part), kinds, found)
    report(args, found)
    if args.plot:
        plot(args, found)


if __name__ == "__main__":
    main()

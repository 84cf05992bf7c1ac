"""int8 builds of all-MiniLM-L6-v2: ours beside ONNX Runtime's own, timed in turn, scored on STS pairs.

    python benchmarks/int8.py --calibrate ../shared/data/stsb/train.csv --sts ../shared/data/stsb/dev.csv
        [--samples 128] [--shapes 1x128,8x128,1x16,mixed:32] [--rounds 11] [--json FILE]

Contestants: PyTorch eager (the first: ratios are against it), ONNX Runtime on the plain dynamo export, its
quantize_dynamic and its quantize_static (after its own quant_pre_process, at their defaults), and our
pipelines on that same export, which all stop at the token vectors; "packed" ones run remove-padding too. Both
static quantizers calibrate on the same texts, --samples of them spread over --calibrate.
--sts: csv of sentence, sentence, score without a header: Spearman's correlation x 100. Token cosine: to the
plain export's vectors, over all real tokens of the first sentences of --sts. A second table has every ratio
against the faster of ONNX Runtime's two.
"""

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
from graphwright.backends.measuring.measure import compare
from graphwright.backends.measuring.workloads import workloads
from graphwright.backends.runtimes.onnxruntime import save_model
from graphwright.backends.target import detect
from graphwright.ir.capture import capture
from graphwright.passes.manager.contract import Context
from graphwright.passes.manager.pipeline import Pipeline
from graphwright.tools.verbs.demo import model_directory
from rich.console import Console
from rich.table import Table
from sentences import Feed, export, feeds, rows, runner, score, spread

EXACT = (
    "fold-constants,eliminate-identities,eliminate-common-subexpressions,eliminate-dead-code,simplify-mask,"
    "fuse-layer-norm,fuse-attention,keep-residual-sum,fuse-skip-layer-norm,fuse-embedding-norm"
)
SMOOTH = EXACT.replace("fuse-attention", "smooth-quant,fuse-attention")
SMOOTHER = EXACT.replace("fuse-attention", "smooth-quant{insert=true},fuse-attention")
PIPELINES = {
    "dynamic": f"{EXACT},quantize-dynamic",
    "static": f"{EXACT},quantize-static",
    "static, standard operators": f"{EXACT},quantize-static{{form=qdq}}",
    "smooth + static": f"{SMOOTH},quantize-static",
    "smooth with Mul + static": f"{SMOOTHER},quantize-static",
    "dynamic, packed": f"{EXACT},remove-padding,quantize-dynamic",
    "smooth + static, packed": f"{SMOOTH},remove-padding,quantize-static",
    "smooth with Mul + static, packed": f"{SMOOTHER},remove-padding,quantize-static",
}


def theirs(plain: Path, calibration: list[Feed], scratch: Path) -> dict[str, Path]:
    """ONNX Runtime's two quantizers at their defaults."""
    from onnxruntime.quantization import CalibrationDataReader, quantize_dynamic, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.left = iter(calibration)

        def get_next(self) -> Feed | None:
            return next(self.left, None)

    prepared = scratch / "prepared.onnx"
    quant_pre_process(str(plain), str(prepared), skip_symbolic_shape=True)
    quantize_dynamic(plain, scratch / "ort-dynamic.onnx")
    quantize_static(prepared, scratch / "ort-static.onnx", Reader())
    return {
        "ORT quantize_dynamic": scratch / "ort-dynamic.onnx",
        "ORT quantize_static": scratch / "ort-static.onnx",
    }


def ours(plain: Path, calibration: list[Feed], scratch: Path) -> tuple[dict[str, Path], dict[str, list[str]]]:
    """Our graphs, and what each pipeline's last steps said of themselves."""
    program, context = capture(plain), Context(target=detect(), calibration=calibration)
    made, said = {}, {}
    for number, (name, text) in enumerate(PIPELINES.items()):
        run = Pipeline.parse(text).run(program, context)
        if not run.ok:
            raise SystemExit(str(run.steps[-1].error))
        made[name] = scratch / f"ours-{number}.onnx"
        save_model(run.program, made[name])
        said[name] = [f"{s.text}: {dict(s.statistics)}" for s in run.steps if "quant" in s.text]
    return made, said


def cosines(path: Path, plain: Path, batches: list[Feed]) -> tuple[float, float]:
    """Mean and worst cosine of token vectors to the plain export's."""
    run, reference, found = runner(path), runner(plain), []
    for feed in batches:
        real = feed["attention_mask"] != 0
        a, b = (f(feed)[real].astype(np.float64) for f in (run, reference))
        found.append((a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1))
    joined = np.concatenate(found)
    return float(joined.mean()), float(joined.min())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--calibrate", type=Path, required=True)
    parser.add_argument("--sts", type=Path, required=True)
    parser.add_argument("--samples", type=int, default=128)
    parser.add_argument("--shapes", default="1x128,8x128,1x16,mixed:32")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--no-speed", action="store_true", help="quality only")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    model, console = model_directory(), Console(width=150)
    calibration = list(feeds(model, spread(args.calibrate, args.samples)))
    batches = list(feeds(model, [row[0] for row in rows(args.sts)][:256]))
    with tempfile.TemporaryDirectory(prefix="graphwright-int8-") as folder:
        scratch = Path(folder)
        plain = scratch / "plain.onnx"
        export(model, plain)
        rivals = theirs(plain, calibration, scratch)
        graphs, said = ours(plain, calibration, scratch)
        paths = {"ORT": plain, **rivals, **graphs}
        record: dict = {"said": said, "quality": {}}
        quality = Table("build", "Spearman", "token cosine", "worst", "MB", title="quality")
        for name, path in paths.items():
            spearman, (mean, worst) = score(path, model, args.sts), cosines(path, plain, batches)
            record["quality"][name] = {"spearman": spearman, "cosine": mean, "worst": worst}
            quality.add_row(
                name, f"{spearman:.2f}", f"{mean:.5f}", f"{worst:.4f}", f"{path.stat().st_size / 1e6:.1f}"
            )
        for name, lines in said.items():
            console.print(f"{name}: {'; '.join(lines)}")
        console.print(quality)
        if not args.no_speed:
            texts = [row[0] for row in rows(args.sts)]
            work = workloads(capture(model), args.shapes.split(","), texts)
            field = {"PyTorch eager": f"torch:{model}", **paths}
            timed = compare(field, work, threads=2, rounds=args.rounds)
            record["speed"] = timed.to_json()
            against, best = (
                Table("build", *(w.name for w in work), title=title)
                for title in ("against PyTorch eager", "against the faster of ONNX Runtime's two")
            )
            for name, row in timed.cells.items():
                against.add_row(
                    name,
                    *(
                        f"{row[w.name].ms:.2f} ms {row[w.name].speedup.median:.2f}x "
                        f"[{row[w.name].speedup.low:.2f}, {row[w.name].speedup.high:.2f}]"
                        for w in work
                    ),
                )
            for name in graphs:
                ratios = [min(timed.faster(w.name, name, rival).median for rival in rivals) for w in work]
                best.add_row(name, *(f"{ratio:.2f}x" for ratio in ratios))
            console.print(against)
            console.print(best)
        if args.json:
            args.json.write_text(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()

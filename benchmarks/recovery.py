"""Half the layers of all-MiniLM-L6-v2, and the training that recovers its quality, scored on STS pairs.

    python benchmarks/recovery.py --train ../shared/data/stsb/train.csv --dev ../shared/data/stsb/dev.csv
        [--pipelines "prune-layers{keep=3},distill;..."] [--work build/recovery] [--json FILE]

The sentences of --train, unlabelled and without those that --dev has too, are what is learned from. Each
pipeline's result is exported by `to-onnx` and scored in ONNX Runtime on --dev, which nothing has seen.
Training is kept in --work: a run that was stopped goes on from there when it is started again.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import graphwright as gw
import onnx_ir
from graphwright.backends.text import TextEncoder
from graphwright.passes.base import Context, Feed
from graphwright.passes.manager import Pipeline
from graphwright.tools.demo import model_directory
from sentences import rows, score

BATCH, CALIBRATION = 64, 4  # sentences, batches
PIPELINES = (
    "prune-layers{layers=(1,3,5)}",
    "prune-layers{layers=(1,3,5)},distill",
)


def feeds(program: gw.Program, texts: list[str]) -> list[Feed]:
    encoder = TextEncoder(program.tokenizer["tokenizer.json"], program.inputs, program.info, program.symbols)
    return [encoder(texts[start : start + BATCH]) for start in range(0, len(texts), BATCH)]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--dev", type=Path, required=True)
    parser.add_argument("--pipelines", type=lambda text: text.split(";"), default=PIPELINES)
    parser.add_argument("--work", type=Path, default=Path("build/recovery"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    program = gw.trace(model_directory())
    seen = {text for row in rows(args.dev) for text in row[:2]}
    texts = list(dict.fromkeys(text for row in rows(args.train) for text in row[:2] if text not in seen))
    every = feeds(program, texts)
    context = Context(
        seed=args.seed,
        calibration=every[:: max(1, len(every) // CALIBRATION)],
        training=every,
        cache=args.work,
        progress=lambda description, done, total: (
            print(f"  {description} ({done} of {total})", flush=True) if done % 100 == 0 else None
        ),
    )
    print(f"{len(texts)} sentences to learn from")
    found = {}
    for text in ("", *args.pipelines):
        begun = time.perf_counter()
        run = Pipeline.parse(text).run(program, context)
        lowered = Pipeline.parse("to-onnx").run(run.program)
        for step in (*run.steps, *lowered.steps):
            if step.error is not None:
                raise step.error
            print("\n".join(f"  {note}" for note in step.notes))
        path = args.work / "judged.onnx"
        onnx_ir.save(lowered.program.graph, path)
        found[text or "as it is"] = {
            "Spearman": round(float(score(path, model_directory(), args.dev)), 2),
            "minutes": round((time.perf_counter() - begun) / 60, 1),
            "steps": [dict(step.statistics) for step in run.steps],
        }
        print(text or "as it is", found[text or "as it is"], flush=True)
    if args.json:
        args.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()

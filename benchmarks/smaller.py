"""all-MiniLM-L6-v2 factorised, in groups, tied, of fewer tokens: quality and real bytes, before and after
distilling.

    python benchmarks/smaller.py --train ../shared/data/stsb/train.csv --sts ../shared/data/stsb/dev.csv \\
        --work DIR [--only NAME,...] [--minutes M] [--texts N] [--steps N]

Sentences of --train that --sts does not have, without their scores, say how often tokens occur, what
layers are given, and what is learned; pairs of --sts are scored (Spearman x 100). Both are csv of sentence,
sentence, score without a header. Builds: `plain`, `uncounted` (every row of the table alike), `embedding`
(rank 128, rows weighed), `embedding-distilled`, `linear` (layers that keep 0.95 of their squared products),
`linear-distilled`, `grouped` (feed-forwards, queries, keys and values in 4 groups), `grouped-distilled`,
`neighbours-distilled` (`embedding` widened over 3 tokens), `tied` (all layers, fitted), `tied-distilled`,
`tied-int8` (the same weights in 8 bits), `whole` and `whole-tied` (what makes 50 times smaller: a layer
less or all tied, factorised, distilled, a bit or 4 bits a weight). Half as wide: `narrow` (by one change of
basis), `narrow-features` (by features left out), and distilled: `narrow-apart` (a matrix a layer between the
widths), `narrow-distilled` (one pair for all), `narrow-matrices` (which the matrices are compared by, too),
`narrow-features-distilled` (the pair). With a vocabulary of --size tokens, trained on the sentences of
--train: `vocabulary`, `vocabulary-distilled` (by the teacher, which keeps its own), and beside them
`vocabulary-pruned` (the old tokens that these sentences use twice). Bytes are those of the file, of tables,
of the encoder's weights (all that is no table), and of what a pass factorised. Whatever was made stays in
--work and is not made again; a training that was stopped goes on.
"""

import argparse
import json
import time
from pathlib import Path

import graphwright as gw
from graphwright.backends.cache import cache_directory
from graphwright.backends.runtimes.onnxruntime import save_model
from graphwright.backends.target import detect
from graphwright.ir.footprint import weight_bytes
from graphwright.ir.program import Program
from graphwright.passes.common.texts import with_texts
from graphwright.passes.manager.contract import Context
from graphwright.passes.manager.pipeline import Pipeline
from graphwright.tools.verbs.demo import model_directory
from rich.console import Console
from rich.table import Table
from sentences import feeds, rows, score

TABLE, LINEAR = "factorise-embedding{{rank={rank}}}", "factorise-linear{{energy=0.95}}"
NARROW, FEATURES = "share-projections{{width=192}}", "prune-hidden{{ratio=0.5,importance=activation}}"
VOCABULARY = "transfer-vocabulary{{size={size}}}"
FOUR_BITS = "quantize-weights{bits=4,group=128,method=gptq}"
TIED = "tie-layers{{init=fit}},{distill}"
BUILDS = {
    "plain": "",
    "uncounted": TABLE,
    "embedding": TABLE,
    "embedding-distilled": TABLE + ",{distill}",
    "linear": LINEAR,
    "linear-distilled": LINEAR + ",{distill}",
    "grouped": "grouped-linear",
    "grouped-distilled": "grouped-linear,{distill}",
    "neighbours-distilled": TABLE + ",embedding-convolution,{distill}",
    "tied": "tie-layers{{init=fit}}",
    "tied-distilled": TIED,
    "tied-int8": TIED,
    "narrow": NARROW,
    "narrow-features": FEATURES,
    "narrow-apart": NARROW + ",{distill}",
    "narrow-distilled": NARROW + ",{shared}",
    "narrow-matrices": NARROW + ",{matrices}",
    "narrow-features-distilled": FEATURES + ",{shared}",
    "vocabulary": VOCABULARY,
    "vocabulary-distilled": VOCABULARY + ",{tables}",
    "vocabulary-pruned": "prune-vocabulary{{times=2,characters=seen}}",
    "whole": "prune-layers{{keep=5}}," + TABLE + ",{distill},quantize-product{{block=8}}",
    "whole-tied": "factorise-embedding{{rank=48}}," + TIED,
    "whole-tied-narrower": "factorise-embedding{{rank=32}}," + TIED,
    "whole-tied-3-bits": "factorise-embedding{{rank=48}}," + TIED,
}
AFTERWARDS = {
    "tied-int8": "quantize-weights{bits=8,group=128}",
    "whole-tied": FOUR_BITS,
    "whole-tied-narrower": FOUR_BITS,
    "whole-tied-3-bits": "quantize-weights{bits=3,embeddings=3,group=128,method=gptq}",
}


def encoder_bytes(program: Program) -> int:
    """Of the weights that nothing is looked up in."""
    return sum(
        value.const_value.nbytes
        for value in program.graph.graph.initializers.values()
        if not any(use.node.op_type.startswith("Gather") for use in value.uses())
    )


def make(name: str, args: argparse.Namespace, known: dict) -> None:
    """Runs a build's pipeline, lowers, scores and keeps what comes out."""
    model = model_directory()
    program = gw.trace(model)
    judged = {text for row in rows(args.sts) for text in row[:2]}
    texts = [t for t in dict.fromkeys(t for row in rows(args.train) for t in row[:2]) if t not in judged]
    texts = texts[: args.texts]
    training = [
        with_texts(feed, texts[32 * number : 32 * number + 32])
        for number, feed in enumerate(feeds(model, texts) if name != "uncounted" else ())
    ]
    context = Context(
        target=detect(), threads=2, calibration=training[:: max(1, len(training) // 8)], training=training,
        cache=cache_directory(), original=program,
    )  # fmt: skip
    bounds = f"minutes={args.minutes}" + (f",steps={args.steps}" if args.steps else "")
    taught = {"distill": "", "shared": ",projections=shared", "matrices": ",projections=shared,matrices=1.0",
             "tables": ",embeddings=true"}  # fmt: skip
    told = {how: f"distill{{{bounds}{options}}}" for how, options in taught.items()}
    text = BUILDS[name].format(rank=args.rank, size=args.size, **told)
    began = time.monotonic()
    passes = (text, "to-onnx", AFTERWARDS.get(name, ""))
    ran = Pipeline.parse(",".join(filter(None, passes))).run(program, context)
    path = args.work / f"{name}.onnx"
    save_model(ran.program_or_raise(), path)
    reads = args.work / f"{name}-tokenizer"
    reads.mkdir(exist_ok=True)
    (reads / "tokenizer.json").write_bytes(ran.program.tokenizer["tokenizer.json"])
    known[name] = {
        "pipeline": ",".join(filter(None, passes)),
        "seconds": time.monotonic() - began,
        "bytes": weight_bytes(ran.program),
        "encoder": encoder_bytes(ran.program),
        "file": sum(part.stat().st_size for part in args.work.glob(f"{name}.onnx*")),
        "spearman": score(path, reads, args.sts),
        "steps": [{"pass": step.text, "notes": step.notes, **step.statistics} for step in ran.steps],
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--sts", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--only", default=",".join(BUILDS))
    parser.add_argument("--rank", type=int, default=128)
    parser.add_argument("--size", type=int, default=8000)
    parser.add_argument("--minutes", type=float, default=25.0)
    parser.add_argument("--steps", type=int, default=0)
    parser.add_argument("--texts", type=int, default=None)
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    results = args.work / "results.json"
    known = json.loads(results.read_text()) if results.exists() else {}
    for name in args.only.split(","):
        if name not in known:
            make(name, args, known)
            results.write_text(json.dumps(known, indent=1))
            print(name, known[name], flush=True)
    table = Table("build", "Spearman", "file", "tables", "encoder", "factorised", "of before", "minutes")
    for name, row in known.items():
        step = next((step for step in row["steps"] if "bytes before" in step), None)
        share = f"{step['bytes'] / step['bytes before']:.3f}" if step else ""
        size = f"{step['bytes'] / 1e6:.2f} MB" if step else ""
        table.add_row(
            name, f"{row['spearman']:.2f}", f"{row['file'] / 1e6:.2f} MB",
            f"{(row['bytes'] - row['encoder']) / 1e6:.2f} MB", f"{row['encoder'] / 1e6:.2f} MB",
            size, share, f"{row['seconds'] / 60:.1f}",
        )  # fmt: skip
    Console(width=110).print(table)


if __name__ == "__main__":
    main()

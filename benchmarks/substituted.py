"""MiniLM with other attention in half of its layers: Spearman on STS-B, as it is and distilled.

    python benchmarks/substituted.py --train ../shared/data/stsb/train.csv \\
        --sts ../shared/data/stsb/dev.csv --work DIR [--kinds conv,linear,...] [--minutes 9] [--texts N]

--train: the sentences are distilled on, those of --sts left out; --sts: rows of sentence, sentence, score
without a header. Each kind is tried in every layer alone, by its error on the texts (`substitute-attention`
reports it), and put into the half of the layers that mind least; then the whole model is distilled from what
it was. Whatever was made stays in --work and is not made again; a training that was stopped goes on.
"""

import argparse
import json
import time
from pathlib import Path

import graphwright as gw
from graphwright.backends.cache import cache_directory
from graphwright.backends.runtimes.onnxruntime import save_model
from graphwright.backends.target import detect
from graphwright.passes.manager.contract import Context
from graphwright.passes.manager.pipeline import Pipeline
from graphwright.tools.verbs.demo import model_directory
from sentences import feeds, rows, score

KINDS = {
    "window": "window=4",
    "conv": "kernel=9",
    "conv dynamic": "kernel=9,dynamic=true",
    "linear": "",
    "performer": "features=64",
    "linformer": "rank=8",
    "nystrom": "landmarks=8",
    "synthesizer": "form=random",
    "synthesizer mixture": "form=random,mixture=true",
}


def make(kind: str, args: argparse.Namespace) -> dict:
    """The build's scores, with and without what distilling recovers."""
    model = model_directory()
    program = gw.trace(model)
    judged = {text for row in rows(args.sts) for text in row[:2]}
    texts = [t for t in dict.fromkeys(t for row in rows(args.train) for t in row[:2]) if t not in judged]
    training = list(feeds(model, texts[: args.texts]))
    context = Context(
        target=detect(), threads=2, calibration=training[:: max(1, len(training) // 8)], training=training,
        cache=cache_directory(), original=program,
    )  # fmt: skip
    options = ",".join(filter(None, (f"kind={kind.partition(' ')[0]}", KINDS[kind])))
    whole = Pipeline.parse(f"substitute-attention{{{options}}}").run(program, context).steps[0]
    errors = [float(error) for error in str(whole.statistics["error by layer"]).split()]
    least = sorted(sorted(range(len(errors)), key=errors.__getitem__)[: len(errors) // 2])
    half = f"substitute-attention{{{options},layers=({','.join(map(str, least))})}}"
    found = {"layers": least, "errors": errors}
    for name, more in (("as it is", ""), ("distilled", f",distill{{minutes={args.minutes}}}")):
        began = time.monotonic()
        ran = Pipeline.parse(f"{half}{more},to-onnx").run(program, context)
        path = args.work / f"{kind}-{name}.onnx".replace(" ", "-")
        save_model(ran.program_or_raise(), path)
        found[name] = {
            "spearman": float(score(path, model, args.sts)),
            "minutes": (time.monotonic() - began) / 60,
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--sts", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--texts", type=int)
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    results = args.work / "results.json"
    known = json.loads(results.read_text()) if results.exists() else {}
    for kind in args.kinds.split(","):
        if kind not in known:
            known[kind] = make(kind, args)
            results.write_text(json.dumps(known, indent=1))
        row = known[kind]
        told = [
            f"{row[name]['spearman']:.2f} | {row[name]['minutes']:.1f}" for name in ("as it is", "distilled")
        ]
        print(f"| {kind} | {row['layers']} | {' | '.join(told)} |", flush=True)


if __name__ == "__main__":
    main()

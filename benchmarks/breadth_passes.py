"""Every rewrite of traced programs on architectures of transformers: does it fit, or say why not?

    python benchmarks/breadth_passes.py --out FILE.jsonl [--only NAME ...] [--passes TEXT;TEXT...]

The models are those of `breadth.py`, tiny and random, their matrices three times as large so that tokens
matter to each other. A rewrite that found something is lowered by `to-onnx`, which is compared with the
rewritten program on probes, and run on a text alone and beside a longer one, padded: its real tokens must not
tell the difference (5e-4, of max(1, the output)) where the model's own don't. What a pass refuses it says in
one sentence; any other exception is a fault. A process for each architecture; results are appended, and what
is in FILE already is not run again.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

import numpy as np
from breadth import LIMIT, build, feeds
from breadth_models import NAMES

ALONE, LONGER, CLOSE = 11, 16, 5e-4  # tokens; of max(1, the output)
PASSES = """
prune-heads{ratio=0.5}; prune-ffn{ratio=0.5}; prune-hidden{ratio=0.25,multiple=8}; prune-layers{keep=1};
prune-weights; prune-weights{pattern=2:4}; prune-tokens{layers=(0),keep=(0.5)}; share-projections{width=24};
tie-layers; tie-layers{what=ffn,init=fit,rounds=1}; tie-embeddings{init=mean}; factorise-embedding{rank=8};
factorise-linear{rank=8}; factorise-embedding{rank=8},embedding-convolution;
bottleneck{width=16,feed_forwards=2};
grouped-linear{groups=2}; mixture-of-experts{experts=4,top=1};
nonorm{limit=100}; nonorm{limit=100},fold-affine;
replace-activation; fold-scale; extend-positions{length=128}; segment-memory{length=8};
substitute-attention{kind=window,window=2}; substitute-attention{kind=window,window=2},block-attention;
substitute-attention{kind=bigbird,block=4},block-attention; substitute-attention{kind=linear};
substitute-attention{kind=performer}; substitute-attention{kind=linformer,rank=4,length=64};
substitute-attention{kind=nystrom,landmarks=4}; substitute-attention{kind=lsh,block=4};
substitute-attention{kind=routing,clusters=3}; substitute-attention{kind=clustered,clusters=3};
substitute-attention{kind=sinkhorn,block=4}; substitute-attention{kind=conv};
substitute-attention{kind=lsra}; substitute-attention{kind=synthesizer,length=64};
substitute-attention{kind=entmax}; substitute-attention{kind=adaptive-span,span=4};
quantize-ternary{steps=2}; quantize-binary{steps=2}; quantize-product{steps=1,finish=2,centroids=16};
fake-quant; prune-heads{ratio=0.5},prune-ffn{ratio=0.5},tie-layers,factorise-embedding{rank=8}
"""


def pair(program: Any) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]] | None:
    """A text alone, and the same in a padded batch of two; None where there is no mask."""
    from graphwright.ir.inputs.probe import feed

    masks = [spec.name for spec in program.inputs if spec.role == "attention_mask"]
    if len(masks) != 1 or not {"batch", "length"} <= set(program.symbols):
        return None
    if any(set(spec.shape) - {"batch", "length"} for spec in program.inputs):
        return None
    rng = np.random.default_rng(5)
    both = feed(program, {"batch": 2, "length": LONGER}, "none", rng)
    both[masks[0]] = np.ones_like(both[masks[0]])
    both[masks[0]][0, ALONE:] = 0
    alone = {
        spec.name: both[spec.name][tuple(slice(0, 1 if d == "batch" else ALONE) for d in spec.shape)]
        for spec in program.inputs
    }
    return alone, both


def apart(lowered: Any, alone: Any, both: Any) -> float:
    """How far the text's outputs are from those in the batch, of max(1, the output); infinite for a NaN."""
    from graphwright.backends.runtimes.onnxruntime import OnnxRuntime

    artifact = OnnxRuntime().build(lowered)
    one, two = artifact.run(alone), artifact.run(both)
    worst = 0.0
    for name, value in one.items():
        if value.dtype.kind != "f":
            continue
        place = tuple(slice(0, size) for size in value.shape)
        other = two[name][place]
        if not np.isfinite(value).all() or not np.isfinite(other).all():
            return float("inf")
        worst = max(worst, float((np.abs(value - other) / np.maximum(1, np.abs(value))).max(initial=0)))
    return worst


def tried(text: str, program: Any, data: list, texts: Any, own: float) -> dict[str, Any]:
    from graphwright.backends.target import detect
    from graphwright.passes.manager.contract import Context
    from graphwright.passes.manager.pipeline import Pipeline

    row: dict[str, Any] = {}
    try:
        run = Pipeline.parse(text).run(program, Context(target=detect(), calibration=data))
        said = ((s.status, s.counted, "; ".join(s.notes), s.error or "") for s in run.steps)
        row["steps"] = [" ".join(map(str, parts))[:300] for parts in said]
        if not run.ok or not any(step.status == "applied" for step in run.steps):
            return row
        lowered = Pipeline.parse("to-onnx").run(run.program, Context(target=detect()))
        if not lowered.ok:
            row["fault"] = f"to-onnx: {lowered.steps[0].error}"
            return row
        if texts is not None and own <= CLOSE:
            row["apart"] = apart(lowered.program, *texts)
            if row["apart"] > CLOSE:
                row["fault"] = f"a text's outputs depend on its batch: {row['apart']:.2g}"
    except Exception as error:
        from graphwright.ir.errors import GraphwrightError

        kind = "refused" if isinstance(error, GraphwrightError) else "fault"
        row[kind] = f"{type(error).__name__}: {' '.join(str(error).split())[:400]}"
        if kind == "fault" or "unexpected" in row[kind]:
            row["fault"], row["where"] = row[kind], traceback.format_exc()[-1500:]
    return row


def work(name: str, texts: list[str], sender: Any) -> None:
    import graphwright as gw
    import torch
    from graphwright.passes.manager.pipeline import Pipeline

    torch.set_num_threads(1)
    try:
        with tempfile.TemporaryDirectory() as folder:
            model = build(name)
            for weight in model.parameters():
                weight.data *= 3 if weight.dim() > 1 else 1
            model.save_pretrained(folder)
            program = gw.trace(Path(folder))
        data, feed_pair = feeds(program), pair(program)
        own = apart(Pipeline.parse("to-onnx").run(program).program, *feed_pair) if feed_pair else 0.0
        sender.send({"pass": "", "apart": own, "text": feed_pair is not None})
        for text in texts:
            began = time.perf_counter()
            row = tried(text, program, data, feed_pair, own)
            sender.send({"pass": text, **row, "seconds": round(time.perf_counter() - began, 1)})
    except Exception as error:
        sender.send({"pass": "", "fault": f"{type(error).__name__}: {error}"[:300]})
    sender.send(None)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="*", default=NAMES)
    parser.add_argument("--passes", default=PASSES)
    args = parser.parse_args()
    texts = [text.strip() for text in args.passes.split(";") if text.strip()]
    lines = args.out.read_text().splitlines() if args.out.exists() else []
    known = {(row["name"], row["pass"]) for row in map(json.loads, lines)}
    for name in args.only:
        wanted = [text for text in texts if (name, text) not in known]
        if not wanted:
            continue
        receiver, sender = multiprocessing.get_context("spawn").Pipe(duplex=False)
        process = multiprocessing.get_context("spawn").Process(target=work, args=(name, wanted, sender))
        process.start()
        sender.close()
        with args.out.open("a") as file:
            while True:
                try:
                    row = receiver.recv() if receiver.poll(LIMIT) else {"pass": "", "fault": "no end"}
                except EOFError:
                    row = {"pass": "", "fault": "died"}
                if row is None:
                    break
                file.write(json.dumps({"name": name, **row}) + "\n")
                file.flush()
                if "fault" in row:
                    print(name, row["pass"], row["fault"], flush=True)
                if row.get("fault") in ("no end", "died"):
                    break
        process.kill()
        process.join()


if __name__ == "__main__":
    main()

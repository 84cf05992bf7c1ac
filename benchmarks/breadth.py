"""Architectures of transformers, tiny and random, from a directory to graphs: captured, found, right?

    python benchmarks/breadth.py --out FILE.jsonl [--only NAME ...] [--tvm N]

Each is saved as a user's directory (config.json, model.safetensors), captured, its attentions and
feed-forwards counted against what its code says, and run through `exact` and `balanced` for ONNX Runtime (the
first N also `exact` for TVM). Outputs are compared with PyTorch eager on three ragged batches and
one padded on the left, at real tokens. A process each, so that one that dies or hangs costs itself alone;
results are appended, and what is in FILE already is not run again.
"""

from __future__ import annotations

import argparse
import inspect
import json
import multiprocessing
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

import numpy as np
from breadth_models import COUNTS, NAMES, SETTINGS, SMALL

TWO = (2, 2)
SEED, LIMIT = 0, 600  # seconds for one architecture
SHAPES = ((1, 9, "right"), (3, 11, "right"), (4, 16, "ragged"), (3, 13, "left"))


def build(name: str) -> Any:
    """The model in evaluation mode, with random norms and biases, so that one that is lost shows."""
    import torch
    import transformers

    torch.manual_seed(SEED)
    config = transformers.AutoConfig.for_model(name)
    own = SETTINGS.get(name, {})
    other = config.attribute_map  # a size by its second name would win over one given by its first
    known = config.to_dict().keys() | other.keys()
    small = {
        k: v for k, v in SMALL.items() if k in known and other.get(k, k) not in own and _settable(config, k)
    }
    settings = small | own
    config = transformers.AutoConfig.for_model(name, **settings)
    kind = type(config).__name__.removesuffix("Config") + "Model"  # for those that AutoModel doesn't list
    listed = isinstance(transformers.AutoModel._model_mapping.get(type(config), None), type)
    made = transformers.AutoModel.from_config(config) if listed else getattr(transformers, kind)(config)
    model = made.eval().float()
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        if parameter.dim() == 1:
            parameter.data += torch.randn(parameter.shape, generator=generator) * 0.1
    return model


def _settable(config: Any, name: str) -> bool:
    held = getattr(type(config), name, None)
    return not isinstance(held, property) or held.fset is not None


def feeds(program: Any) -> list[dict[str, np.ndarray]]:
    from graphwright.ir.inputs.probe import feed

    found = []
    for number, (batch, length, mask) in enumerate(SHAPES):
        wished = {s: batch if s == "batch" else length for s in program.symbols}
        sizes = {s: int(np.clip(wished[s], low, high)) for s, (low, high) in program.symbols.items()}
        found.append(feed(program, sizes, mask, np.random.default_rng(number)))
    return found


def eager(model: Any, program: Any, feed: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    import torch

    options = {"return_dict": True}
    if "use_cache" in inspect.signature(model.forward).parameters:
        options["use_cache"] = False  # T5Gemma hides padding only then, whatever its configuration says
    with torch.no_grad():
        result = model(**{name: torch.from_numpy(array) for name, array in feed.items()}, **options)
    return {name: result[name].numpy() for name in program.outputs if name in result}


def distances(program: Any, feed: Any, wanted: Any, found: Any) -> tuple[float, float]:
    """(largest |found - wanted| / max(1, |wanted|), smallest cosine of a row), at real tokens."""
    from graphwright.ir.agreement import scaled_distance, smallest_cosine

    masks = [
        spec.name for spec in program.inputs if spec.role in ("attention_mask", "decoder_attention_mask")
    ]
    error, cosine = 0.0, 1.0
    for name, reference in wanted.items():
        a, b = reference.astype(np.float64), found[name].astype(np.float64)
        for mask in masks:
            if a.shape[:2] == feed[mask].shape:
                a, b = a[feed[mask] != 0], b[feed[mask] != 0]
                break
        if a.shape != b.shape or np.isnan(b).any():
            return float("inf"), -1.0
        error, cosine = max(error, scaled_distance(a, b)), min(cosine, smallest_cosine(a, b))
    return error, cosine


def work(name: str, tvm: bool, sender: Any) -> None:
    record: dict[str, Any] = {"name": name}
    try:
        with tempfile.TemporaryDirectory() as folder:
            examine(name, Path(folder), tvm, record)
    except Exception as error:
        record["error"] = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        record["where"] = traceback.format_exc()[-1500:]
    sender.send(record)


def examine(name: str, folder: Path, tvm: bool, record: dict[str, Any]) -> None:
    """Fills a record, so that what was found before an error is kept."""
    import graphwright as gw
    from graphwright.backends.runtimes.onnxruntime import OnnxRuntime
    from graphwright.backends.target import detect
    from graphwright.ir.blocks import recognise
    from graphwright.ir.view import view
    from graphwright.passes.manager.contract import Context
    from graphwright.passes.manager.pipeline import Pipeline
    from graphwright.tools.build.presets import chain

    model = build(name)
    model.save_pretrained(folder)
    began = time.perf_counter()
    program = gw.trace(folder)
    record |= {"captured": True, "capture_s": round(time.perf_counter() - began, 1)}
    record["symbols"] = {symbol: list(bounds) for symbol, bounds in program.symbols.items()}
    record["inputs"] = {spec.name: f"{spec.role} {list(spec.shape)}" for spec in program.inputs}
    blocks = recognise(view(program))
    record["attention"], record["feed_forward"] = counts(blocks)
    record["missed"] = [f"{m.kind}: {m.reason}" for m in blocks.missed][:6]
    batches = feeds(program)
    references = [eager(model, program, feed) for feed in batches]
    lowered = Pipeline.parse("to-onnx").run(program).program
    onnx = recognise(view(lowered))
    record["onnx_attention"], record["onnx_feed_forward"] = counts(onnx)
    for preset in ("exact", "balanced"):
        context = Context(target=detect(), calibration=batches)
        run = chain(preset, program)[0].run(program, context, keep_going=True)
        record[f"{preset}_rolled_back"] = [
            f"{s.text}: {s.error}" for s in run.steps if s.status in ("rolled back", "refused")
        ]
        record[f"{preset}_unverified"] = [s.unverified for s in run.steps if s.unverified][:1]
        artifact = OnnxRuntime().build(run.program)
        found = [distances(program, f, r, artifact.run(f)) for f, r in zip(batches, references, strict=True)]
        record[f"{preset}_error"], record[f"{preset}_cosine"] = (
            max(e for e, _ in found),
            min(c for _, c in found),
        )
    if tvm:
        from graphwright.backends.tvm.backend import Tvm

        lowered = (
            chain("exact", program, "tvm")[0].run(program, Context(target=detect()), keep_going=True).program
        )
        artifact = Tvm().build(lowered, buckets=[_sizes(lowered, batches[1])])
        record["tvm_error"] = distances(program, batches[1], references[1], artifact.run(batches[1]))[0]


def counts(blocks: Any) -> tuple[int, int]:
    """(attentions, feed-forwards and mixtures of them)"""
    return len(blocks.attention), len(blocks.feed_forward) + len(blocks.experts)


def _sizes(program: Any, feed: dict[str, np.ndarray]) -> dict[str, int]:
    pairs = ((d, n) for s in program.inputs for d, n in zip(s.shape, feed[s.name].shape, strict=True))
    return {dim: size for dim, size in pairs if isinstance(dim, str)}


def summary(records: list[dict[str, Any]]) -> None:
    good = [r for r in records if r.get("captured")]
    complete = [
        r
        for r in good
        if all(
            COUNTS.get(r["name"], TWO)[i] in (None, r[key]) and r.get(f"onnx_{key}") == r[key]
            for i, key in enumerate(("attention", "feed_forward"))
        )
    ]
    print(
        f"captured {len(good)} of {len(records)}; every attention and feed-forward found in {len(complete)}"
    )
    print(
        "rolled back:", sum(bool(r.get("exact_rolled_back") or r.get("balanced_rolled_back")) for r in good)
    )
    for key, bad in (
        ("exact_error", lambda x: x > 1e-5),
        ("balanced_cosine", lambda x: x < 0.999),
        ("tvm_error", lambda x: x > 1e-4),
    ):
        seen = [r for r in good if key in r]
        print(f"{key}: {sum(not bad(r[key]) for r in seen)} of {len(seen)} within")
    for r in records:
        expected = COUNTS.get(r["name"], TWO)
        parts = [r["error"]] if "error" in r else []
        if r in good and r not in complete:
            parts.append(f"found {r['attention']}, {r['feed_forward']} of {expected} {r['missed'][:2]}")
            parts.append(f"in ONNX {r.get('onnx_attention')}, {r.get('onnx_feed_forward')}")
        parts += [*r.get("exact_rolled_back", []), *r.get("balanced_rolled_back", [])]
        parts += [f"exact off by {r['exact_error']:.2g}"] if r.get("exact_error", 0) > 1e-5 else []
        parts += [f"balanced {r['balanced_cosine']:.5f}"] if r.get("balanced_cosine", 1) < 0.999 else []
        parts += [f"tvm off by {r['tvm_error']:.2g}"] if r.get("tvm_error", 0) > 1e-4 else []
        if parts:
            print(f"  {r['name']}: " + "; ".join(parts))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="*", choices=NAMES)
    parser.add_argument("--tvm", type=int, default=0, help="build the first so many for TVM, too")
    args = parser.parse_args()
    lines = args.out.read_text().splitlines() if args.out.exists() else []
    records = [json.loads(line) for line in lines]
    spawn = multiprocessing.get_context("spawn")
    for number, name in enumerate(args.only or NAMES):
        if any(r["name"] == name for r in records):
            continue
        receiver, sender = spawn.Pipe(duplex=False)
        process = spawn.Process(target=work, args=(name, number < args.tvm, sender))
        process.start()
        sender.close()  # so that the end of a process that dies is seen
        try:
            record = receiver.recv() if receiver.poll(LIMIT) else None
        except EOFError:
            record = None
        process.kill()
        record = record or {"name": name, "error": f"gave nothing in {LIMIT} s, or died"}
        records.append(record)
        with args.out.open("a") as file:
            file.write(json.dumps(record) + "\n")
        print(name, record.get("error", "ok"), file=sys.stderr, flush=True)
    summary(records)
    return 0


if __name__ == "__main__":
    sys.exit(main())

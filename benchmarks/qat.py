"""Quantization-aware training of a 2-class head on all-MiniLM-L6-v2, against quantizing it afterwards.

Run it as:
    python benchmarks/qat.py --train ../shared/data/sst2/train.tsv --dev ../shared/data/sst2/dev.tsv
    [--work build/qat] [--epochs 2] [--again 1] [--rows N] [--recipes "int8,int4"] [--seeds 0] [--json FILE]

1. The encoder, mean-pooled, with a new linear layer on top, is captured and fine-tuned in float: dropout on
   by `set-mode`, AdamW, a rate that falls to 0, at most 64 tokens.
2. Post-training: `fake-quant` on what that gave, not trained.
3. Quantization-aware: the same, trained for --again more epochs, with the float one trained again beside it,
   so that a gain is not one of training longer.

Each is exported by `to-onnx`, and accuracy is that of the ONNX file in ONNX Runtime on the whole of dev. Work
is kept in --work as safetensors after every epoch; a run that was stopped goes on from there.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import os
import time
from collections import Counter
from pathlib import Path

import numpy as np
import onnx_ir
import onnxruntime
import torch
from graphwright.backends.target import detect
from graphwright.ir.capture import capture
from graphwright.ir.fx.mode import set_mode
from graphwright.ir.onnx.kernels import INTEGER, kernels
from graphwright.ir.program import Program
from graphwright.passes.manager.contract import Context
from graphwright.passes.manager.pipeline import Pipeline
from graphwright.tools.verbs.demo import model_directory
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

LENGTH, BATCH, CALIBRATION = 64, 32, 16  # tokens, rows, batches
RECIPES = {
    "int8": "fake-quant{bits=8}",
    "int8 learned": "fake-quant{bits=8,learned=true}",
    "int4": "fake-quant{bits=4}",
    "int4 learned": "fake-quant{bits=4,learned=true}",
}


class Classifier(torch.nn.Module):
    """Mean-pooled token vectors through one linear layer: (batch, 2)."""

    def __init__(self, encoder: torch.nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = torch.nn.Linear(encoder.config.hidden_size, 2)

    def forward(self, input_ids, attention_mask, token_type_ids):
        tokens = self.encoder(input_ids, attention_mask, token_type_ids).last_hidden_state
        weight = attention_mask[..., None].to(tokens.dtype)
        return {"logits": self.head((tokens * weight).sum(1) / weight.sum(1))}


class Data:
    """Sentences and labels in batches, padded to their longest."""

    def __init__(self, path: Path, tokenizer: Tokenizer, rows: int = 10**9) -> None:
        lines = path.read_text(encoding="utf-8").splitlines()
        rows = [line.rsplit("\t", 1) for line in lines[:rows]]
        self.ids = [one.ids for one in tokenizer.encode_batch([text for text, _ in rows])]
        self.labels = np.array([int(label) for _, label in rows])

    def batch(self, chosen):
        longest = max(len(self.ids[i]) for i in chosen)
        ids = np.zeros((len(chosen), longest), np.int64)
        for row, i in enumerate(chosen):
            ids[row, : len(self.ids[i])] = self.ids[i]
        mask = (np.arange(longest) < np.array([len(self.ids[i]) for i in chosen])[:, None]).astype(np.int64)
        return {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}

    def epoch(self, seed):
        """Batches of similar length in random order."""
        rng = np.random.default_rng(seed)
        order = rng.permutation(len(self.ids))
        pools = [
            sorted(pool, key=lambda i: len(self.ids[i]))
            for pool in np.split(order, range(512, len(order), 512))
        ]
        batches = [pool[i : i + BATCH] for pool in pools for i in range(0, len(pool), BATCH)]
        return [batches[i] for i in rng.permutation(len(batches))]


def fresh(model: Path, seed: int) -> Program:
    """The pretrained encoder under a new head."""
    from transformers import AutoModel

    torch.manual_seed(seed)
    encoder = AutoModel.from_pretrained(model, local_files_only=True, add_pooling_layer=False)
    ids = torch.randint(1000, 2000, (2, 12))
    inputs = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "token_type_ids": torch.zeros_like(ids),
    }
    return capture(Classifier(encoder), inputs=inputs, task="sequence-classification")


def train(program: Program, data: Data, epochs: int, rate: float, seed: int, kept: Path) -> Program:
    """A trained copy of a program. What `kept` holds is not done again."""
    trained = program.with_graph(copy.deepcopy(program.graph))
    graph = trained.graph
    set_mode(graph, training=True)  # what the pass set-mode does
    named = dict(graph.named_parameters())
    plain = [p for n, p in named.items() if p.dim() < 2]  # norms, biases and steps do not decay
    groups = [{"params": [p for p in named.values() if p.dim() > 1]}, {"params": plain, "weight_decay": 0.0}]
    adam = torch.optim.AdamW(groups, lr=rate, weight_decay=0.01)
    done = _resume(kept, graph, adam, named)
    steps = epochs * len(data.epoch(0))
    for epoch in range(done, epochs):
        begun, losses = time.perf_counter(), []
        for number, chosen in enumerate(data.epoch([seed, epoch])):
            step = epoch * steps // epochs + number
            torch.manual_seed(seed * 1_000_003 + step)
            for group in adam.param_groups:
                group["lr"] = rate * min(1, (step + 1) / (0.1 * steps)) * (1 - step / steps)
            feed = data.batch(chosen)
            logits = graph(*(torch.from_numpy(feed[spec.name]) for spec in program.inputs))[0]
            loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(data.labels[chosen]))
            adam.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(graph.parameters(), 1.0)
            adam.step()
            losses.append(float(loss.detach()))
            if number % 50 == 49:
                print(
                    f"  {kept.stem}: epoch {epoch + 1}, step {number + 1}, loss {np.mean(losses[-50:]):.4f}",
                    flush=True,
                )
        say(f"  {kept.stem}: epoch {epoch + 1} took {time.perf_counter() - begun:.0f} s")
        _keep(kept, graph, adam, named, epoch + 1)
    set_mode(graph, training=False)
    return trained


def _keep(kept: Path, graph, adam, named, epoch: int) -> None:
    moments = {
        f"adam.{part}.{name}": adam.state[p][part]
        for name, p in named.items()
        for part in ("exp_avg", "exp_avg_sq", "step")
        if p in adam.state
    }
    tensors = {**{f"model.{n}": t for n, t in named.items()}, **moments, "epoch": torch.tensor(epoch)}
    save_file({name: t.detach().contiguous() for name, t in tensors.items()}, f"{kept}.partial")
    os.replace(f"{kept}.partial", kept)


def _resume(kept: Path, graph, adam, named) -> int:
    if not kept.exists():
        return 0
    tensors = load_file(kept)
    with torch.no_grad():
        for name, parameter in named.items():
            parameter.copy_(tensors[f"model.{name}"])
            if f"adam.step.{name}" in tensors:
                adam.state[parameter] = {
                    part: tensors[f"adam.{part}.{name}"] for part in ("exp_avg", "exp_avg_sq", "step")
                }
    return int(tensors["epoch"])


def judge(program: Program, dev: Data, work: Path) -> dict:
    """Accuracy of the exported file in percent, its bytes, and the integer kernels that run in it."""
    run = Pipeline.parse("to-onnx").run(program)
    if not run.ok:
        raise run.steps[-1].error
    path = work / "judged.onnx"
    onnx_ir.save(run.program.graph, path)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    right = 0
    for start in range(0, len(dev.labels), BATCH):
        chosen = range(start, min(start + BATCH, len(dev.labels)))
        logits = session.run(None, dev.batch(chosen))[0]
        right += int((logits.argmax(-1) == dev.labels[list(chosen)]).sum())
    ran = Counter(kernel.op_type for kernel in kernels(run.program.graph))
    integer = {name: count for name, count in sorted(ran.items()) if name in INTEGER}
    return {
        "accuracy": 100 * right / len(dev.labels),
        "bytes": path.stat().st_size,
        "integer kernels": integer,
    }


def say(line: str) -> None:
    print(line, flush=True)


def seeded(args, seed: int, found: dict) -> None:
    """Everything once, entered in `found` by name."""
    tokenizer = Tokenizer.from_file(str(model_directory() / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(LENGTH)
    data, dev = Data(args.train, tokenizer, args.rows), Data(args.dev, tokenizer)
    work = args.work / f"seed-{seed}"
    work.mkdir(parents=True, exist_ok=True)

    def tell(name: str, program: Program) -> None:
        found[name] = judge(program, dev, work)
        say(f"seed {seed}, {name}: {found[name]}")

    start = fresh(model_directory(), seed)
    tuned = train(start, data, args.epochs, args.rate, seed, work / "float.safetensors")
    tell("float", tuned)
    again = train(tuned, data, args.again, args.rate, seed + 100, work / "float-again.safetensors")
    tell("float, trained again", again)
    feeds = [data.batch(chosen) for chosen in data.epoch([seed, 999])[:CALIBRATION]]
    context = Context(target=detect(), threads=1, seed=seed, calibration=feeds)
    for name in args.recipes:
        run = Pipeline.parse(RECIPES[name]).run(tuned, context, verify=False)
        if "learned" not in name:
            tell(f"{name} after training", run.program)
        slug = name.replace(" ", "-")
        trained = train(run.program, data, args.again, args.rate, seed + 100, work / f"{slug}.safetensors")
        tell(f"{name} in training", trained)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--dev", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("build/qat"))
    parser.add_argument("--rows", type=int, default=10**9)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--again", type=int, default=1)
    parser.add_argument("--recipes", type=lambda text: text.split(","), default=list(RECIPES))
    parser.add_argument("--rate", type=float, default=5e-5)
    parser.add_argument("--seeds", type=lambda text: [int(s) for s in text.split(",")], default=[0])
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    found: dict[int, dict] = {}
    for seed in args.seeds:
        seeded(args, seed, found.setdefault(seed, {}))
    for name in found[args.seeds[0]]:
        scores = [found[seed][name]["accuracy"] for seed in args.seeds]
        spread = f" (from {min(scores):.2f} to {max(scores):.2f})" if len(scores) > 1 else ""
        print(f"{name:28s} {math.fsum(scores) / len(scores):.2f}{spread}")
    if args.json:
        args.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()

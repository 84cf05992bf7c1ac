"""A MiniLM classifier of reviews with and without prune-tokens: accuracy and wall clock, for both runtimes.

    python benchmarks/prune_tokens.py --train ../shared/data/imdb/train_3000.jsonl \\
        --test ../shared/data/imdb/test_2000.jsonl --work DIR [--latency S] [--rounds N] [--steps N]

all-MiniLM-L6-v2 with the mean over its mask and a linear head learns the labels of --train (jsonl of text and
label) at 256 tokens; then tokens end for a latency, what is left is distilled from the classifier on the same
texts, and both are built with the preset `exact` for ONNX Runtime and for TVM. Calls are one text of 256
tokens and 8 texts of unequal lengths from --test, each pair of builds in turn (A B, B A). Everything that was
made is kept in --work, is not made again, and a training that was stopped goes on; results.json and
results.md hold what was found. --texts: fewer to judge on, to try the script.
"""

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

import graphwright as gw
import numpy as np
import torch
from graphwright.backends.measuring.gate import Measurer
from graphwright.backends.measuring.measure import compare
from graphwright.backends.measuring.workloads import Workload
from graphwright.backends.runtimes.onnxruntime import save_model
from graphwright.backends.target import detect
from graphwright.backends.tvm.backend import Tvm
from graphwright.backends.tvm.build.padding import padding_of
from graphwright.backends.tvm.run.artifact import write_compiled
from graphwright.ir.capture import capture
from graphwright.passes.manager.contract import Context
from graphwright.passes.manager.pipeline import Pipeline
from graphwright.tools.build.presets import chain
from graphwright.tools.verbs.demo import model_directory
from sentences import feeds, runner
from torch import nn
from transformers import AutoModel

LENGTH, BATCH = 256, 16
RUNTIMES = ("onnxruntime", "tvm")
WHOLE, FEWER = "all tokens", "prune-tokens"


class Classifier(nn.Module):
    """Two logits of the mean over a text's tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = AutoModel.from_pretrained(model_directory(), add_pooling_layer=False)
        self.head = nn.Linear(self.encoder.config.hidden_size, 2)

    def forward(self, input_ids, attention_mask, token_type_ids):
        hidden = self.encoder(input_ids, attention_mask, token_type_ids).last_hidden_state
        kept = attention_mask[..., None].float()
        return self.head((hidden * kept).sum(1) / kept.sum(1))


class Bench:
    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.folder = args, args.work
        self.folder.mkdir(parents=True, exist_ok=True)
        self.train, self.test = (read(path, args.texts) for path in (args.train, args.test))

    def results(self) -> dict:
        path = self.folder / "results.json"
        return json.loads(path.read_text()) if path.exists() else {}

    def note(self, name: str, **found) -> None:
        known = self.results()
        known.setdefault(name, {}).update(found)
        (self.folder / "results.json").write_text(json.dumps(known, indent=1))
        print(name, found, flush=True)

    def file(self, name: str, runtime: str) -> Path:
        name = f"{name}-{runtime}".replace(" ", "-")
        return self.folder / (f"{name}.onnx" if runtime == "onnxruntime" else name)


def read(path: Path, count: int | None) -> list[tuple[str, int]]:
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    found = [(row["text"], int(row["label"])) for row in rows]
    return found[:: max(1, len(found) // count)][:count] if count else found


def trained(bench: Bench) -> nn.Module:
    """The classifier; AdamW on batches of like length in random order, a checkpoint every ten."""
    torch.manual_seed(0)
    model, path = Classifier(), bench.folder / "classifier.pt"
    groups = [
        {"params": model.encoder.parameters(), "lr": 5e-5},
        {"params": model.head.parameters(), "lr": 1e-3},
    ]
    optimizer, done = torch.optim.AdamW(groups), 0
    if path.exists():
        kept = torch.load(path, weights_only=True)
        model.load_state_dict(kept["model"])
        optimizer.load_state_dict(kept["optimizer"])
        done = kept["done"]
    texts = sorted(bench.train, key=lambda row: min(len(row[0]), 6 * LENGTH))
    labels = torch.tensor([label for _, label in texts])
    made = list(feeds(model_directory(), [text for text, _ in texts], BATCH, None))
    order = np.concatenate([np.random.default_rng(epoch).permutation(len(made)) for epoch in range(9)])
    model.train()
    for step in range(done, bench.args.steps):
        torch.manual_seed(step)
        number = int(order[step % len(order)])
        feed = {name: torch.from_numpy(array) for name, array in made[number].items()}
        wanted = labels[number * BATCH : (number + 1) * BATCH]
        loss = nn.functional.cross_entropy(model(**feed), wanted)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group, rate in zip(optimizer.param_groups, (5e-5, 1e-3), strict=True):
            group["lr"] = rate * min(1.0, (step + 1) / 20) * (1 - step / bench.args.steps)
        optimizer.step()
        if step % 10 == 9 or step == bench.args.steps - 1:
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "done": step + 1}
            torch.save(state, path.with_suffix(".new"))
            path.with_suffix(".new").replace(path)
            print(f"step {step + 1} of {bench.args.steps}, loss {loss.item():.3f}", flush=True)
    return model.eval()


def calls(bench: Bench) -> list[Workload]:
    """One text that fills a call, and eight of unequal lengths, padded to the longest."""
    texts = [text for text, _ in bench.test]
    long = next(feed for feed in feeds(model_directory(), texts, 1) if feed["input_ids"].shape[1] == LENGTH)
    uneven = sorted(texts, key=len)
    eight = [uneven[(2 * i + 1) * len(uneven) // 16] for i in range(8)]
    return [Workload("1x256", long), Workload("8 unequal", next(feeds(model_directory(), eight, 8)))]


def programs(bench: Bench, work: list[Workload]) -> dict:
    """The classifier as it is and on fewer tokens, lowered."""
    example = {name: torch.from_numpy(array) for name, array in work[1].feed.items()}
    whole = replace(capture(trained(bench), inputs=example), task="sequence-classification")
    training = list(feeds(model_directory(), [text for text, _ in bench.train], BATCH))
    recovery = f"distill{{minutes={bench.args.minutes},steps={bench.args.recovery}}}"
    texts = {
        WHOLE: "to-onnx",
        FEWER: f"prune-tokens{{latency={bench.args.latency},workload=1x256,score={bench.args.score}}},"
        f"{recovery},to-onnx",
    }
    found = {}
    for name, text in texts.items():
        path = bench.folder / f"{name.replace(' ', '-')}-lowered.onnx"
        if not path.exists():
            began = time.monotonic()
            with Measurer(work, 2) as measurer:
                context = Context(
                    target=detect(), calibration=training[:: max(1, len(training) // 8)], training=training,
                    cache=bench.folder / "cache", original=whole, measure=measurer,
                    conditions=measurer.conditions,
                )  # fmt: skip
                ran = Pipeline.parse(text).run(whole, context)
            save_model(ran.program_or_raise(), path)
            told = [
                {"pass": s.text, "missed": s.missed, "seconds": s.seconds, **s.statistics} for s in ran.steps
            ]
            bench.note(name, seconds=time.monotonic() - began, steps=told)
        found[name] = gw.trace(path)
    return found


def build(bench: Bench, name: str, runtime: str, program, work: list[Workload]) -> None:
    """With the preset `exact`."""
    path = bench.file(name, runtime)
    if path.exists():
        return
    with Measurer(work, 2) as measurer:
        measured = {"measure": measurer, "conditions": measurer.conditions} if runtime == RUNTIMES[0] else {}
        made = chain("exact", program, runtime)[0].run(program, Context(target=detect(), **measured))
    if runtime == "onnxruntime":
        save_model(made.program_or_raise(), path)
    else:
        sizes = [{"batch": batch, "length": LENGTH} for batch in (1, 8)]
        built = Tvm().build(made.program, detect(), 2, buckets=sizes, padding=padding_of(program))
        write_compiled(path, built, force=True)


def judged(bench: Bench, name: str, runtime: str) -> None:
    """Accuracy on --test, a text at a time, and how far the logits of a text move in a batch of eight."""
    key = f"{name}, {runtime}"
    if "accuracy" in bench.results().get(key, {}):
        return
    answer = runner(bench.file(name, runtime))
    texts = [text for text, _ in bench.test]
    alone = np.concatenate([answer(feed) for feed in feeds(model_directory(), texts, 1)])
    beside = np.concatenate([answer(feed) for feed in feeds(model_directory(), texts[:64], 8)])
    right = alone.argmax(1) == np.array([label for _, label in bench.test])
    moved = float(np.abs(beside - alone[: len(beside)]).max())
    bench.note(key, accuracy=float(100 * right.mean()), moved_by_the_batch=moved)


def timed(bench: Bench, runtime: str, work: list[Workload]) -> None:
    pair = {name: bench.file(name, runtime) for name in (WHOLE, FEWER)}
    found = compare(pair, work, threads=2, rounds=bench.args.rounds)
    for name, row in found.cells.items():
        for call, cell in row.items():
            ratio = [round(x, 3) for x in (cell.speedup.median, cell.speedup.low, cell.speedup.high)]
            bench.note(f"{name}, {runtime}", **{f"ms {call}": round(cell.ms, 3), f"ratio {call}": ratio})


def table(bench: Bench) -> None:
    lines = ["| build | accuracy | 1x256, ms | | 8 unequal, ms | |", "|---|---|---|---|---|---|"]
    for runtime in RUNTIMES:
        for name in (WHOLE, FEWER):
            row = bench.results()[f"{name}, {runtime}"]
            cells = [
                f"{row[f'ms {call}']:.2f} | {{:.2f}}x [{{:.2f}}, {{:.2f}}]".format(*row[f"ratio {call}"])
                for call in ("1x256", "8 unequal")
            ]
            lines.append(f"| {name}, {runtime} | {row['accuracy']:.2f} | {' | '.join(cells)} |")
    (bench.folder / "results.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--test", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--latency", type=float, default=0.47)
    parser.add_argument("--score", default="received")
    parser.add_argument("--steps", type=int, default=300, help="of training, 16 texts each")
    parser.add_argument("--recovery", type=int, default=200, help="steps of distillation")
    parser.add_argument("--minutes", type=float, default=12.0, help="of distillation, at most")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--texts", type=int)
    args = parser.parse_args()
    bench = Bench(args)
    work = calls(bench)
    for name, program in programs(bench, work).items():
        for runtime in RUNTIMES:
            build(bench, name, runtime, program, work)
            judged(bench, name, runtime)
    for runtime in RUNTIMES:
        timed(bench, runtime, work)
    table(bench)


if __name__ == "__main__":
    main()

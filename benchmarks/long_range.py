"""Kinds of attention trained small from scratch on long inputs, in the manner of Long Range Arena.

    python benchmarks/long_range.py --work DIR [--tasks listops,bytes] [--kinds full,window,...] [--steps 600]
        [--train ../shared/data/imdb/train_3000.jsonl --test ../shared/data/imdb/test_2000.jsonl]

Two tasks of Tay et al., 2020 (arXiv:2011.04006, section 2.2): ListOps (its grammar is Nangia and Bowman's,
2018, arXiv:1804.06028, section 2: MIN, MAX, MED and SM, the sum modulo 10, over up to 10 arguments, nested;
generated here by --seed) and the label of a review read byte by byte (--train, --test: jsonl of text and
label). One encoder for all: 2 layers of 64 features, 4 heads, learned places, a token in front that the label
is read from, as there; a kind is put in by `substitute-attention` before the first step, patterns through
`block-attention`. Same batches, steps and rates for all, so accuracies tell an order and no more. What was
trained is kept in --work.
"""

import argparse
import json
import random
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median_low

import numpy as np
import torch
from graphwright.ir.capture import capture
from graphwright.ir.program import Program
from graphwright.passes.common.outputs import arguments
from graphwright.passes.manager.contract import Context
from graphwright.passes.manager.pipeline import Pipeline
from torch import nn

WIDTH, HEADS, LAYERS, BATCH = 64, 4, 2, 16
TASKS = {"listops": (16, 10, 512), "bytes": (257, 2, 1024)}  # vocabulary, labels, longest
OPERATORS = {"MIN": min, "MAX": max, "MED": median_low, "SM": lambda values: sum(values) % 10}
BLOCKED = ("window", "block", "strided", "random", "bigbird", "etc")
KINDS = {
    "full": "",
    "window": "window=32",
    "block": "block=32",
    "bigbird": "",
    "linear": "",
    "performer": "",
    "linformer": "rank=64",
    "nystrom": "",
    "lsh": "",
    "routing": "",
    "clustered": "",
    "sinkhorn": "",
    "synthesizer": "form=factorised-random",
    "conv": "",
}
Row = tuple[list[int], int]


def expression(rng: random.Random, room: int, depth: int) -> tuple[list[str], int]:
    """Tokens of at most so many, and the value."""
    if depth == 0 or room < 4 or rng.random() < 0.25:
        digit = rng.randrange(10)
        return [str(digit)], digit
    name = rng.choice(list(OPERATORS))
    tokens, values, left = [f"[{name}"], [], room - 2
    for _ in range(rng.randint(2, 10)):
        if left < 1:
            break
        found, value = expression(rng, min(left, room // 2), depth - 1)
        tokens += found
        values.append(value)
        left -= len(found)
    return [*tokens, "]"], OPERATORS[name](values)


def listops(count: int, seed: int, longest: int) -> list[Row]:
    """Expressions of half the longest length and more."""
    rng = random.Random(seed)
    words = [*map(str, range(10)), *(f"[{name}" for name in OPERATORS), "]"]
    numbers = {word: number for number, word in enumerate(words, 1)}
    found: list[Row] = []
    while len(found) < count:
        tokens, value = expression(rng, longest, 10)
        if len(tokens) >= longest // 2:
            found.append(([numbers[token] for token in tokens], value))
    return found


def texts(path: Path, longest: int) -> list[Row]:
    """Bytes of each text, plus one."""
    rows = (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())
    return [([b + 1 for b in row["text"].encode()[:longest]], int(row["label"])) for row in rows]


class Encoder(nn.Module):
    def __init__(self, vocabulary: int, labels: int, longest: int) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(vocabulary + 1, WIDTH), nn.Embedding(longest + 1, WIDTH)
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, labels)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        x = self.words(input_ids) + self.places(torch.arange(input_ids.shape[1]))
        for layer in self.layers:
            x = layer(x, attention_mask)
        return self.head(self.norm(x[:, 0]))


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.up, self.down = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)
        self.first, self.second = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        y = self.first(x)
        q, k, v = (side(y).unflatten(-1, (HEADS, -1)).transpose(1, 2) for side in (self.q, self.k, self.v))
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None] != 0)
        x = x + self.o(mixed.transpose(1, 2).flatten(2))
        return x + self.down(nn.functional.gelu(self.up(self.second(x))))


def batches(
    rows: Sequence[Row], first: int, seed: int | None
) -> list[tuple[dict[str, np.ndarray], np.ndarray]]:
    """Of like length, each behind the token `first`, padded to the longest; in random order where there is a
    seed."""
    ordered = sorted(rows, key=lambda row: len(row[0]))
    made = []
    for start in range(0, len(ordered) - BATCH + 1, BATCH):
        chosen = ordered[start : start + BATCH]
        ids = np.zeros((BATCH, len(chosen[-1][0]) + 1), np.int64)
        for row, (tokens, _) in zip(ids, chosen, strict=True):
            row[: len(tokens) + 1] = first, *tokens
        feed = {"input_ids": ids, "attention_mask": (ids != 0).astype(np.int64)}
        made.append((feed, np.array([label for _, label in chosen])))
    order = range(len(made)) if seed is None else np.random.default_rng(seed).permutation(len(made))
    return [made[number] for number in order]


def program(task: str, kind: str, rows: Sequence[Row]) -> Program:
    torch.manual_seed(0)
    example = {
        "input_ids": torch.ones(2, 40, dtype=torch.long),
        "attention_mask": torch.ones(2, 40, dtype=torch.long),
    }
    made = capture(Encoder(*TASKS[task]).eval(), inputs=example)
    if kind == "full":
        return made
    options = ",".join(filter(None, (f"kind={kind}", KINDS[kind])))
    text = f"substitute-attention{{{options}}}" + (",block-attention" if kind in BLOCKED else "")
    feeds = [feed for feed, _ in batches(rows[: 8 * BATCH], TASKS[task][0], None)]
    ran = Pipeline.parse(text).run(made, Context(calibration=feeds), verify=False)
    return ran.program_or_raise()


def trained(task: str, kind: str, train: Sequence[Row], test: Sequence[Row], steps: int) -> dict:
    """Accuracy on `test` after so many steps, and how long they took."""
    made = program(task, kind, train)
    parameters = [p for p in made.graph.parameters() if p.is_floating_point()]
    for parameter in parameters:
        parameter.requires_grad_(True)
    optimizer = torch.optim.AdamW(parameters, weight_decay=0.01)
    first = TASKS[task][0]
    epochs = (batch for epoch in range(steps) for batch in batches(train, first, epoch))
    began, losses = time.monotonic(), []
    for step, (feed, labels) in zip(range(steps), epochs, strict=False):
        (logits,) = made.graph(*arguments(made, feed))
        loss = nn.functional.cross_entropy(logits, torch.from_numpy(labels))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * min(1.0, (step + 1) / 50) * (1 - step / steps)
        optimizer.step()
        losses.append(loss.item())
    seconds = time.monotonic() - began
    with torch.no_grad():
        right = [
            (made.graph(*arguments(made, feed))[0].argmax(1).numpy() == labels).mean()
            for feed, labels in batches(test, first, None)
        ]
    return {
        "accuracy": round(float(100 * np.mean(right)), 2),
        "loss": round(float(np.mean(losses[-20:])), 3),
        "seconds": round(seconds, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--tasks", default="listops,bytes")
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--train", type=Path)
    parser.add_argument("--test", type=Path)
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    kept = args.work / "range.json"
    found = json.loads(kept.read_text()) if kept.exists() else {}
    for task in args.tasks.split(","):
        longest = TASKS[task][2]
        if task == "listops":
            train, test = (listops(n, args.seed + i, longest) for i, n in enumerate((6000, 1000)))
        elif args.train is None or args.test is None:
            parser.error("the task 'bytes' needs --train and --test: files of texts and labels")
        else:
            train, test = texts(args.train, longest), texts(args.test, longest)
        for kind in args.kinds.split(","):
            if (key := f"{task} {kind} {args.steps}") not in found:
                found[key] = trained(task, kind, train, test, args.steps)
                kept.write_text(json.dumps(found, indent=1))
                print(key, found[key], flush=True)
        order = sorted((k for k in found if k.startswith(f"{task} ")), key=lambda k: -found[k]["accuracy"])
        print(f"\n| {task} | accuracy | loss | seconds |\n|---|---|---|---|")
        for key in order:
            row = found[key]
            print(f"| {key.split()[1]} | {row['accuracy']:.1f} | {row['loss']:.3f} | {row['seconds']:.0f} |")


if __name__ == "__main__":
    main()

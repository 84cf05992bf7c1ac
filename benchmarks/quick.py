"""A first look: `optimize --quick` on a classifier of two layers with 300 rows, from command to bundle.

    python benchmarks/quick.py [--old DIR/graphwright] [--rounds 5] [--json FILE]

A random BERT classifier of two layers and width 128 (4.4 million parameters) whose tokenizer knows a few
words and the letters. Every run starts with an empty measurement cache. --old: another checkout, run in turn
with this one (A B, B A, ...); the ratio is the median of those of the rounds. Processor seconds are those of
the command and all its processes: they tell more than the clock where others use the machine.
"""

from __future__ import annotations

import csv
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

WORDS = (
    "the film was good bad dull bright long short a and but not very plot cast song end scene story".split()
)
HERE = Path(__file__).resolve().parents[1]


def classifier(folder: Path) -> None:
    """Its directory, as Hugging Face writes it."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertForSequenceClassification

    letters = "abcdefghijklmnopqrstuvwxyz"
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS, *letters, *(f"##{letter}" for letter in letters)]
    vocabulary = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    torch.manual_seed(0)
    config = BertConfig(
        hidden_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=512,
        num_labels=2,
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))


def rows(path: Path, count: int = 300) -> None:
    """text,label; labels are drawn, since the weights are."""
    draw = np.random.default_rng(0)
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for _ in range(count):
            writer.writerow([" ".join(draw.choice(WORDS, draw.integers(4, 24))), draw.integers(2)])


def seconds(checkout: Path, model: Path, data: Path) -> tuple[float, float]:
    """By the clock and of the processor, of one run with an empty cache."""
    with tempfile.TemporaryDirectory() as folder:
        words = [sys.executable, "-m", "graphwright.tools.cli", str(model), "-o", f"{folder}/out"]
        words += ["--data", str(data), "--quick"]
        where = {"PYTHONPATH": str(checkout.parent), "GRAPHWRIGHT_CACHE": f"{folder}/cache"}
        began, used = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(words, env=os.environ | where, capture_output=True, text=True, cwd=folder)
        taken, now = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
        if done.returncode:
            sys.exit(done.stderr)
        return taken, now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime


def main(
    old: Annotated[Path | None, typer.Option(help="another checkout to run in turn with this one")] = None,
    rounds: Annotated[int, typer.Option(help="runs of each")] = 5,
    json_file: Annotated[Path | None, typer.Option("--json", help="also write the figures here")] = None,
) -> None:
    checkouts = {"this": HERE} | ({"old": old.resolve()} if old else {})
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in checkouts}
    with tempfile.TemporaryDirectory() as folder:
        model, data = Path(folder, "model"), Path(folder, "rows.csv")
        classifier(model)
        rows(data)
        for number in range(rounds):
            for name in list(checkouts)[:: -1 if number % 2 else 1]:
                found[name].append(seconds(checkouts[name], model, data))
    table = Table("checkout", "seconds", "processor seconds")
    for name, runs in found.items():
        wall, processor = np.array(runs).T
        table.add_row(
            name, *(f"{np.median(a):.1f} ({a.min():.1f} to {a.max():.1f})" for a in (wall, processor))
        )
    Console().print(table)
    if old:
        ratios = np.median(np.array(found["this"]) / np.array(found["old"]), axis=0)
        Console().print(f"this takes {ratios[0]:.2f} of the time and {ratios[1]:.2f} of the processor's")
    if json_file:
        json_file.write_text(json.dumps(found))


if __name__ == "__main__":
    typer.run(main)

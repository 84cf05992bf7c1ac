"""The tvm backend beside ONNX Runtime and PyTorch: dense kernels, all-MiniLM-L6-v2, BERT-base shapes.

    python benchmarks/compiled.py --calibrate ../shared/data/stsb/train.csv --sts ../shared/data/stsb/dev.csv
        [--only kernels,minilm,base,build] [--rounds 7] [--threads 2] [--json FILE]

kernels: one process a contestant, in turn: packed dense in float32 beside torch.mm (MKL), in int8 with its
epilogue (rows rounded already; bias, rounding for the next product) beside ONNX Runtime's MatMulInteger and
its dynamic quantization of the same product; where the processor has AMX, int8 in its tiles as well.
minilm: up to the token vectors, beside ONNX Runtime (plain, its quantize_dynamic and quantize_static) and our
graphs for it; Spearman x 100 over --sts. base: random weights of BERT-base's shapes, 1x128 and 1x384.
build: seconds to compile one size of MiniLM, and peak memory of a process with five sizes over one with one.
"""

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median, quantiles

import numpy as np
from graphwright.backends.measuring.measure import compare
from graphwright.backends.measuring.workloads import workloads
from graphwright.backends.runtimes.onnxruntime import save_model
from graphwright.backends.target import detect
from graphwright.backends.tvm.backend import Tvm
from graphwright.backends.tvm.build.padding import padding_of
from graphwright.backends.tvm.kernels.machine import Machine
from graphwright.backends.tvm.run.artifact import write_compiled
from graphwright.ir.capture import capture
from graphwright.passes.manager.contract import Context
from graphwright.passes.manager.pipeline import Pipeline
from graphwright.tools.verbs.demo import model_directory
from int8 import EXACT, PIPELINES, theirs
from rich.console import Console
from rich.table import Table
from sentences import export, feeds, rows, score, spread

SHAPES = ((128, 384, 384), (128, 384, 1536), (128, 1536, 384), (128, 768, 3072), (1024, 768, 768),
          (16, 384, 1536), (77, 768, 768))  # fmt: skip
CLEAN = "fold-constants,eliminate-identities,eliminate-common-subexpressions,eliminate-dead-code"
COMPILED = {
    "tvm": CLEAN,
    "tvm dynamic": f"{CLEAN},quantize-dynamic{{min_cosine=0.0,scale=tensor}}",
    "tvm smooth + static": f"{CLEAN},smooth-quant,quantize-static{{form=qdq,min_cosine=0.0}}",
}


def contestant(make, threads, pipe):
    """Dense products in a process of its own: prepares one for a shape, and answers every other message with
    the median seconds of a turn."""
    os.environ |= {"TVM_NUM_THREADS": str(threads), "OMP_NUM_THREADS": str(threads)}
    while (asked := pipe.recv()) is not None:
        if asked != "turn":
            call = make(asked, threads)
            pipe.send("ready")
            continue
        time.sleep(0.2)  # idle workers of who ran before spin that long
        end, taken = time.perf_counter() + 0.03, []
        while time.perf_counter() < end:
            call()
        end = time.perf_counter() + 0.1
        while (start := time.perf_counter()) < end:
            call()
            taken.append(time.perf_counter() - start)
        pipe.send(median(taken))


def operands(shape):
    m, k, n = shape
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((m, k), np.float32), rng.standard_normal((k, n), np.float32)
    return (
        x,
        w,
        rng.integers(0, 256, (m, k)).astype(np.uint8),
        rng.integers(-127, 128, (k, n)).astype(np.int8),
    )


def mkl(shape, threads):
    import torch

    torch.set_num_threads(threads)
    x, w, _, _ = map(torch.from_numpy, operands(shape))
    out = torch.empty(shape[0], shape[2])
    return lambda: torch.mm(x, w, out=out)


def ours(shape, threads, rows, amx=False):
    """A dense kernel of ours with a bias: of rows in float32 or bfloat16, or in int8 and rounded again."""
    import tvm
    from graphwright.backends.tvm.kernels.dense import Dense, dense
    from graphwright.backends.tvm.kernels.dot import panels, product_of
    from graphwright.backends.tvm.kernels.rows import Finish
    from graphwright.backends.tvm.kernels.tile import amx_candidates, candidates
    from graphwright.backends.tvm.machine.bfloat16 import compiled
    from graphwright.backends.tvm.machine.llvm_target import llvm_target

    (m, k, n), (x, w, q, w8) = shape, operands(shape)
    machine = Machine.of(detect(), threads)
    tile = (amx_candidates(n, -(-m // threads)) if amx else candidates(n, machine, -(-m // threads)))[0]
    size = -(-n // tile.columns) * tile.columns
    ones, bias = np.ones(size, np.float32), np.zeros(size, np.float32)
    product = product_of(rows, machine)
    if rows == "dynamic":
        finish = Finish(floats=False, rounds="dynamic")
        arrays = [q.astype(product.dtype), np.ones(m, np.float32), np.zeros(m, np.int32)]
        arrays += [panels(w8, tile.columns, product.step), ones, np.zeros(size, np.int32), bias]
        arrays += [np.zeros((m, n), product.dtype), np.zeros(m, np.float32), np.zeros(m, np.int32)]
        spec = Dense(k, n, "dynamic", finish=finish)
    else:
        if rows == "bfloat16":  # the upper halves of floats
            x, w = ((each.view(np.uint32) >> 16).astype(np.uint16) for each in (x, w))
        arrays = [x, panels(w, tile.columns, product.step), bias, np.zeros((m, n), np.float32)]
        spec = Dense(k, n, rows)
    module = tvm.IRModule({"main": dense(spec, machine, tile)})
    function = compiled(module, target=llvm_target(detect(), threads))["main"]
    tensors = [tvm.runtime.tensor(array) for array in arrays]
    return lambda: function(*tensors)


def onnxruntime_product(shape, threads, dynamic):
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    (m, k, n), (x, _, q, w8) = shape, operands(shape)
    made = [
        numpy_helper.from_array(a, name) for a, name in ((w8, "w"), (np.int8(0) * np.ones((), np.int8), "wz"))
    ]
    if dynamic:
        made += [numpy_helper.from_array(np.full(n, 0.01, np.float32), "ws"),
                 numpy_helper.from_array(np.zeros(n, np.float32), "b")]  # fmt: skip
        nodes = [
            helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
            helper.make_node("MatMulInteger", ["q", "w", "z", "wz"], ["i"]),
            helper.make_node("Cast", ["i"], ["f"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["s", "ws"], ["t"]),
            helper.make_node("Mul", ["f", "t"], ["u"]),
            helper.make_node("Add", ["u", "b"], ["y"]),
        ]
    else:
        made.append(numpy_helper.from_array(np.array(128, np.uint8), "z"))
        nodes = [helper.make_node("MatMulInteger", ["x", "w", "z", "wz"], ["y"])]
    given, result = (
        (TensorProto.FLOAT, TensorProto.FLOAT) if dynamic else (TensorProto.UINT8, TensorProto.INT32)
    )
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", given, (m, k))],
        [helper.make_tensor_value_info("y", result, (m, n))], made,
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    feed = {"x": x if dynamic else q}
    return lambda: session.run(None, feed)


MAKERS = {
    "torch.mm": mkl,
    "float32": partial(ours, rows="float"),
    "MatMulInteger": partial(onnxruntime_product, dynamic=False),
    "dynamic": partial(onnxruntime_product, dynamic=True),
    "int8": partial(ours, rows="dynamic"),
}
if AMX := Machine.of(detect(), 1).tiles == "amx":
    MAKERS["int8 in AMX"] = partial(ours, rows="dynamic", amx=True)


@contextmanager
def asking(makers, threads):
    """ask(kind, what): a message to one contestant, and its answer."""
    spawn = multiprocessing.get_context("spawn")
    pipes = {}
    for kind, make in makers.items():
        pipes[kind], far = spawn.Pipe()
        spawn.Process(target=contestant, args=(make, threads, far), daemon=True).start()

    def ask(kind, what):
        pipes[kind].send(what)
        return pipes[kind].recv()

    yield ask
    for pipe in pipes.values():
        pipe.send(None)


def turns(ask, makers, shape, rounds):
    """Seconds of each contestant at a shape, by round."""
    for kind in makers:
        ask(kind, shape)
    return [
        {kind: ask(kind, "turn") for kind in list(makers)[:: 1 if number % 2 else -1]}
        for number in range(rounds)
    ]


def kernels(args, console):
    """GOP/s of each contestant and ratios of ours, per shape."""
    table = Table(
        "m x k x n", *MAKERS, "float32 / torch.mm", "int8 / faster", title="dense, GFLOP/s or GOP/s"
    )
    record = {}
    with asking(MAKERS, args.threads) as ask:
        for shape in SHAPES:
            taken = turns(ask, MAKERS, shape, args.rounds)
            work = 2 * np.prod(shape) / 1e9
            speed = {kind: work / median(turn[kind] for turn in taken) for kind in MAKERS}
            against = {
                "float32": [turn["torch.mm"] / turn["float32"] for turn in taken],
                "int8": [min(turn["MatMulInteger"], turn["dynamic"]) / turn["int8"] for turn in taken],
            }
            cells = {
                kind: f"{median(v):.2f} [{quantiles(v)[0]:.2f}, {quantiles(v)[2]:.2f}]"
                for kind, v in against.items()
            }
            name = "x".join(map(str, shape))
            table.add_row(name, *(f"{speed[kind]:.0f}" for kind in MAKERS), *cells.values())
            record[name] = {"speed": speed, "ratios": against}
    console.print(table)
    return record


def compiled(plain, pipelines, calibration, buckets, folder, threads):
    """Bundles of the plain export compiled by TVM, one a pipeline."""
    program, made = capture(plain), {}
    padding = padding_of(program)  # rounding moves with the range of the padding in ONNX Runtime, not here
    for name, text in pipelines.items():
        ran = Pipeline.parse(text).run(program, Context(target=detect(), calibration=calibration))
        made[name] = folder / name.replace(" ", "-")
        write_compiled(
            made[name], Tvm().build(ran.program_or_raise(), threads=threads, buckets=buckets, padding=padding)
        )
    return made


def speeds(title, contestants, work, args, console, rivals, mine):
    """Ratios to the first contestant, and of `mine` to the best of each group of rivals."""
    timed = compare(contestants, work, threads=args.threads, rounds=args.rounds)
    table = Table("build", *(w.name for w in work), title=f"{title}: against {next(iter(contestants))}")
    for name, row in timed.cells.items():
        cells = (row[w.name] for w in work)
        table.add_row(
            name,
            *(
                f"{c.ms:.2f} ms {c.speedup.median:.2f}x [{c.speedup.low:.2f}, {c.speedup.high:.2f}]"
                for c in cells
            ),
        )
    console.print(table)
    best = Table("build", "against the best of", *(w.name for w in work), title=title)
    for name in mine:
        for group, others in rivals.items():
            ratios = [min(timed.faster(w.name, name, other).median for other in others) for w in work]
            best.add_row(name, group, *(f"{ratio:.2f}x" for ratio in ratios))
    console.print(best)
    return timed.to_json()


def minilm(args, console):
    model = model_directory()
    calibration = list(feeds(model, spread(args.calibrate, 128)))
    texts = [row[0] for row in rows(args.sts)]
    with tempfile.TemporaryDirectory(prefix="graphwright-tvm-") as folder:
        scratch = Path(folder)
        plain = scratch / "plain.onnx"
        export(model, plain)
        work = workloads(capture(model), ("1x128", "8x128", "1x16", "mixed:32"), texts)
        longest = max(w.feed["input_ids"].shape[1] for w in work if w.name.startswith("mixed"))
        buckets = [{"batch": b, "length": n} for b, n in ((1, 128), (8, 128), (1, 16), (32, longest))]
        rivals = theirs(plain, calibration, scratch)
        program, context, graphs = capture(plain), Context(target=detect(), calibration=calibration), {}
        chosen = {"graphwright ORT": EXACT} | {
            f"graphwright ORT, {n}": PIPELINES[n] for n in ("smooth + static", "smooth + static, packed")
        }
        for number, (name, text) in enumerate(chosen.items()):
            graphs[name] = scratch / f"ours-{number}.onnx"
            save_model(Pipeline.parse(text).run(program, context).program, graphs[name])
        bundles = compiled(plain, COMPILED, calibration, buckets, scratch, args.threads)
        quality = {name: score(path, model, args.sts) for name, path in bundles.items()}
        for name, value in quality.items():
            console.print(f"Spearman, {name}: {value:.2f}")
        field = {"PyTorch eager": f"torch:{model}", "ORT": plain, **rivals, **graphs, **bundles}
        groups = {
            "ORT fp32": ["ORT"], "ORT's quantizers": list(rivals),
            "our int8 on ORT": [n for n in graphs if "," in n],
        }  # fmt: skip
        return {
            "spearman": quality,
            "speed": speeds("MiniLM", field, work, args, console, groups, list(bundles)),
        }


def base(args, console):
    import torch
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    shapes = ((1, 128), (1, 384))
    with tempfile.TemporaryDirectory(prefix="graphwright-tvm-") as folder:
        scratch = Path(folder)
        BertModel(BertConfig(), add_pooling_layer=False).save_pretrained(scratch / "base")
        program = Pipeline.parse("to-onnx").run(capture(scratch / "base"), Context()).program
        plain = scratch / "plain.onnx"
        save_model(program, plain)
        work = workloads(program, [f"{b}x{n}" for b, n in shapes])
        calibration = [w.feed for w in work]
        rivals = theirs(plain, calibration, scratch)
        graphs = {}
        for name, text in (("graphwright ORT", EXACT), ("graphwright ORT, dynamic", PIPELINES["dynamic"])):
            ran = Pipeline.parse(text.replace("quantize-dynamic", "quantize-dynamic{min_cosine=0.0}")).run(
                program, Context(target=detect(), calibration=calibration)
            )
            graphs[name] = scratch / f"{len(graphs)}.onnx"
            save_model(ran.program, graphs[name])
        buckets = [{"batch": b, "length": n} for b, n in shapes]
        chosen = {name: COMPILED[name] for name in ("tvm", "tvm dynamic")}
        bundles = compiled(plain, chosen, calibration, buckets, scratch, args.threads)
        groups = {
            "fp32 on ORT": ["ORT", "graphwright ORT"],
            "int8 on ORT": [*rivals, "graphwright ORT, dynamic"],
        }
        field = {"ORT": plain, **rivals, **graphs, **bundles}
        return speeds("BERT-base", field, work, args, console, groups, list(bundles))


PEAK = """
import sys, numpy as np, graphwright as gw
from graphwright.backends.measuring.worker import peak_bytes
bundle = gw.load(sys.argv[1])
for batch, length in eval(sys.argv[2]):
    ids = np.full((batch, length), 7)
    bundle.run({"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": 0 * ids})
print(peak_bytes())
"""


def build(args, console):
    sizes = ((1, 128), (8, 128), (1, 16), (4, 64), (32, 32))
    with tempfile.TemporaryDirectory(prefix="graphwright-tvm-") as folder:
        scratch, peaks, record = Path(folder), [], {}
        plain = scratch / "plain.onnx"
        export(model_directory(), plain)
        program = capture(plain)
        for number, chosen in enumerate((sizes[1:2], sizes)):
            begin = time.perf_counter()
            made = Tvm().build(
                program, threads=args.threads, buckets=[{"batch": b, "length": n} for b, n in chosen]
            )
            record[f"seconds, {len(chosen)} sizes"] = round(time.perf_counter() - begin, 1)
            write_compiled(scratch / str(number), made)
            out = subprocess.check_output(
                [sys.executable, "-c", PEAK, str(scratch / str(number)), str(chosen)]
            )
            peaks.append(int(out))
            record[f"bytes on disk, {len(chosen)} sizes"] = sum(
                file.stat().st_size for file in (scratch / str(number)).iterdir()
            )
    record |= {"peak of five sizes over one": round(peaks[1] / peaks[0], 3), "peak bytes": peaks}
    console.print(record)
    return record


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--calibrate", type=Path)
    parser.add_argument("--sts", type=Path)
    parser.add_argument("--only", default="kernels,minilm,base,build")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    args, console = parser.parse_args(), Console(width=170)
    parts = {"kernels": kernels, "minilm": minilm, "base": base, "build": build}
    record = {name: parts[name](args, console) for name in args.only.split(",")}
    if args.json:
        args.json.write_text(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()

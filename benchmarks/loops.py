"""Tied layers on ONNX Runtime written out, as a Loop and as a local function: bytes of the graph, and time.

    python benchmarks/loops.py [--shapes 1x16,1x128,8x128] [--rounds 11] [--threads 2]

all-MiniLM-L6-v2 with all layers tied, lowered by the preset `exact`. What repeats in the file is found by its
operators, attributes and weights; a Loop runs it as often as it stands there, over the values that each
repetition takes from the one before. All three give the same outputs to the last bit, or the script ends.
Ratios are against the file as it is; above 1 is faster.
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import graphwright as gw
import numpy as np
import onnx
from graphwright.backends.measuring.measure import compare
from graphwright.backends.measuring.workloads import workloads
from graphwright.backends.runtimes.onnxruntime import save_model
from graphwright.backends.target import detect
from graphwright.passes.manager.contract import Context
from graphwright.passes.manager.pipeline import Pipeline
from graphwright.tools.build.presets import chain
from graphwright.tools.verbs.demo import model_directory
from onnx import TensorProto, helper
from rich.console import Console
from rich.table import Table
from sentences import runner

Nodes = Sequence[onnx.NodeProto]


def repeated(graph: onnx.GraphProto) -> tuple[int, int, int]:
    """(start, length, count) of the run of equal nodes, one after the other, that covers most of a graph."""
    weights = {weight.name: value(weight) for weight in graph.initializer}
    kinds = [
        (node.domain, node.op_type, tuple(sorted(a.SerializeToString() for a in node.attribute)),
         tuple(weights.get(name, b"") for name in node.input))
        for node in graph.node
    ]  # fmt: skip
    found = (0, 0, 0)
    for length in range(1, len(kinds) // 2 + 1):
        start = 0
        for place in range(len(kinds) - length + 1):
            if place == len(kinds) - length or kinds[place] != kinds[place + length]:
                count = (place - start) // length + 1
                if count > 1 and count * length > found[1] * found[2]:
                    found = (start, length, count)
                start = place + 1
    return found


def value(weight: onnx.TensorProto) -> bytes:
    """What a weight is, without its name: equal for equal sizes of each layer's own."""
    copy = onnx.TensorProto()
    copy.CopyFrom(weight)
    copy.ClearField("name")
    return copy.SerializeToString()


def wired(graph: onnx.GraphProto, start: int, length: int, count: int) -> tuple[Nodes, list, list, list]:
    """A repetition's nodes, (what it takes, what it gives) of the one before, and the last one's values.

    Raises:
        SystemExit: repetitions are wired in different ways.
    """
    weights = {weight.name: value(weight) for weight in graph.initializer}
    turns = [graph.node[start + i * length : start + (i + 1) * length] for i in range(count)]
    made = [
        {name: (n, k) for n, node in enumerate(turn) for k, name in enumerate(node.output)} for turn in turns
    ]
    carried: dict[tuple[int, int], str] = {}  # (node, output) of the one before -> the first one's own value
    for i, turn in enumerate(turns):
        for n, node in enumerate(turn):
            for k, name in enumerate(node.input):
                first = turns[0][n].input[k]
                if name in made[i]:
                    alike = made[0].get(first) == made[i][name]
                elif i and name in made[i - 1]:
                    alike = carried.setdefault(made[i - 1][name], first) == first
                else:
                    alike = not any(name in each for each in made)
                    alike = alike and weights.get(name, name) == weights.get(first, first)
                if not alike:
                    raise SystemExit(f"{node.name} takes {name} otherwise than the repetitions before it")
    gives = [turns[0][n].output[k] for n, k in carried]
    return turns[0], list(carried.values()), gives, [turns[-1][n].output[k] for n, k in carried]


def rewritten(model: onnx.ModelProto, kind: str) -> onnx.ModelProto:
    """With what repeats as the body of a Loop, or as a local function that is called as often."""
    new = onnx.ModelProto()
    new.CopyFrom(model)
    graph = new.graph
    start, length, count = repeated(graph)
    turn, takes, gives, last = wired(graph, start, length, count)
    within = {name for node in turn for name in node.output}
    outside = list(
        dict.fromkeys(n for node in turn for n in node.input if n and n not in within and n not in takes)
    )
    if kind == "loop":
        state = [(f"{name}_carried", name) for name in takes]
        names = {name: inner for inner, name in state}
        body = [renamed(node, names) for node in turn]
        body.append(helper.make_node("Identity", ["again"], ["more"]))
        untyped = onnx.TypeProto()
        untyped.tensor_type.elem_type = TensorProto.FLOAT
        inputs = [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("again", TensorProto.BOOL, []),
            *(helper.make_value_info(inner, untyped) for inner, _ in state),
        ]
        outputs = [helper.make_tensor_value_info("more", TensorProto.BOOL, [])]
        outputs += [helper.make_value_info(name, untyped) for name in gives]
        graph.initializer.append(helper.make_tensor("turns", TensorProto.INT64, [], [count]))
        inner = helper.make_graph(body, "layer", inputs, outputs)
        calls = [helper.make_node("Loop", ["turns", "", *takes], last, body=inner)]
    else:
        ends = [*takes, *outside]
        new.functions.append(
            helper.make_function("local", "layer", ends, gives, list(turn), list(new.opset_import))
        )
        new.opset_import.append(helper.make_opsetid("local", 1))
        calls, values = [], takes
        for i in range(count):
            given = last if i == count - 1 else [f"{name}_{i}" for name in gives]
            calls.append(helper.make_node("layer", [*values, *outside], given, domain="local"))
            values = given
    nodes = list(graph.node)
    del graph.node[:], graph.value_info[:]
    graph.node.extend([*nodes[:start], *calls, *nodes[start + length * count :]])
    return new


def renamed(node: onnx.NodeProto, names: dict[str, str]) -> onnx.NodeProto:
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    copy.input[:] = [names.get(name, name) for name in node.input]
    return copy


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shapes", default="1x16,1x128,8x128")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    program = gw.trace(model_directory())
    tied = Pipeline.parse("tie-layers").run(program, Context()).program
    ran = chain("exact", tied)[0].run(tied, Context(target=detect()))
    with tempfile.TemporaryDirectory(prefix="graphwright-loops-") as folder:
        paths = {kind: Path(folder) / f"{kind}.onnx" for kind in ("written out", "loop", "function")}
        save_model(ran.program_or_raise(), paths["written out"])
        written = onnx.load(paths["written out"], load_external_data=False)
        for kind in ("loop", "function"):
            onnx.save(rewritten(written, kind), paths[kind])
        work = workloads(ran.program, args.shapes.split(","))
        answers = [[runner(path)(each.feed) for each in work] for path in paths.values()]
        for other in answers[1:]:
            if not all(map(np.array_equal, answers[0], other)):
                raise SystemExit("outputs differ")
        found = compare(paths, work, threads=args.threads, rounds=args.rounds)
        table = Table("layers", "graph, bytes", *args.shapes.split(","))
        for kind, cells in found.cells.items():
            row = []
            for cell in cells.values():
                ratio = cell.speedup
                row.append(f"{cell.ms:.2f} ms, {ratio.median:.2f}x [{ratio.low:.2f}, {ratio.high:.2f}]")
            table.add_row(kind, f"{paths[kind].stat().st_size:,}", *row)
    Console(width=130).print(table)


if __name__ == "__main__":
    main()

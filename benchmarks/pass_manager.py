"""What the pass manager costs on large graphs: verification off, 10,000 and 100,000 nodes, canonical passes.

    python benchmarks/pass_manager.py [--json FILE] [--nodes 10000 --nodes 100000]

The graph is made of blocks in which every canonical pass finds something to do. Each size is timed several
times in turn, and the fastest run counts: the rest is what other processes took.
"""

from __future__ import annotations

import gc
import json
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import onnx_ir as ir
import typer
from graphwright.ir.program import Program
from graphwright.ir.spec import InputSpec
from graphwright.passes.manager.contract import Run
from graphwright.passes.manager.pipeline import Pipeline
from rich.console import Console
from rich.table import Table

PIPELINE = (
    "specialise-shapes{batch=2,length=16},fold-constants,eliminate-identities,"
    "eliminate-common-subexpressions,eliminate-dead-code"
)
BLOCK = 10  # nodes a block
LIMIT = 12.0  # times the cost for ten times the nodes


def graph(nodes: int) -> Program:
    """A chain of blocks: two equal sums, a foldable constant, shape arithmetic, an identity, a dead end."""
    x = ir.Value(name="x", shape=ir.Shape(["batch", "length", 8]), type=ir.TensorType(ir.DataType.FLOAT))
    weights = [
        _weight("bias", np.full(8, 0.5, np.float32)),
        _weight("half", np.array(0.5, np.float32)),
        _weight("two", np.array(2, np.int64)),
    ]
    bias, half, two = weights
    body: list[ir.Node] = []

    def add(op_type: str, *inputs: ir.Value) -> ir.Value:
        body.append(ir.node(op_type, inputs, name=f"node{len(body)}"))
        body[-1].outputs[0].name = f"value{len(body)}"
        return body[-1].outputs[0]

    value = x
    while len(body) < nodes:
        left, right = add("Add", value, bias), add("Add", value, bias)
        shift = add("Mul", bias, half)
        width = add("Gather", add("Shape", left), two)
        same = add("Identity", right)
        add("Relu", left)  # nobody asks for it
        scaled = add("Mul", add("CastLike", width, shift), left)
        value = add("Add", scaled, same)
    value.name, value.shape, value.type = "y", x.shape, x.type
    model = ir.Model(
        ir.Graph([x], [value], nodes=body, initializers=weights, opset_imports={"": 18}), ir_version=9
    )
    spec = InputSpec("x", "float32", ("batch", "length", 8))
    return Program(model, "onnx", (spec,), ("y",), symbols={"batch": (1, 64), "length": (1, 512)})


def _weight(name: str, array: np.ndarray) -> ir.Value:
    tensor = ir.Tensor(array, name=name)
    return ir.Value(
        name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor
    )


def timed(program: Program) -> tuple[float, Run]:
    """Seconds of one run of the whole pipeline, and the run."""
    gc.collect()
    start = time.perf_counter()
    run = Pipeline.parse(PIPELINE).run(program, verify=False)
    seconds = time.perf_counter() - start
    assert run.ok, [step.error for step in run.steps]
    return seconds, run


def main(
    nodes: Annotated[list[int] | None, typer.Option(help="Sizes of the graphs, ascending.")] = None,
    rounds: Annotated[int, typer.Option(help="Runs of each size, in turn.")] = 3,
    output: Annotated[Path | None, typer.Option("--json", help="Write the figures here.")] = None,
) -> None:
    """Time the pass manager and say whether ten times the nodes cost at most twelve times the time."""
    sizes = nodes or [10_000, 100_000]
    programs = {size: graph(size) for size in sizes}
    best: dict[int, tuple[float, Run]] = {}
    for _ in range(rounds):
        for size in sizes:
            found = timed(programs[size])
            if size not in best or found[0] < best[size][0]:
                best[size] = found
    table = Table("pass", *(f"{size:,} nodes" for size in sizes), "ratio", title="seconds, verification off")
    for steps in zip(*(best[size][1].steps for size in sizes), strict=True):
        seconds = [step.seconds for step in steps]
        table.add_row(steps[0].text, *(f"{s:.3f}" for s in seconds), f"{seconds[-1] / seconds[0]:.1f}")
    totals = [best[size][0] for size in sizes]
    per_tenfold = (totals[-1] / totals[0]) ** (1 / np.log10(sizes[-1] / sizes[0]))
    table.add_row("whole run", *(f"{s:.3f}" for s in totals), f"{totals[-1] / totals[0]:.1f}")
    console = Console()
    console.print(table)
    verdict = "holds" if per_tenfold <= LIMIT else "MISSED"
    console.print(f"10x the nodes cost {per_tenfold:.1f}x the time; at most {LIMIT:.0f}x: {verdict}.")
    if output is not None:
        figures = {
            "seconds": dict(zip(map(str, sizes), totals, strict=True)),
            "per_tenfold": per_tenfold,
            "limit": LIMIT,
        }
        output.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    raise typer.Exit(0 if per_tenfold <= LIMIT else 1)


if __name__ == "__main__":
    typer.run(main)

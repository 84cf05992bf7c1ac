"""Run a program in this process, for verification and folding. Speed is not the point; memory is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from .inputs.memory import remembering
from .onnx.execute import execute_onnx, stream_onnx
from .program import Program


def execute(
    program: Program, feeds: Iterable[Mapping[str, np.ndarray]], threads: int = 2
) -> list[dict[str, np.ndarray]]:
    """The program's outputs by name for each feed, as it stands, unoptimised.

    Args:
        program: in either dialect. Its weights are read, not copied.
        feeds: arrays by input name; a memory that is left out is empty.
        threads: intra-op threads (ONNX only; PyTorch keeps its own setting).
    """
    feeds = (remembering(program.inputs, feed) for feed in feeds)
    if program.dialect == "onnx":
        return execute_onnx(program.graph, program.outputs, feeds, threads)
    from .fx.execute import execute_fx

    return execute_fx(program.graph, program.inputs, program.outputs, feeds)


def observe(
    program: Program, names: Sequence[str], feeds: Iterable[Mapping[str, np.ndarray]], threads: int = 2
) -> Iterator[dict[str, np.ndarray]]:
    """Values inside a program, feed by feed: one feed's arrays are alive at a time.

    Args:
        names: of values of the main graph; constants are not among them.
    """
    feeds = (remembering(program.inputs, feed) for feed in feeds)
    if program.dialect == "fx":
        from .fx.execute import observe_fx

        return observe_fx(program.graph, program.inputs, names, feeds)
    model = program.graph.clone()
    wanted = set(names)
    have = {value.name for value in model.graph.outputs}
    values = (*model.graph.inputs, *(result for node in model.graph for result in node.outputs))
    # onnx_ir lets a graph have an input for an output; ONNX Runtime does too.
    model.graph.outputs.extend(v for v in values if v.name in wanted and v.name not in have)
    return stream_onnx(model, names, feeds, threads)

"""How long each kernel takes that ONNX Runtime makes of a graph."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..host.temporary import TemporaryFolder
from .execute import write
from .kernels import Kernel, leave_optimised, optimised
from .runtime import as_written

RUNS, WARM_UP = 12, 3


def profile(
    model: Any, feed: Mapping[str, np.ndarray], threads: int = 2, runs: int = RUNS
) -> list[tuple[Kernel, float]]:
    """The kernels of the optimised graph, in order, with the median seconds of each.

    ONNX Runtime's own profiler is the clock; it costs each kernel some microseconds.

    Args:
        model: onnx_ir.Model.
        feed: arrays by input name: the workload. What is no input is left out.
        runs: calls that are timed, after a few that are not.
    """
    import onnxruntime

    model = model.clone()
    for node in model.graph:
        node.name = node.name or f"{node.op_type}.{node.outputs[0].name}"  # the profiler tells nodes by name
    options = as_written(onnxruntime.SessionOptions())
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    options.enable_profiling = True
    with TemporaryFolder() as folder:
        options.profile_file_prefix = str(Path(folder, "profile"))
        leave_optimised(options, Path(folder))
        path = write(model, Path(folder), lambda name, tensor, file: tensor.tofile(file))
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        inputs = {each.name for each in session.get_inputs()}
        for _ in range(WARM_UP + runs):
            session.run(None, {name: array for name, array in feed.items() if name in inputs})
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
        del session
        made = optimised(Path(folder))
    taken: dict[str, list[float]] = defaultdict(list)
    for event in events:
        name = str(event.get("name", ""))
        if event.get("cat") == "Node" and name.endswith("_kernel_time"):
            taken[name.removesuffix("_kernel_time")].append(1e-6 * event["dur"])
    return [
        (kernel, float(np.median(taken[kernel.name][WARM_UP:]))) for kernel in made if kernel.name in taken
    ]

"""ONNX Runtime as the interpreter of an ONNX graph as it stands: its own optimizer is off, and sums of small
integers are right on every processor (exact_integers).

Weights are lent to the session, never copied: a plain array is handed over as it is, and anything else (what
is computed each time, types NumPy lacks) goes one at a time through a temporary file that the session maps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from threading import Timer
from typing import IO, Any

import numpy as np

from ..errors import GraphwrightError
from ..host.residency import release
from ..host.temporary import TemporaryFolder

_INLINE_BYTES = 1024  # smaller initializers stay in the model: shape inference reads them there
_PATIENCE = 60.0  # seconds for a call of a graph with a loop
_PAGE = 4096  # ONNX Runtime maps external data at page boundaries


def execute_onnx(
    model: Any, outputs: Sequence[str], feeds: Iterable[Mapping[str, np.ndarray]], threads: int = 2
) -> list[dict[str, np.ndarray]]:
    """The outputs by name for each feed (`ir.execute.execute`).

    Args:
        model: onnx_ir.Model. Its weights are read, not copied.
        feeds: arrays by input name; what is no input, as labels and texts of rows, is left out.
        threads: intra-op threads.
    """
    return list(stream_onnx(model, outputs, feeds, threads))


def stream_onnx(
    model: Any, outputs: Sequence[str], feeds: Iterable[Mapping[str, np.ndarray]], threads: int = 2
) -> Iterator[dict[str, np.ndarray]]:
    """Like `execute_onnx`, one result after the other."""
    import onnx_ir
    import onnxruntime

    from .exact_integers import exact

    model = exact(model)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # a failure is raised; what ORT logs beside it is noise
    options.add_session_config_entry("session.disable_prepacking", "1")
    lent: list[Any] = []  # outlives the session

    def lend(name: str, tensor: Any, file: IO[bytes]) -> None:
        let_go = isinstance(tensor, onnx_ir.LazyTensor) and not tensor.cache
        if let_go or tensor.numpy().dtype.kind not in "fiub":
            tensor.tofile(file)
        else:
            array = np.ascontiguousarray(tensor.numpy())
            lent.append((array, onnxruntime.OrtValue.ortvalue_from_numpy(array)))
            options.add_initializer(name, lent[-1][1])

    with TemporaryFolder() as directory:
        path = write(model, Path(directory), lend)
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        endless = any(
            node.op_type == "Loop" for node in onnx_ir.traversal.RecursiveGraphIterator(model.graph)
        )
        taken = {str(value.name) for value in model.graph.inputs}
        for feed in feeds:
            given = {name: array for name, array in feed.items() if name in taken}
            with _patience(_PATIENCE) if endless else nullcontext() as limit:
                found = session.run(list(outputs), given, limit)
            yield dict(zip(outputs, found, strict=True))
        del session  # before the file that it maps goes away


@contextmanager
def _patience(seconds: float) -> Iterator[Any]:
    """Options of a call (onnxruntime.RunOptions) that is ended after as long: what a loop waits for may never
    come."""
    import onnxruntime

    options = onnxruntime.RunOptions()
    options.log_severity_level = 4
    timer = Timer(seconds, lambda: setattr(options, "terminate", True))
    timer.daemon = True
    timer.start()
    try:
        yield options
    except Exception as error:  # ONNX Runtime's errors have no base of their own
        if not options.terminate:
            raise
        raise GraphwrightError(
            f"a loop in the graph goes on after {seconds:g} seconds: its inputs decide how often it turns"
        ) from error
    finally:
        timer.cancel()


def write(model: Any, directory: Path, store: Callable[[str, Any, IO[bytes]], None]) -> Path:
    """Write model.onnx with its weights beside it; returns its path.

    Args:
        model: onnx_ir.Model.
        store: called with (name, tensor, file at the tensor's place) for each weight; what it leaves
            unwritten takes no room on disk and reads as zeros.
    """
    import onnx_ir

    shell = model.clone()
    offset = 0
    with open(directory / "weights", "wb") as file:
        for name, value in shell.graph.initializers.items():
            tensor = value.const_value
            if tensor is None or tensor.nbytes <= _INLINE_BYTES or tensor.dtype == onnx_ir.DataType.STRING:
                continue
            file.seek(offset)
            store(name, tensor, file)
            value.const_value = onnx_ir.ExternalTensor(
                "weights",
                offset,
                tensor.nbytes,
                tensor.dtype,
                shape=tensor.shape,
                name=name,
                base_dir=directory,
            )
            offset += -(-tensor.nbytes // _PAGE) * _PAGE
        file.truncate(offset)
    with open(directory / "model.onnx", "wb") as file:
        file.write(onnx_ir.serde.serialize_model(shell).SerializeToString())
    release(offset)  # a session has its own copy of what was written
    return directory / "model.onnx"

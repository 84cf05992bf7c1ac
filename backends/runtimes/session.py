"""ONNX Runtime sessions at the settings that serve Transformers best. Needs only onnxruntime."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...ir.errors import BackendError, did_you_mean
from ...ir.onnx.runtime import as_written, reason

CPU = ("CPUExecutionProvider",)


def open_session(
    model: Path | bytes,
    threads: int | None = None,
    providers: Sequence[str] = CPU,
    prepack: bool = True,
    called: str = "",
    patterns: bool = True,
    exact: bool = False,
) -> Any:
    """An onnxruntime.InferenceSession. Safe to run from several threads.

    Args:
        model: a path (external data is then mapped, not read) or a whole serialized model.
        threads: intra-op threads; None leaves ONNX Runtime its default, every physical core.
        providers: execution providers in order of preference; any that the installed package offers.
        called: what a sentence calls it, instead of the path's name.
        patterns: False keeps no plan of memory for each combination of sizes that was ever called with, of
            which there is no end.
        exact: sums of integers are right where this processor's saturate, at the price of speed.
        prepack: False keeps weights as they are stored: slower, but without a second copy in memory.

    Raises:
        BackendError: a provider the package doesn't offer, or a graph that ONNX Runtime refuses.
    """
    import onnxruntime

    offered = onnxruntime.get_available_providers()
    for provider in providers:
        if provider not in offered:
            raise BackendError(
                f"onnxruntime {onnxruntime.__version__} as installed has no provider {provider!r}"
                f"{did_you_mean(provider, offered)}"
            )
    options = as_written(onnxruntime.SessionOptions())
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3
    if threads:
        options.intra_op_num_threads = threads
    options.enable_mem_pattern = patterns
    if exact:  # signed weights become unsigned: these kernels add in 32 bits
        options.add_session_config_entry("session.x64quantprecision", "1")
    if not prepack:
        options.add_session_config_entry("session.disable_prepacking", "1")
    source = str(model) if isinstance(model, Path) else model
    try:
        return onnxruntime.InferenceSession(source, options, providers=list(providers))
    except Exception as error:  # each of ONNX Runtime's errors derives from Exception alone
        what = called or (model.name if isinstance(model, Path) else "the graph")
        raise BackendError(f"ONNX Runtime cannot load {what}: {reason(error)}") from error


def run_session(session: Any, feed: Any) -> list[Any]:
    """session.run with ONNX Runtime's failure in one sentence."""
    try:
        return session.run(None, feed)
    except Exception as error:
        raise BackendError(f"ONNX Runtime failed on this call: {reason(error)}") from error


def first_line(error: BaseException) -> str:
    """An error's message without its stack and repetitions."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]

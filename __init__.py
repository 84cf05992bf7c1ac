"""graphwright: a compiler for Transformers about to be deployed.

    import graphwright as gw

    program = gw.trace(module, inputs)          # or a model directory, hub id, .onnx, .pt2
    run = gw.Pipeline.parse("to-onnx,fuse-attention").run(program)
    outcome = gw.optimize("model-directory", "bundle", preset="balanced")
    artifact = gw.load("bundle")
    artifact.run({name: array}); artifact(["a text"])
    index = gw.Index.build("bundle", texts, "index", kind="int8"); index.ask("bundle", "a question")

What goes wrong is a gw.GraphwrightError, of a kind such as gw.InputError, in one sentence.
Nothing heavy is imported until it is used: `load` needs onnxruntime and NumPy only.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .backends.running.runner import load
    from .ir.capture import capture as trace
    from .ir.errors import (
        BackendError,
        BundleError,
        CaptureError,
        CheckpointError,
        ConfigError,
        ContractError,
        DataError,
        GraphwrightError,
        InputError,
        MeasureError,
        PassError,
        PipelineError,
        ProgramError,
        WeightError,
    )
    from .passes.manager.pipeline import Pipeline
    from .tools.deploy.builds import build
    from .tools.retrieval.index import Index
    from .tools.retrieval.towers import Towers
    from .tools.verbs.optimize import optimize
    from .tools.verbs.search import search

__all__ = [
    "BackendError",
    "BundleError",
    "CaptureError",
    "CheckpointError",
    "ConfigError",
    "ContractError",
    "DataError",
    "GraphwrightError",
    "Index",
    "InputError",
    "MeasureError",
    "PassError",
    "Pipeline",
    "PipelineError",
    "ProgramError",
    "Towers",
    "WeightError",
    "build",
    "load",
    "optimize",
    "search",
    "trace",
]

_HOMES = {
    "Index": (".tools.retrieval.index", "Index"),
    "Towers": (".tools.retrieval.towers", "Towers"),
    "build": (".tools.deploy.builds", "build"),
    "Pipeline": (".passes.manager.pipeline", "Pipeline"),
    "load": (".backends.running.runner", "load"),
    "optimize": (".tools.verbs.optimize", "optimize"),
    "search": (".tools.verbs.search", "search"),
    "trace": (".ir.capture", "capture"),
    **{name: (".ir.errors", name) for name in __all__ if name.endswith("Error")},
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'graphwright' has no attribute {name!r}")
    module, attribute = _HOMES[name]
    return getattr(import_module(module, __name__), attribute)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])

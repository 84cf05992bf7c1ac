"""The one door into the compiler: whatever describes a model becomes a Program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from .errors import CaptureError
from .program import Program, Task

Spelling = Literal["sdpa", "eager"]


def capture(
    source: Any,
    *,
    inputs: Mapping[str, Any] | Sequence[Any] | None = None,
    task: Task | None = None,
    attn: Spelling | None = None,
) -> Program:
    """Captures a model.

    Args:
        source: an nn.Module; a Hugging Face or sentence-transformers directory, or a hub id; an .onnx file;
            a .pt2 file.
        inputs: example tensors, for a module: by name, or in the order of forward's parameters.
        task: overrides the task found in the configuration.
        attn: how attention is spelled in a Hugging Face model's trace: "sdpa" (the default where the model
            offers it) keeps it one operator, "eager" writes it out.

    Returns:
        A program in dialect "fx" (modules, directories, .pt2: a GraphModule of ATen operators whose forward
        takes the inputs in order and returns a tuple of outputs) or "onnx" (.onnx).

    Raises:
        CaptureError: one sentence that names what is wrong with the source.
    """
    if not isinstance(source, str | Path):
        from .sources.module import from_module

        return from_module(source, inputs, task)
    raise CaptureError(f"'{source}' is neither a file nor a directory nor a hub id.")

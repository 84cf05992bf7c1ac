"""How ONNX Runtime is to run a graph, wherever it does: as it is written."""

from __future__ import annotations

import re
from typing import Any

_HEAD = re.compile(r"\[ONNXRuntimeError\] : \d+ : \w+ : (?:Load model from .*? failed:\s*)?")
_PLACE = re.compile(r"^/\S+\.(?:cc|h):\d+ \S.*?\) (?:const )?")  # in its source


def reason(error: BaseException) -> str:
    """ONNX Runtime's reason in one line, without its numbers and the path of a file that may be temporary."""
    text = _HEAD.sub("", str(error), count=1).strip() or type(error).__name__
    return _PLACE.sub("", text.splitlines()[0])[:300]


def as_written(options: Any) -> Any:
    """Session options (onnxruntime.SessionOptions) under which weights decoded in the graph give floats.

    ONNX Runtime (1.31) fuses DequantizeLinear and MatMul to MatMulNBits, and unless told otherwise at
    accuracy level 4, which rounds activations to 8 bits: another function than the graph's. Level 1 computes
    in float32. Nodes that are MatMulNBits in the file keep the level that they name.
    """
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
    return options

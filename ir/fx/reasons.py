"""Why torch.export could not trace a module, for whoever wrote it, and the line that it stopped at."""

from __future__ import annotations

import linecache
import re
import traceback
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_ROOMS = [Path(__file__).parents[2] / room for room in ("backends", "ir", "passes", "tools")]
_OWN = (Path(torch.__file__).parent, *_ROOMS)
_WIDEST = 120  # characters of a line of code
_DECIDES = "data-dependent expression"
# What torch says -> what it means.
_MEANT = {
    _DECIDES: "its Python code decides by the values of a tensor, which a graph can't: "
    "write both ways, with torch.where, or torch.cond",
    "in the exported program constant's list": "it uses a tensor that its graph doesn't know, such as that "
    "of `.data`, or one kept from another call: use .detach(), or a buffer",
    ".numpy() is not supported": "it leaves torch for NumPy, whose results a graph doesn't hold",
}


def reason(error: BaseException) -> str:
    """One sentence without its full stop, and the line of the module's code where there is one."""
    words = said(error)
    words = next((meant for theirs, meant in _MEANT.items() if theirs in str(error)), words.rstrip("."))
    stopped = place(error)
    return f"{words} ({stopped})" if stopped else words


def said(error: BaseException) -> str:
    """What an exception says, on one line, as far as its first full sentence or line goes."""
    lines = [line.strip() for line in _COLOUR.sub("", str(error)).strip().split("\n")]
    text = ""
    for line in lines:
        text = f"{text} {line}".strip()
        if line.endswith((".", "!", "?", ")")) or not line:
            break
    return text.rstrip(":") or type(error).__name__


def decides(error: BaseException | None) -> bool:
    """Whether torch.export stopped where values decide what is computed."""
    return _DECIDES in str(error)


def place(error: BaseException) -> str:
    """The innermost line that is neither torch's nor ours; empty where there is none."""
    return _innermost(traceback.extract_tb(error.__traceback__))


class Draws(TorchDispatchMode):
    """Notes the first draw of a random number. at: its line, as `place` says it, or empty."""

    def __init__(self) -> None:
        super().__init__()
        self.at = ""

    def __torch_dispatch__(
        self, func: torch._ops.OpOverload, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if not self.at and torch.Tag.nondeterministic_seeded in func.tags:
            self.at = _innermost(traceback.extract_stack())
        return func(*args, **(kwargs or {}))


def _innermost(frames: traceback.StackSummary) -> str:
    theirs = [f for f in frames if not any(Path(f.filename).is_relative_to(own) for own in _OWN)]
    if not theirs or not Path(theirs[-1].filename).is_file():
        return ""
    last = theirs[-1]
    line = linecache.getline(last.filename, last.lineno or 0).strip()[:_WIDEST]
    return f"line {last.lineno} of {Path(last.filename).name}: {line}"

"""Attention on the clock, as it will run."""

from __future__ import annotations

from collections.abc import Callable

from ....ir.program import Program
from ...fuse.fuse_attention import FuseAttention
from ...fuse.fuse_rotary import FuseRotary
from ...lower.timed.timing import Timing
from ...manager.contract import Context


def timing(
    program: Program,
    context: Context,
    workload: str = "",
    ready: Callable[[Program], None] = lambda program: None,
) -> Timing:
    """Programs beside one, attention over all keys a single kernel in each; `Timing` says what is given."""
    return Timing(program, context, workload, ready, (FuseRotary(), FuseAttention()))

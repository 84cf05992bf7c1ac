"""ONNX to Relax: the graph at static sizes, contrib operators written out, through TVM's ONNX importer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ....ir.host.quiet import quiet
from ....ir.program import Program
from ....passes.canonical.fold_constants import fold
from ....passes.canonical.specialise_shapes import SpecialiseShapes
from ....passes.manager.contract import Context

_FOLD = 1 << 24  # bytes: masks and position terms of long inputs are computed now, tables stay tables


def import_onnx(program: Program, sizes: Mapping[str, int]) -> Any:
    """A Relax module whose function "main" takes the program's inputs and returns its outputs.

    Args:
        program: of the onnx dialect; it is not edited.
        sizes: of every symbol in the shapes of the inputs.

    Raises:
        BackendError: TVM has no operator for one of the graph's.
    """
    from .onnx_importer import Importer

    program = program.clone()
    with quiet():
        program = SpecialiseShapes(others=tuple(sizes.items())).run(program, Context()).program
        fold(program.graph, _FOLD, Context())
    return Importer().imported(program.graph)

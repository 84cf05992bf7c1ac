"""FX to Relax: the graph at static sizes, attention written out, through TVM's importer of torch.export."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.fx import GraphModule

from ....ir.errors import BackendError
from ....ir.fx.mode import set_mode
from ....ir.host.quiet import quiet
from ....ir.inputs.probe import feed
from ....ir.program import Program
from ....passes.lower.parts.sdpa import spell_masks, write_out
from .fixed_sizes import fixed_sizes

_MEND = "lowered by to-onnx first, it may fit"


def import_fx(program: Program, sizes: Mapping[str, int]) -> Any:
    """A Relax module whose function "main" takes the program's inputs and returns its outputs.

    Args:
        program: of the fx dialect; it is not edited.
        sizes: of every symbol in the shapes of the inputs.

    Raises:
        BackendError: TVM has no operator for one of the graph's.
    """
    graph = spell_masks(program)
    set_mode(graph, training=False)
    write_out(graph)
    inputs = [torch.from_numpy(array) for array in feed(program, sizes).values()]
    return _imported(fixed_sizes(graph, inputs), inputs)


def _imported(graph: GraphModule, inputs: list[torch.Tensor]) -> Any:
    from tvm.relax.frontend.torch import from_exported_program
    from tvm.relax.frontend.torch.exported_program_translator import ExportedProgramImporter

    from .fx_operators import OPERATORS

    known = {*ExportedProgramImporter().convert_map, *OPERATORS}
    with quiet(), torch.no_grad():
        try:
            exported = torch.export.export(graph, tuple(inputs), strict=False)
            if _unknown(exported.graph, known):
                table = torch.export.default_decompositions()
                for operator in [operator for operator in table if operator.__name__ in known]:
                    del table[operator]  # what TVM can import stays whole
                exported = exported.run_decompositions(table)  # which traces it once more
            _check(exported.graph, known)
            return from_exported_program(
                exported,
                run_ep_decomposition=False,
                unwrap_unit_return_tuple=True,
                custom_convert_map=dict(OPERATORS),
            )
        except BackendError:
            raise
        except Exception as error:
            reason = str(error).strip().split("\n")[-1]
            raise BackendError(f"TVM cannot import the traced graph: {reason}; {_MEND}.") from error


def _unknown(graph: torch.fx.Graph, known: set[str]) -> list[torch.fx.Node]:
    """The calls of operators that TVM's importer does not have."""
    return [node for node in graph.nodes if node.op == "call_function" and node.target.__name__ not in known]


def _check(graph: torch.fx.Graph, known: set[str]) -> None:
    """Raise BackendError for an operator that TVM's importer does not have, or whose sizes are not fixed."""
    for node in _unknown(graph, known):
        raise BackendError(f"TVM has no operator {node.target} (at '{node.name}'); {_MEND}.")
    for node in graph.nodes:
        sizes = getattr(node.meta.get("val"), "shape", ())
        if any(isinstance(size, torch.SymInt) for size in sizes):
            raise BackendError(f"TVM builds for fixed sizes, and {node.target} gives one that data decides.")

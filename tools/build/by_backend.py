"""How each backend builds."""

from __future__ import annotations

from .building import Building
from .building_graphs import Graphs
from .work import Work


def building(backend: str, work: Work) -> Building:
    """That of a backend; TVM loads only where it is asked for."""
    if backend == "tvm":
        from .building_compiled import Compiled

        return Compiled(work)
    return Graphs(work)

"""What stands between two nodes of an fx graph."""

from __future__ import annotations

from torch.fx import Node


def between(entry: Node, exit: Node) -> dict[Node, None]:
    """What is computed from the entry on the way to the exit, that included, in the graph's order."""
    above = {exit}
    stack = [exit]
    while stack:
        for node in stack.pop().all_input_nodes:
            if node not in above and node is not entry:
                above.add(node)
                stack.append(node)
    found: dict[Node, None] = {}
    for node in entry.graph.nodes:
        if node in above and any(source is entry or source in found for source in node.all_input_nodes):
            found[node] = None
    return found

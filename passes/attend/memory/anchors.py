"""What is remembered of keys and values: the narrowest (batch, length, features) behind their projection."""

from __future__ import annotations

from torch.fx import Node

from ...common.between import between


def anchor(root: Node, end: Node) -> Node:
    """The last value of three axes on the one way from a projection to the scores, before it parts or is cut
    into heads: the keys alone where one projection makes queries, keys and values."""
    inside = between(root, end)
    found, node = root, root
    while node is not end:
        users = [user for user in node.users if user in inside]
        if len(users) != 1:
            break
        (node,) = users
        shape = getattr(node.meta.get("val"), "shape", ())
        if len(shape) == 3 and shape[:2] == root.meta["val"].shape[:2]:
            found = node
    return found

"""How every fusion goes: each site is checked, asked for and written; what is left is told with a reason."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from ....ir.blocks.base import Miss
from ...manager.contract import Context

Site = TypeVar("Site")
Plan = TypeVar("Plan")


class Unfit(Exception):  # noqa: N818 - an answer, not an error
    """This site is left as it is. The message says why."""


def drive(
    sites: Iterable[Site],
    named: Callable[[Site], str],
    check: Callable[[Site], Plan],
    write: Callable[[Site, Plan], None],
    rewrite: str,
    context: Context,
    notes: list[str],
) -> list[Site]:
    """The sites that were written, in order.

    Args:
        named: what a site is called in notes and rewrites.
        check: what it takes to write a site. Raises Unfit for one that does not fit.
        write: edits the graph; it stays a valid one after every site.
        rewrite: "fuse norm": with a site's name, what `Context.allow` is asked for.
        notes: gets a line for each site that is refused.
    """
    written = []
    for site in sites:
        try:
            plan = check(site)
        except Unfit as unfit:
            notes.append(f"{named(site)}: {unfit}")
            continue
        if context.allow(f"{rewrite} {named(site)}"):
            write(site, plan)
            written.append(site)
    return written


def misses(missed: Iterable[Miss], kind: str) -> list[str]:
    """A note for everything that looked like a block of a kind and is none."""
    return [f"{miss.node}: {miss.reason}" for miss in missed if miss.kind == kind]

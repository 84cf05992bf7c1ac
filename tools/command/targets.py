"""`optimize targets`: its options."""

from __future__ import annotations

from ..console import Console
from .verb import verb


@verb
def targets(*, console: Console) -> None:
    """List the hardware that --target can name."""
    from ..verbs import targets as listing

    found = listing.listed()
    if console.json:
        console.value([target.to_json() for target in found])
    else:
        console.show(listing.table(found))

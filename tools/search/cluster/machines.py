"""Which machines of a cluster take part in a search, and why the others don't."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ....backends.target import detect
from ..versions import processor, versions
from .joined import RESOURCE, flag

WAIT = 60.0  # seconds for a machine to tell what it is


@dataclass(frozen=True)
class Machine:
    """node: Ray's name of it. host: as a person knows it. cpus: that Ray may share out there. resource: what
    a lease of it is one of; a machine has one."""

    node: str
    host: str
    cpus: float
    resource: str


@dataclass(frozen=True)
class Told:
    """What a machine says it is. version: of everything that numbers hold for. model: of its processor, as
    the resource names it; processor: with cores and instruction sets."""

    version: str
    model: str
    processor: str


def here() -> Told:
    """What this machine is."""
    return Told(versions(), detect().model or detect().arch, processor())


def machines(known: dict[str, str], mine: Told) -> list[Machine]:
    """Those that are up, may be measured on, and are what the search's own machine is.

    Args:
        mine: what that is.
        known: node -> why it is left out, in a sentence, or "" where it takes part; what is found of others
            is put there.
    """
    import ray

    up = {one["NodeID"]: one for one in ray.nodes() if one["Alive"]}
    asked = {}
    for node, one in up.items():
        if node in known:
            continue
        names = [name for name in one["Resources"] if name.startswith(RESOURCE)]
        if not names:
            known[node] = (
                f"{one['NodeManagerAddress']} is left out: it may not be measured on; `ray start` it with "
                f"{flag(mine.model)}"
            )
        else:
            asked[node] = _asked(node)
    ray.wait(list(asked.values()), num_returns=len(asked), timeout=WAIT) if asked else None
    for node, answer in asked.items():
        known[node] = _left_out(up[node], answer, mine)
    return [_machine(one) for node, one in up.items() if known[node] == ""]


def _machine(one: dict[str, Any]) -> Machine:
    resource = next(name for name in one["Resources"] if name.startswith(RESOURCE))
    return Machine(one["NodeID"], one["NodeManagerAddress"], one["Resources"].get("CPU", 0.0), resource)


def _asked(node: str) -> Any:
    """What a machine will say it is."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as On

    where = {"num_cpus": 0, "max_retries": 0, "scheduling_strategy": On(node, soft=False)}
    return ray.remote(here).options(**where).remote()


def _left_out(one: dict[str, Any], answer: Any, mine: Told) -> str:
    """Why a machine takes no part; "" where it does."""
    import ray

    host, resource = one["NodeManagerAddress"], _machine(one).resource.removeprefix(RESOURCE)
    try:
        told = ray.get(answer, timeout=0)
    except ray.exceptions.RayError as error:
        said = " ".join(str(getattr(error, "cause", None) or error).split())[-200:]
        return f"{host} is left out: this graphwright ({mine.version}) can't be begun there: {said}"
    if told.version != mine.version:
        return (
            f"{host} is left out: it has {told.version}, and this is {mine.version}: install the same there"
        )
    if told.model != resource:
        return (
            f"{host} is left out: it was started to measure as {resource!r} and is a {told.model!r}: `ray "
            f"start` it with {flag(told.model)}"
        )
    if told.processor != mine.processor:
        return (
            f"{host} is left out: its processor is {told.processor}, and this search measures on "
            f"{mine.processor}; times of two are not mixed: search from there for it"
        )
    return ""

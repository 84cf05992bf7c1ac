"""Rewrites a Relax function: the kernel library runs what it knows, the compiler the rest."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tvm import relax

from ....ir.blocks import recognise
from ....ir.blocks.base import Norm
from ....ir.spec import InputSpec
from ....ir.values import Value, sizes
from ..kernels.machine import Machine
from ..kernels.norm import finished
from ..kernels.tile import Tile, choose
from .attend import direct, fitting, write_attention
from .cached import cached, write_cached
from .chains import chains
from .dense import write_chain
from .elementwise import write_operator
from .emitter import Emitter
from .few_bits import norm_before, of_few_bits
from .integers import integers
from .items import Item, ordered
from .lookups import lookups, write_lookup
from .masks import TokenMasks, mask_input
from .pools import pools, write_pool
from .products import as_floats
from .rebuild import bindings, with_kernels
from .site import Site
from .view import RelaxView


@dataclass(frozen=True)
class Planned:
    """module: "main" calls kernels. mask: the input whose zeros are left out of token-wise kernels; "main"
    then takes, behind its inputs, rows [kept] int32, the kept tokens in order, and starts [batch + 1] int32,
    where each sequence begins among them. kernels: calls of each kernel. notes: what no kernel fits, and why.
    """

    module: Any
    mask: str | None
    kernels: Mapping[str, int]
    notes: tuple[str, ...]


def plan(
    module: Any,
    inputs: Sequence[InputSpec],
    machine: Machine,
    tile: Callable[[int, int, str, int], Tile] | None = None,
) -> Planned:
    """Plans a module at static sizes.

    Args:
        module: of one Relax function, "main", in dataflow form, and PrimFuncs.
        inputs: main's parameters, in order, whatever their sizes.
        machine: what the kernels are for.
        tile: of a product, by k, n, dtype and the most rows of a call; None takes the analytic choice.
    """
    module = as_floats(module)
    tile = tile or (lambda k, n, dtype, rows: choose(n, machine))
    main = module["main"]
    view = RelaxView(main)
    blocks = recognise(view)
    mask = mask_input(inputs)
    shape = main.params[inputs.index(mask)].ty.shape if mask else None
    batch, length = (int(shape[0]), int(shape[1])) if shape is not None and len(shape) == 2 else (0, 0)
    sums = pools(view.values) if batch else []
    masks = TokenMasks(module, blocks.attention, inputs, mask if batch else None, [s.mask for s in sums])
    found = lookups(view, blocks, (batch, length)) if batch else []
    packed = bool(
        found
        and blocks.attention
        and all(direct(a) and fitting(a) and not a.cross and masks.sight(a) for a in blocks.attention)
    )
    builder = relax.BlockBuilder()
    parameters = [relax.Var(str(p.name), p.ty) for p in main.params]
    emitter = Emitter(builder, machine, parameters, batch, packed)
    few = of_few_bits(blocks)
    before = norm_before(blocks, few)
    site = Site(emitter, machine, masks, integers(blocks.linear, packed), packed, tile, few, before)
    order: dict[Value, int] = {value: number for number, value in enumerate(view.values)}
    items = _items(site, view, blocks, found, sums, main)
    live, site.needed = ordered(items, view.outputs, order)
    for parameter, value in zip(parameters, view.inputs, strict=True):
        emitter.set_whole(value, parameter)
    # Memory is planned for a batch without padding.
    attributes = {"tir_var_upper_bound": {"kept": batch * length}} if packed else {}
    with builder.function("main", emitter.made, attrs=attributes):
        with builder.dataflow():
            for item in live:
                item.write()
            results = [emitter.whole(value) for value in view.outputs]
            single = isinstance(main.ret_ty, relax.TensorType)
            result = builder.emit_output(results[0] if single else relax.Tuple(results))
        builder.emit_func_output(result)
    made = relax.transform.DeadCodeElimination()(with_kernels(builder.get(), module))
    return Planned(made, mask.name if packed and mask else None, emitter.counts, tuple(site.notes))


def _items(site: Site, view: RelaxView, blocks: Any, found: Any, sums: Any, main: Any) -> list[Item]:
    """Kernels first; an operator only for values that no kernel provides."""
    items: list[Item] = []
    taken: set[Value] = set()

    def add(item: Item) -> None:
        if item.provides and taken.isdisjoint(item.provides):
            items.append(item)
            taken.update(item.provides)

    projections = {linear for a in blocks.attention if direct(a) for linear in (a.q, a.k, a.v)}
    steps = {} if site.packed else cached(blocks)
    projections |= {linear for step in steps.values() for linear, _ in step.sides}
    for lookup in found:
        add(write_lookup(site, lookup))
    for step in steps.values():
        for item in write_cached(site, step):
            add(item)
    for attention in filter(fitting, blocks.attention):
        add(write_attention(site, attention))
    for chain in chains(blocks, view.outputs, projections, site.coded):
        add(write_chain(site, chain))
    for each in sums if site.packed else ():
        if site.masks.keeps(each.mask):
            add(write_pool(site, each))
    for norm in blocks.norm:
        add(_write_norm(site, norm))
    tuples = {binding.var: binding.value for binding in bindings(main) if binding.var not in view}
    for binding in bindings(main):
        if binding.var in view:
            add(write_operator(site, view, binding, tuples))
    return items


def _write_norm(site: Site, norm: Norm) -> Item:
    """The item of a norm."""

    def write() -> None:
        em = site.emitter
        if em.is_tokens(norm.input):
            em.tokens.add(norm.root)
        finish = site.finish(norm.root, norm=norm)
        rows = em.rows(norm.input)
        assert norm.root.shape is not None
        n = sizes(norm.root)[-1]
        results = em.kernel(
            f"norm_{n}", ("norm", n, finish), lambda: finished(n, finish, site.machine),
            [rows, *site.arguments(finish, norm.root, None, norm, n)],
            site.results(finish, em.count(norm.input), n),
        )  # fmt: skip
        site.put(finish, norm.root, results)

    return Item((norm.root,), ((norm.input, "float"),), write)

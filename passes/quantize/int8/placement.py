"""Where QuantizeLinear and DequantizeLinear stay: around the products that ONNX Runtime computes in integers.

Which patterns fuse depends on its version, on the shape of the product and on what stands around it, so it
is not assumed: the graph is given to ONNX Runtime, and what comes out of its optimizer is looked at.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from ....ir.onnx.kernels import INTEGER, Kernel, kernels
from ....ir.program import Program
from .rewrite import Int8Writer, Static
from .sites import Site, find


def unfused(program: Program, sites: Sequence[Site], limit: int, static: Static) -> dict[int, str]:
    """Numbers of the sites with a product that would not run in integers, and why. Nothing is edited.

    Args:
        sites: all that `find` gives.
    """
    trial = program.clone()
    writer = Int8Writer(trial.graph, limit, static)
    for site in find(trial, limit)[0]:
        writer.write(site, "static")
    writer.finish()
    stored = {(w.name, turned): str(integers.name) for (w, turned), (integers, _) in writer.weights.items()}
    readers: dict[str, list[Kernel]] = {}
    for kernel in kernels(trial.graph):
        for name in dict.fromkeys(kernel.inputs):
            readers.setdefault(name, []).append(kernel)
    wanted = Counter(stored[p.weight.name, p.transposed] for site in sites for p in site.products)
    reasons: dict[int, str] = {}
    for number, site in enumerate(sites):
        for product in site.products:
            name = stored[product.weight.name, product.transposed]
            ran = [kernel.op_type for kernel in _computing(name, readers)]
            if sum(op_type in INTEGER for op_type in ran) < wanted[name]:
                others = ", ".join(sorted(set(ran) - INTEGER)) or "no product"
                reasons[number] = f"ONNX Runtime does not fuse its QuantizeLinear: {others} would run"
    return reasons


def _computing(name: str, readers: Mapping[str, Sequence[Kernel]]) -> Iterator[Kernel]:
    """The kernels that read a value, seen through DequantizeLinear."""
    for kernel in readers.get(name, ()):
        if kernel.op_type == "DequantizeLinear":
            yield from _computing(kernel.outputs[0], readers)
        else:
            yield kernel

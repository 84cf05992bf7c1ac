"""torch.export with every axis symbolic that can be, and its symbols under readable names."""

from __future__ import annotations

import inspect
import io
import keyword
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, redirect_stderr
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.fx.graph import CodeGen

from ..errors import CaptureError
from ..host.quiet import quiet
from ..spec import UNBOUNDED
from .functional import functional, mutates
from .graph import fake_mode
from .outputs import flattened
from .reasons import reason
from .untouched import attributes_kept


@dataclass(frozen=True)
class Exported:
    """A traced module.

    program: torch.export.ExportedProgram, functional ATen, composite operators (linear, layer_norm,
    scaled_dot_product_attention) whole. outputs: names in order, one a tensor. dropped: outputs that were
    no tensors. shapes: per input, integers and symbol names. symbols: inclusive bounds as the graph states
    them. names: torch's name of each symbol ("s53") -> ours ("length").
    """

    program: Any
    outputs: tuple[str, ...]
    dropped: tuple[str, ...]
    shapes: Mapping[str, tuple[int | str, ...]]
    symbols: Mapping[str, tuple[int, int]]
    names: Mapping[str, str]

    def graph_module(self) -> torch.fx.GraphModule:
        """The graph with its real parameters: `graph(*inputs) -> tuple of outputs`, no guards, no asserts."""
        module = self.program.module(check_guards=False)
        graph = module.graph
        for node in reversed(graph.nodes):
            if node.op == "call_function" and "_assert" in str(node.target):
                graph.erase_node(node)
            elif mutates(node) and node.args[0].op == "get_attr":  # what a buffer becomes, after all the rest
                node.replace_all_uses_with(node.args[1])
                graph.erase_node(node)
            elif node.target is torch.ops.aten.view.default:
                # view insists on the strides that the example had; a rewrite, or another size, has others.
                node.target = torch.ops.aten.reshape.default
        # torch.export wraps inputs and outputs in a pytree; a plain signature is easier to rewrite.
        graph.set_codegen(CodeGen())
        graph.eliminate_dead_code()
        return torch.fx.GraphModule(module, graph).eval()  # holds only what the graph reads

    def output_shapes(self) -> dict[str, list[int | str]]:
        """Per output, integers and symbols, or an expression of symbols ("2*length")."""
        ours = self.names
        nodes = {node.name: node for node in self.program.graph.nodes}
        shapes = {}
        for name, theirs in zip(self.outputs, self.program.graph_signature.user_outputs, strict=True):
            sizes = nodes[theirs].meta["val"].shape if theirs in nodes else ()
            shapes[name] = [
                _SYMBOL.sub(lambda found: ours.get(found[0], found[0]), str(size))
                if isinstance(size, torch.SymInt) and not size.node.expr.is_Integer
                else int(size)
                for size in sizes
            ]
        return shapes


_SYMBOL = re.compile(r"\b[a-z]+\d+\b")
Axes = Mapping[str, tuple[int | str, ...]]
Call = Callable[[Sequence[Tensor]], tuple[tuple[Any, ...], dict[str, Any]]]


def in_order(tensors: Sequence[Tensor]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The call of a graph: tensors by place."""
    return tuple(tensors), {}


def export(
    module: nn.Module,
    inputs: Mapping[str, Tensor],
    axes: Axes | None = None,
    call: Call = in_order,
    written: Collection[str] = (),
) -> Exported:
    """Traces a call of the module.

    Args:
        module: in the mode that is wanted; its outputs become a flat tuple of tensors.
        inputs: example tensors by the names that the program's inputs get, no two over the same memory.
        axes: per input, an integer for an axis that stays fixed, and a label for one that is symbolic: equal
            labels, equal sizes. By default every axis starts symbolic and becomes fixed only where the
            module's own code fixes it; see `default_axes`.
        call: gives the positional and named arguments of the module from the tensors in order.
        written: inputs that the module writes into; the program leaves them as they are.

    Raises:
        CaptureError: torch.export cannot trace the module; the message carries its reason.
    """
    axes = axes or default_axes(inputs)
    auto, fixed = torch.export.Dim.AUTO, torch.export.Dim.STATIC
    outputs: list[str] = []
    dropped: list[str] = []
    entry = _Entry(module, axes, call, written, outputs, dropped)
    dynamic = {
        own: {i: fixed if isinstance(a, int) else auto for i, a in enumerate(axes[name])}
        for own, name in zip(entry.names, inputs, strict=True)
    }
    try:
        # On its way out of an error torch.export prints the graph so far.
        with (
            quiet(), redirect_stderr(io.StringIO()), torch.no_grad(),
            plainly(), unasked(), unmoved(), uncached(),
        ):  # fmt: skip
            program = torch.export.export(
                entry, tuple(inputs.values()), {}, dynamic_shapes=dynamic, strict=False
            )
            if any(mutates(node) for node in program.graph.nodes):
                program = functional(program)
    except CaptureError:
        raise
    except Exception as error:
        raise CaptureError(f"torch.export cannot trace {type(module).__name__}: {reason(error)}.") from error
    fake_mode(program.graph).cache_enabled = True  # for whoever computes the same shapes again
    shapes, symbols, names = _symbols(program, inputs, axes)
    return Exported(program, tuple(outputs), tuple(dropped), shapes, symbols, names)


class _Entry(nn.Module):
    """The module, called with tensors by place and giving a flat tuple of them; its parameters keep their
    names. It first states which axes are equal, so that torch.export gives them one symbol."""

    def __init__(
        self,
        module: nn.Module,
        axes: Axes,
        call: Call,
        written: Collection[str],
        outputs: list[str],
        dropped: list[str],
    ) -> None:
        super().__init__()
        self._parameters, self._buffers, self._modules = module._parameters, module._buffers, module._modules
        self.training = module.training
        self.names = [_identifier(name, number) for number, name in enumerate(axes)]

        def forward(*tensors: Tensor) -> tuple[Tensor, ...]:
            sizes: dict[str, Any] = {}
            for labels, tensor in zip(axes.values(), tensors, strict=True):
                for label, size in zip(labels, tensor.shape, strict=True):
                    if isinstance(label, str):
                        torch._check(size == sizes.setdefault(label, size))
            given = [t.clone() if name in written else t for name, t in zip(axes, tensors, strict=True)]
            args, kwargs = call(given)
            with attributes_kept(
                module
            ):  # torch.export calls more than once: what one left is not for the next
                output = module(*args, **kwargs)
            found, dropped[:] = flattened(output)
            outputs[:] = [name for name, _ in found]
            if not found:
                raise CaptureError(
                    f"the module gives {type(output).__name__}, and no tensor in it: nothing to compute."
                )
            for name, tensor in found:
                if tensor.is_complex():
                    raise CaptureError(
                        f"the output '{name}' is complex, which no runtime gives: return torch.view_as_real."
                    )
            return tuple(tensor for _, tensor in found)

        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        forward.__signature__ = inspect.Signature([inspect.Parameter(n, kind) for n in self.names])  # type: ignore[attr-defined]
        self.forward = forward


def _identifier(name: str, number: int) -> str:
    """A parameter's name for an input's: the same where Python allows it."""
    return name if name.isidentifier() and not keyword.iskeyword(name) else f"input_{number}"


def default_axes(inputs: Mapping[str, Tensor]) -> dict[str, tuple[int | str, ...]]:
    """Labels by example: first axes of one size are one ("batch"), and inputs of one shape share all of
    theirs: give lengths that differ to axes that are to stay apart."""
    return {
        name: tuple(f"{t.shape[0]}" if axis == 0 else f"{tuple(t.shape)}.{axis}" for axis in range(t.dim()))
        for name, t in inputs.items()
    }


@contextmanager
def plainly() -> Iterator[None]:
    """Parts under torch.compile run as they were written, and nn.TransformerEncoder without its fused
    inference kernel, which has no derivative and no ONNX form."""
    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.compiler.set_stance("force_eager"):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)


def uncached() -> AbstractContextManager[None]:
    """torch doesn't look up what an operator gave for such operands before: with symbols for sizes it seldom
    finds that, and a look takes longer than computing the shape, up to a third of a trace."""
    return torch._dynamo.config.patch(fake_tensor_cache_enabled=False)


@contextmanager
def unasked() -> Iterator[None]:
    """nn.TransformerEncoder and nn.TransformerDecoder don't look whether a mask is a causal one, which a
    trace can't: it is a hint to kernels, and the mask says all."""
    with patch.object(
        torch.nn.modules.transformer,
        "_detect_is_causal_mask",
        lambda mask, is_causal=None, size=None: bool(is_causal),
    ):
        yield


@contextmanager
def unmoved() -> Iterator[None]:
    """A module that casts a part of itself as it runs, to the type that it has, leaves it as it is: a trace
    can't put other weights in it."""
    cast = nn.Module.to

    def to(self: nn.Module, *args: Any, **kwargs: Any) -> nn.Module:
        device, dtype, _, form = torch._C._nn._parse_to(*args, **kwargs)
        held = [*self.parameters(), *self.buffers()]
        same = dtype is None or all(each.dtype == dtype or not each.is_floating_point() for each in held)
        placed = device is None or all(each.device == device for each in held)
        return self if same and placed and form is None else cast(self, *args, **kwargs)

    with patch.object(nn.Module, "to", to):
        yield


def _symbols(program: Any, inputs: Mapping[str, Tensor], axes: Axes) -> tuple[dict, dict, dict]:
    """Reads the input shapes off the placeholders and names symbols, by labels where those are names."""
    users = program.graph_signature.user_inputs
    nodes = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
    names: dict[str, str] = {}
    symbols: dict[str, tuple[int, int]] = {}
    shapes: dict[str, tuple[int | str, ...]] = {}
    for name, user in zip(inputs, users, strict=True):
        shape: list[int | str] = []
        for axis, size in enumerate(nodes[user].meta["val"].shape):
            symbol = size.node.expr if isinstance(size, torch.SymInt) else size
            if not getattr(symbol, "is_Symbol", False):
                shape.append(int(size))
                continue
            if str(symbol) not in names:
                names[str(symbol)] = ours = _readable(name, axis, axes[name][axis], set(names.values()))
                bounds = program.range_constraints.get(symbol)
                lower = int(bounds.lower) if bounds is not None and bounds.lower.is_Integer else 1
                upper = int(bounds.upper) if bounds is not None and bounds.upper.is_Integer else UNBOUNDED
                # torch.export never tries a size of one: two for the smallest says nothing of it.
                symbols[ours] = (lower if lower > 2 else 1, min(upper, UNBOUNDED))
            shape.append(names[str(symbol)])
        shapes[name] = tuple(shape)
    return shapes, symbols, names


def _readable(name: str, axis: int, label: int | str, taken: set[str]) -> str:
    wished = "batch" if axis == 0 else "decoder_length" if name.startswith("decoder") else "length"
    if isinstance(label, str) and label.isidentifier() and not _SYMBOL.fullmatch(label):  # "s53" is torch's
        wished = label
    return wished if wished not in taken else f"{name}_{axis}"

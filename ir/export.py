"""torch.export with every axis symbolic that can be, and its symbols under readable names."""

from __future__ import annotations

import functools
import io
import types
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx.graph import CodeGen
from torch.utils import _pytree as pytree

from .errors import CaptureError
from .program import UNBOUNDED
from .quiet import quiet


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
            elif node.target is torch.ops.aten.view.default:
                # view insists on the strides that the example had; a rewrite, or another size, has others.
                node.target = torch.ops.aten.reshape.default
        # torch.export wraps inputs and outputs in a pytree; a plain signature is easier to rewrite.
        graph.set_codegen(CodeGen())
        graph.eliminate_dead_code()
        return torch.fx.GraphModule(module, graph).eval()  # holds only what the graph reads


Axes = Mapping[str, tuple[int | str, ...]]


def export(module: nn.Module, inputs: Mapping[str, Tensor], axes: Axes | None = None) -> Exported:
    """Traces `module(**inputs)`.

    Args:
        module: in the mode that is wanted; its outputs become a flat tuple of tensors.
        inputs: example tensors by parameter name.
        axes: per input, an integer for an axis that stays fixed, and a label for one that is symbolic: equal
            labels, equal sizes. By default every axis starts symbolic and becomes fixed only where the
            module's own code fixes it; first axes of equal size are one symbol ("batch"), and inputs of one
            shape share all of their symbols: give lengths that differ to axes that are to stay apart.

    Raises:
        CaptureError: torch.export cannot trace the module; the message carries its reason.
    """
    inputs = _widened(inputs)
    axes = axes or default_axes(inputs)
    module = _plain(module) if isinstance(module, torch.fx.GraphModule) else module
    auto, fixed = torch.export.Dim.AUTO, torch.export.Dim.STATIC
    dynamic = {n: {i: fixed if isinstance(a, int) else auto for i, a in enumerate(axes[n])} for n in inputs}
    outputs: list[str] = []
    dropped: list[str] = []
    try:
        # On its way out of an error torch.export prints the graph so far.
        with (
            quiet(), redirect_stderr(io.StringIO()), torch.no_grad(), _no_fast_path(),
            _around(module, axes, outputs, dropped),
        ):  # fmt: skip
            program = torch.export.export(module, (), dict(inputs), dynamic_shapes=dynamic, strict=False)
            if any(mutates(node) for node in program.graph.nodes):
                program = _functional(program)
    except CaptureError:
        raise
    except Exception as error:
        reason = str(error).strip().split("\n")[0]
        raise CaptureError(f"torch.export cannot trace {type(module).__name__}: {reason}") from error
    shapes, symbols, names = _symbols(program, inputs)
    return Exported(program, tuple(outputs), tuple(dropped), shapes, symbols, names)


def _widened(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A batch of one is repeated: torch.export takes an axis of size one for a fixed one."""
    if all(t.dim() and t.shape[0] == 1 for t in inputs.values()):
        return {name: torch.cat([t, t]) for name, t in inputs.items()}
    return dict(inputs)


def _plain(graph: torch.fx.GraphModule) -> nn.Module:
    """The same parameters and forward in an ordinary module: torch.export runs a GraphModule node by node,
    past its forward, where `_around` has no say."""
    plain = nn.Module()
    plain._parameters, plain._buffers, plain._modules = graph._parameters, graph._buffers, graph._modules
    plain.forward = types.MethodType(type(graph).forward, plain)
    plain.training = graph.training
    return plain


def default_axes(inputs: Mapping[str, Tensor]) -> dict[str, tuple[int | str, ...]]:
    """Labels by example: the size for first axes, the whole shape and the axis for the others."""
    return {
        name: tuple(f"{t.shape[0]}" if axis == 0 else f"{tuple(t.shape)}.{axis}" for axis in range(t.dim()))
        for name, t in inputs.items()
    }


@contextmanager
def _around(module: nn.Module, axes: Axes, names: list[str], dropped: list[str]) -> Iterator[None]:
    """Until the block ends, forward first states which axes are equal, so that torch.export gives them one
    symbol, and last flattens its output, entering the tensors' paths in `names` and the rest in `dropped`."""
    forward = module.forward

    @functools.wraps(forward)
    def wrapped(*args: Any, **kwargs: Any) -> tuple[Tensor, ...]:
        sizes: dict[str, Any] = {}
        for name, labels in axes.items():
            for label, size in zip(labels, kwargs[name].shape, strict=True):
                if isinstance(label, str):
                    torch._check(size == sizes.setdefault(label, size))
        return _flat(forward(*args, **kwargs), names, dropped)

    own = "forward" in vars(module)
    module.forward = wrapped
    try:
        yield
    finally:
        if own:
            module.forward = forward
        else:
            del module.forward


def _flat(output: Any, names: list[str], dropped: list[str]) -> tuple[Tensor, ...]:
    names.clear()
    dropped.clear()
    if isinstance(output, Tensor):
        names.append("output")
        return (output,)
    tensors = []
    several = output if isinstance(output, tuple | list) else (output,)
    items = output.items() if isinstance(output, Mapping) else enumerate(several)
    for key, value in items:
        for path, leaf in pytree.tree_flatten_with_path(value)[0]:
            name = "_".join([str(key) if isinstance(key, str) else f"output_{key}", *map(_key, path)])
            if isinstance(leaf, Tensor):
                names.append(name)
                tensors.append(leaf)
            elif leaf is not None:
                dropped.append(name)
    if not tensors:
        raise CaptureError(
            f"the module gives {type(output).__name__}, and no tensor in it: nothing to compute."
        )
    return tuple(tensors)


def _key(entry: Any) -> str:
    return str(getattr(entry, "key", getattr(entry, "idx", getattr(entry, "name", entry))))


@contextmanager
def _no_fast_path() -> Iterator[None]:
    """nn.TransformerEncoder's fused inference kernel has no derivative and no ONNX form."""
    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)


def mutates(node: torch.fx.Node) -> bool:
    """Whether an operator writes into one of its operands."""
    schema = getattr(node.target, "_schema", None)
    return node.op == "call_function" and schema is not None and schema.is_mutable


@torch.library.custom_op("graphwright::dropout", mutates_args=())
def _dropout(x: Tensor, p: float, train: bool) -> Tensor:
    """Stands for aten.dropout while a program is made functional."""
    return x.clone()


@_dropout.register_fake
def _(x: Tensor, p: float, train: bool) -> Tensor:
    return torch.empty_like(x)


def _functional(program: Any) -> Any:
    """The program without operators that write into their operands; torch.export would drop dropouts too."""
    ours, theirs = torch.ops.graphwright.dropout.default, torch.ops.aten.dropout.default
    _retarget(program.graph_module, theirs, ours)
    program = program.run_decompositions({})
    _retarget(program.graph_module, ours, theirs)
    return program


def _retarget(module: torch.fx.GraphModule, old: Any, new: Any) -> None:
    for graph in [part for part in module.modules() if isinstance(part, torch.fx.GraphModule)]:
        for node in graph.graph.find_nodes(op="call_function", target=old):
            node.target = new
        graph.recompile()


def _symbols(program: Any, inputs: Mapping[str, Tensor]) -> tuple[dict, dict, dict]:
    """Reads the input shapes off the placeholders and gives every symbol a name."""
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
                names[str(symbol)] = ours = _readable(name, axis, set(names.values()))
                bounds = program.range_constraints.get(symbol)
                lower = int(bounds.lower) if bounds is not None and bounds.lower.is_Integer else 1
                upper = int(bounds.upper) if bounds is not None and bounds.upper.is_Integer else UNBOUNDED
                # torch.export never tries a size of one: two for the smallest says nothing of it.
                symbols[ours] = (lower if lower > 2 else 1, min(upper, UNBOUNDED))
            shape.append(names[str(symbol)])
        shapes[name] = tuple(shape)
    return shapes, symbols, names


def _readable(name: str, axis: int, taken: set[str]) -> str:
    wished = "batch" if axis == 0 else "decoder_length" if name.startswith("decoder") else "length"
    return wished if wished not in taken else f"{name}_{axis}"

"""The example that a user gives a module: which tensors are inputs, their names, how a call takes them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import CaptureError, did_you_mean

_PLAIN = (bool, int, float, str, torch.dtype)


@dataclass(frozen=True)
class Arguments:
    """tensors: the example by input name, each with memory of its own. call: puts tensors, in that order,
    where forward wants them. fixed: what is no tensor and stays as the example has it, by name."""

    tensors: Mapping[str, Tensor]
    call: Callable[[Sequence[Tensor]], tuple[tuple[Any, ...], dict[str, Any]]]
    fixed: Mapping[str, Any]


def arguments(module: nn.Module, inputs: Any) -> Arguments:
    """Reads example inputs: by parameter name, in the order of forward's parameters, or one tensor alone.

    Tensors inside of dicts, lists and tuples are inputs of their own, named by their path ("state_h").
    Numbers, booleans, strings and None stay as they are in the example.

    Raises:
        CaptureError: no input, one that forward doesn't take, one that is missing, or one that is no dense
            tensor of real numbers on the CPU.
    """
    kind = type(module).__name__
    if inputs is None:
        raise CaptureError(f"{kind} is a module: give example inputs, capture(module, inputs={{...}}).")
    takes = inspect.signature(module.forward).parameters
    given = _by_parameter(kind, takes, [inputs] if isinstance(inputs, Tensor) else inputs)
    found: dict[str, Tensor] = {}
    fixed: dict[str, Any] = {}
    for parameter, value in given.items():
        before = len(found)
        for path, leaf in _leaves(value, (parameter,)):
            name = "_".join(path)
            if isinstance(leaf, Tensor):
                found[_free(name, found)] = _own(name, leaf)
            elif leaf is None or (isinstance(leaf, _PLAIN) and (path == (parameter,) or len(found) > before)):
                fixed[name] = leaf
            else:
                raise CaptureError(
                    f"example input '{parameter}' is {type(value).__name__}: give a torch.Tensor."
                )
    if not found:
        raise CaptureError(f"{kind}.forward takes {', '.join(takes)}: no example input given.")
    positional, keywords = _places(takes, given, isinstance(inputs, Mapping))

    def call(tensors: Sequence[Tensor]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        rest = iter(tensors)
        filled = {name: _filled(value, rest) for name, value in given.items()}
        return tuple(filled[name] for name in positional), {name: filled[name] for name in keywords}

    return Arguments(found, call, {name: value for name, value in fixed.items() if value is not None})


def _by_parameter(kind: str, takes: Mapping[str, inspect.Parameter], inputs: Any) -> dict[str, Any]:
    """The example by parameter; what goes to *args is args_0, args_1, ..."""
    if not isinstance(inputs, Mapping) and not isinstance(inputs, list | tuple):
        raise CaptureError(
            f"the example inputs of {kind} are {type(inputs).__name__}: give tensors by name, or in order."
        )
    parameters = list(takes.values())
    several = next((p.name for p in parameters if p.kind is p.VAR_POSITIONAL), None)
    if not isinstance(inputs, Mapping):
        places = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
        if len(inputs) > len(places) and several is None:
            raise CaptureError(f"{kind}.forward takes {', '.join(takes)}: {len(inputs)} inputs given.")
        places += [f"{several}_{i}" for i in range(len(inputs) - len(places))]
        given = dict(zip(places, inputs, strict=False))
    else:
        given = {str(name): value for name, value in inputs.items()}
        if several in given and isinstance(given[several], list | tuple):
            values = given.pop(several)
            given |= {f"{several}_{i}": value for i, value in enumerate(values)}
    if not given:
        raise CaptureError(f"{kind}.forward takes {', '.join(takes)}: no example input given.")
    anything = any(p.kind is p.VAR_KEYWORD for p in parameters)
    for name in given:
        named = name in takes and takes[name].kind not in (
            inspect.Parameter.VAR_POSITIONAL,
            inspect.Parameter.VAR_KEYWORD,
        )
        if not named and not anything and not (several and name.startswith(f"{several}_")):
            raise CaptureError(f"{kind}.forward has no input '{name}'{did_you_mean(name, takes)}")
    for p in parameters:
        if p.name not in given and p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD):
            raise CaptureError(f"{kind}.forward needs '{p.name}': give an example of it.")
    return given


def _places(
    takes: Mapping[str, inspect.Parameter], given: Mapping[str, Any], named: bool
) -> tuple[list[str], list[str]]:
    """Which arguments go by position, in order, and which by name: as in the example, where that can be."""
    several = next((p.name for p in takes.values() if p.kind is p.VAR_POSITIONAL), None)
    rest = [name for name in given if several and name not in takes and name.startswith(f"{several}_")]
    positional = []
    for parameter in takes.values():
        either = parameter.kind is parameter.POSITIONAL_OR_KEYWORD and (rest or not named)
        if (either or parameter.kind is parameter.POSITIONAL_ONLY) and parameter.name in given:
            positional.append(parameter.name)
    positional += rest
    return positional, [name for name in given if name not in positional]


def _leaves(value: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(value, Mapping):
        for key, each in value.items():
            yield from _leaves(each, (*path, str(key)))
    elif isinstance(value, list | tuple) and value:
        for i, each in enumerate(value):
            yield from _leaves(each, (*path, str(i)))
    else:
        yield path, value


def _filled(value: Any, tensors: Iterator[Tensor]) -> Any:
    """The example's containers with other tensors in them, in the order of `_leaves`."""
    if isinstance(value, Tensor):
        return next(tensors)
    if isinstance(value, Mapping):
        return {key: _filled(each, tensors) for key, each in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_filled(each, tensors) for each in value))
    if isinstance(value, list | tuple):
        return type(value)(_filled(each, tensors) for each in value)
    return value


def _free(name: str, taken: Mapping[str, Any]) -> str:
    number, free = 1, name
    while free in taken:
        free, number = f"{name}_{number}", number + 1
    return free


def _own(name: str, tensor: Tensor) -> Tensor:
    """A plain copy, as torch.export takes two tensors that share memory for one input."""
    what = f"example input '{name}'"
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_nested:
        raise CaptureError(f"{what} is a sparse, nested or quantized tensor: give a dense one.")
    if tensor.device.type != "cpu":
        raise CaptureError(f"{what} is on the device {tensor.device}: move it, and the module, to the CPU.")
    if tensor.is_complex():
        raise CaptureError(f"{what} is complex, which no runtime takes: give torch.view_as_real of it.")
    if not tensor.numel():
        raise CaptureError(f"{what} is empty, of shape {tuple(tensor.shape)}.")
    return tensor.detach().as_subclass(Tensor).clone(memory_format=torch.contiguous_format).resolve_neg()

"""Runs compiled functions. Needs only apache-tvm and NumPy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ....ir.errors import BackendError, BundleError
from ....ir.inputs.memory import remembering
from ....ir.spec import InputSpec
from ... import processor
from ...bundles.feeds import Feed, check, check_ids, from_the_start
from ...bundles.record import WEIGHTS, Compiled, Function
from ...runtimes.session import first_line
from .choice import Choice
from .executor import Executor
from .fitting import Input, cut, rows_of
from .kept import Kept
from .library import runtime
from .weights_file import read

_CPU, _POOLED = 1, 2  # DLPack's device type; TVM's AllocatorType


class Runtime:
    """A folder's compiled functions, ready to run. Safe to call from several threads.

    Args:
        folder: holds their module and model.weights.
        compiled: what is in them.
        inputs: of the program, in the order that the functions take them.
        outputs: their names.
        symbols: bounds of every symbol.
        threads: that a call runs on; no more than this process has CPUs.

    Raises:
        BackendError: TVM is missing, or another version is installed.
        BundleError: the files can't be loaded, or are for another processor.
    """

    def __init__(
        self,
        folder: Path,
        compiled: Compiled,
        inputs: Sequence[InputSpec],
        outputs: Sequence[str],
        symbols: Mapping[str, tuple[int, int]],
        threads: int,
    ) -> None:
        processor.check(compiled.arch, compiled.needs)
        runtime()
        self.inputs, self.outputs, self.symbols = tuple(inputs), tuple(outputs), dict(symbols)
        self.compiled = compiled
        self._choice = Choice(compiled.functions, compiled.padding)
        self._ids = [spec for spec in self.inputs if spec.high or spec.indexes]
        self._last: tuple[Any, Mapping[str, int]] = (None, {})  # the form of the last call, and its sizes
        self._executor = Executor(threads, lambda: _Machine(folder, compiled, inputs))

    def run(self, feed: Feed) -> dict[str, np.ndarray]:
        """Outputs by name.

        A call of any size up to the largest compiled one: it is padded to a compiled size and its results are
        cut back; one of more rows is split.

        Raises:
            InputError: naming the input that is missing or does not fit.
            BackendError: a function failed.
        """
        feed = remembering(self.inputs, feed)
        sizes = self._sizes(feed)
        feed = from_the_start(self._ids, feed, sizes)
        pieces = self._choice.pieces(sizes)
        try:
            results = self._executor.do(_Machine.run, feed, sizes, pieces)
        except (RuntimeError, ValueError, TypeError) as error:  # what tvm_ffi makes of C++ exceptions
            raise BackendError(f"TVM failed on this call: {first_line(error)}") from error
        return dict(zip(self.outputs, results, strict=True))

    def _sizes(self, feed: Feed) -> Mapping[str, int]:
        """The size of every symbol; a feed of the last one's form (a cache has many inputs) has its sizes."""
        known, sizes = self._last
        form = None
        if isinstance(feed, Mapping) and all(type(x) is np.ndarray for x in feed.values()):
            form = tuple((name, x.dtype, x.shape) for name, x in feed.items())
            if form == known:
                check_ids(self._ids, feed, sizes)
                return sizes
        sizes = check(self.inputs, self.symbols, feed)
        self._last = form, sizes
        return sizes


class _Machine:
    """TVM's virtual machine over a folder, for the thread that made it."""

    def __init__(self, folder: Path, compiled: Compiled, inputs: Sequence[InputSpec]) -> None:
        self.ffi, self.padding, self.inputs = runtime(), compiled.padding, tuple(inputs)
        arrays = read(folder / WEIGHTS, compiled.places)
        tensors = {name: self.ffi.from_dlpack(array) for name, array in arrays.items()}
        try:
            # Bound here, or the library would go before what is in it.
            self.library = self.ffi.load_module(str(folder / compiled.module))
            machine = self.library["vm_load_executable"]()
            machine["vm_initialization"](_CPU, 0, _POOLED)
            self.calls = [_Call(self, machine, function, tensors) for function in compiled.functions]
        except Exception as error:  # of the loader or of tvm_ffi, which have no base of their own
            raise BundleError(
                f"{folder / compiled.module} can't be loaded ({first_line(error)}): build the bundle again"
            ) from error

    def run(
        self, feed: Feed, sizes: Mapping[str, int], pieces: Sequence[tuple[int, int]]
    ) -> list[np.ndarray]:
        """Results in order, of one piece or of several joined along the batch."""
        if len(pieces) == 1:
            return self.calls[pieces[0][0]].run(feed, sizes)
        batch, start, parts = self.padding.batch, 0, []
        assert batch is not None
        for number, rows in pieces:
            piece = {
                spec.name: rows_of(feed[spec.name], spec.shape, batch, start, rows) for spec in self.inputs
            }
            parts.append(self.calls[number].run(piece, {**sizes, batch: rows}))
            start += rows
        return [
            np.concatenate(results, axis=axes.index(batch))
            for results, axes in zip(zip(*parts, strict=True), self.padding.axes, strict=True)
        ]


class _Call:
    """One compiled size, its weights bound to it."""

    def __init__(self, owner: _Machine, machine: Any, compiled: Function, tensors: Mapping[str, Any]) -> None:
        self.ffi, self.padding = owner.ffi, owner.padding
        self.sizes, self.specs = compiled.sizes, owner.inputs
        takes = len(owner.inputs) + (0 if compiled.mask is None else 2) + len(compiled.weights)
        if machine["get_function_arity"](compiled.name) != takes:  # it would read what isn't there
            raise ValueError(f"{compiled.name} does not take {takes} arrays")
        bound = f"{compiled.name}.bound"
        machine["save_function"](compiled.name, bound, True, *(tensors[name] for name in compiled.weights))
        self.function = machine[bound]
        self.mask = compiled.mask
        self.inputs: list[tuple[Input, Any]] = []
        self.kept: Kept | None = None

    def run(self, feed: Feed, sizes: Mapping[str, int]) -> list[np.ndarray]:
        if not self.inputs:
            made = [Input(spec, self.sizes, self.padding) for spec in self.specs]
            self.inputs = [(each, self.ffi.from_dlpack(each.array)) for each in made]
            if self.mask is not None:
                shapes = {spec.name: each.array.shape for spec, each in zip(self.specs, made, strict=True)}
                self.kept = Kept(shapes[self.mask])
                self.masking = next(spec for spec in self.specs if spec.name == self.mask)
        tensors = []
        for spec, (place, tensor) in zip(self.specs, self.inputs, strict=True):
            given = feed[spec.name]
            if place.takes(given):
                tensors.append(self.ffi.from_dlpack(given))
            else:
                place.fill(given)
                tensors.append(tensor)
        if self.mask is not None and self.kept is not None:
            tensors += map(self.ffi.from_dlpack, self.kept.of(self.masking.kept(feed[self.mask])))
        found = self.function(*tensors)
        found = [found] if isinstance(found, self.ffi.Tensor) else found
        if sizes == self.sizes:
            return [np.from_dlpack(result) for result in found]
        return [
            cut(np.from_dlpack(result), axes, sizes)
            for result, axes in zip(found, self.padding.axes, strict=True)
        ]

"""Bundles of the tvm backend timed on another machine, through TVM's RPC."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ....ir.errors import MeasureError
from ...bundles.feeds import Feed, check
from ...bundles.manifest import Manifest, read_manifest, verify_files
from ...bundles.record import WEIGHTS, Compiled, Function
from ..run.choice import Choice
from ..run.fitting import Input, rows_of
from ..run.kept import Kept
from ..run.weights_file import read
from .device import Device

LEAST = 0.1  # seconds of timed calls in a turn


def contestants(device: Device) -> Callable[[str, str, Path, int], RemoteBundle]:
    """What `measure.compare` starts contestants with: bundles, uploaded to a device when first asked for.

    It raises MeasureError for anything but a bundle of the tvm backend, and where the device can't load it.
    """
    loaded: dict[Path, RemoteBundle] = {}

    def start(name: str, kind: str, path: Path, threads: int) -> RemoteBundle:
        if kind != "bundle":
            raise MeasureError(f"{name} is no bundle; only bundles of the tvm backend run on {device.key}")
        if path not in loaded:
            loaded[path] = RemoteBundle(device, name, path, len(loaded))
        return loaded[path]

    return start


class RemoteBundle:
    """A bundle on a device, which answers as `process.Worker` does."""

    def __init__(self, device: Device, name: str, folder: Path, number: int) -> None:
        manifest = read_manifest(folder)
        verify_files(folder, manifest)
        if manifest.compiled is None:
            raise MeasureError(f"{name} was not built with --backend tvm; nothing else runs on {device.key}")
        if manifest.isa:
            raise MeasureError(
                f"{name} holds variants for several processors, and {device.key} does not say which it has: "
                "build it for the device's target alone"
            )
        if "amxtile" in manifest.compiled.needs:
            raise MeasureError(
                f"{name} multiplies in AMX's tiles, for which TVM's RPC server on {device.key} asks no "
                "permission: time it there with optimize bench, or build it with --target x86-64-bf16"
            )
        self.name, self._device, self._manifest = name, device, manifest
        self.compiled: Compiled = manifest.compiled
        self._choice = Choice(self.compiled.functions, self.compiled.padding)
        device.doing(
            f"load {name}, which was built for {self.compiled.arch}", lambda: self._load(folder, number)
        )

    def _load(self, folder: Path, number: int) -> None:
        from tvm import relax, runtime

        session = self._device.session
        library = f"{number}-{self.compiled.module}"
        session.upload(str(folder / self.compiled.module), library)
        self._cpu = session.cpu()
        self._machine = relax.VirtualMachine(session.load_module(library), self._cpu)
        arrays = read(folder / WEIGHTS, self.compiled.places)
        self._weights = {name: runtime.tensor(array, self._cpu) for name, array in arrays.items()}

    def ask(self, **request: Any) -> dict[str, Any]:
        """Seconds of each timed call of the workload in the file request["feed"], as worker._time has them.

        A call that several compiled sizes share is the sum of theirs. Raises MeasureError, InputError.
        """
        with np.load(request["feed"], allow_pickle=False) as stored:
            given = {name: stored[name] for name in stored.files}
        feed = _chosen(self.name, self._manifest, given)
        taken = [
            self._device.doing(f"run {self.name}", partial(self._time, function, arrays, request))
            for function, arrays in self._calls(feed)
        ]
        calls = min(map(len, taken))
        return {
            "seconds": np.sum([seconds[:calls] for seconds in taken], axis=0).tolist(),
            "disturbed": False,  # the device doesn't tell
            "peak_bytes": 0,
            "joules": None,
        }

    def run(self, feed: Feed) -> list[np.ndarray]:
        """Results of one call that a single compiled size holds, as large as that size."""
        ((function, arrays),) = self._calls(feed)
        return self._device.doing(f"run {self.name}", lambda: self._results(function, arrays))

    def _results(self, function: Function, arrays: list[np.ndarray]) -> list[np.ndarray]:
        self._set(function, arrays)
        self._machine.invoke_stateful(function.name)
        found = self._machine.get_outputs(function.name)
        return [result.numpy() for result in (found if isinstance(found, tuple) else (found,))]

    def _time(self, function: Function, arrays: list[np.ndarray], request: Mapping[str, Any]) -> np.ndarray:
        self._set(function, arrays)
        evaluate = lambda calls: (
            self._machine.time_evaluator("invoke_stateful", self._cpu, number=1, repeat=calls)(
                function.name
            ).results
        )
        once = float(np.median(evaluate(max(request["warmup"], 2))))
        wanted = max(request["runs"], LEAST / max(once, 1e-6))
        return np.array(evaluate(int(min(wanted, max(2, request["seconds"] / max(once, 1e-6)), 1000))))

    def _set(self, function: Function, arrays: list[np.ndarray]) -> None:
        from tvm import runtime

        inputs = [runtime.tensor(array, self._cpu) for array in arrays]
        self._machine.set_input(function.name, *inputs, *(self._weights[name] for name in function.weights))

    def _calls(self, feed: Feed) -> list[tuple[Function, list[np.ndarray]]]:
        """The compiled functions that a call needs, each with its inputs padded to its size."""
        manifest, padding = self._manifest, self.compiled.padding
        sizes = check(manifest.inputs, manifest.symbols, feed)
        found, start = [], 0
        for number, rows in self._choice.pieces(sizes):
            function = self.compiled.functions[number]
            arrays: list[np.ndarray] = []
            kept: tuple[np.ndarray, ...] = ()
            for spec in manifest.inputs:
                place = Input(spec, function.sizes, padding)
                array = feed[spec.name]
                if padding.batch is not None:
                    array = rows_of(array, spec.shape, padding.batch, start, rows)
                place.fill(array)
                arrays.append(place.array)
                if spec.name == function.mask:
                    kept = Kept(place.array.shape).of(spec.kept(array))
            found.append((function, [*arrays, *kept]))
            start += rows
        return found

    def __enter__(self) -> RemoteBundle:
        return self

    def __exit__(self, *_: object) -> None:
        """It stays on the device, for the next turn."""


def _chosen(name: str, manifest: Manifest, given: Feed) -> dict[str, np.ndarray]:
    """The arrays that the bundle takes; workloads may have more of them."""
    missing = [spec.name for spec in manifest.inputs if spec.name not in given]
    if missing:
        raise MeasureError(f"{name} takes an input {missing[0]!r} that the workload does not have")
    return {spec.name: given[spec.name] for spec in manifest.inputs}

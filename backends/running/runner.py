"""Loads and runs a bundle. Needs only what it was built for, onnxruntime or apache-tvm, and NumPy; tokenizers
where texts come in."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ...ir.errors import BundleError, InputError, short
from ...ir.host.files import path_of
from ...ir.inputs.extents import Extent, extents
from ...ir.inputs.text import TextEncoder
from ...ir.inputs.texts import listed
from ...ir.spec import InputSpec
from ..bundles.feeds import Feed
from ..bundles.folder import appearing
from ..bundles.isa import refusal
from ..bundles.manifest import MANIFEST, Manifest, read_manifest, verify_files
from ..target import check_threads, detect, usable_threads
from ..tvm.run.runtime import Runtime
from .answers import classes, spans, together
from .routed import Routed
from .stream import Stream

CLASSIFIERS = ("sequence-classification", "token-classification")
BATCH = 32  # texts that __call__ runs together


def load(
    directory: str | Path, threads: int | None = None, verify: bool = True, bounded: bool = False
) -> Bundle:
    """A bundle that `optimize` wrote, ready to run.

    Of one with variants for several instruction sets, the best that this processor has (`Bundle.variant`).

    Args:
        directory: what was given to `-o`.
        threads: intra-op threads; None takes what the bundle was measured with, as far as this process, or
            its container's group, may use so many CPUs.
        bounded: for a process that lives long and is called with ever new sizes: nothing is kept of each of
            them. A call of a size seen before may be a little slower.
        verify: compare every file with the hash in the manifest (reads each file once).

    Raises:
        BundleError: no bundle, an incomplete one, one that was tampered with, one of a newer format, or one
            that was compiled for other processors.
        BackendError: it was compiled by TVM, and that is missing or of another version.
        GraphwrightError: a number of threads that no machine should start.
    """
    try:
        folder = Path(path_of(directory))
    except (TypeError, ValueError):
        raise BundleError(f"load takes the directory of a bundle, not {short(directory)}") from None
    if threads is not None:
        check_threads(threads)
    manifest = read_manifest(folder)
    verify_files(folder, manifest, hashes=verify)
    if manifest.isa and manifest.chosen is None:
        raise BundleError(refusal(folder, manifest.isa))
    # A bundle of a larger machine runs on all that there is here.
    here = min(manifest.threads, usable_threads()) if manifest.threads else None
    return Bundle(folder, manifest, threads or here, bounded)


class Bundle:
    """A program as ONNX graphs, or as functions that TVM compiled, over one copy of the weights; each call
    takes what suits its size. Safe to call from several threads.

    manifest: everything recorded about how the bundle was made. engine: what runs.
    """

    def __init__(
        self, directory: Path, manifest: Manifest, threads: int | None, bounded: bool = False
    ) -> None:
        self.directory = directory
        self.manifest = manifest
        self.threads, self.bounded = threads, bounded
        self._stamps = {name: _stamp(directory / name) for name in manifest.files}
        self.engine = self._engine()

    def __repr__(self) -> str:
        compiled = self.manifest.compiled
        what = f"{len(compiled.functions)} sizes" if compiled else f"{len(self.manifest.graphs)} graphs"
        what += f" for {self.variant}" if self.variant else ""
        return f"Bundle({str(self.directory)!r}, {what}, {self.manifest.task})"

    @property
    def variant(self) -> str | None:
        """The target that what runs was built for, in a bundle of variants for several; else None."""
        return self.manifest.variant

    @property
    def inputs(self) -> tuple[InputSpec, ...]:
        """What each input accepts."""
        return self.manifest.inputs

    @property
    def input_names(self) -> tuple[str, ...]:
        return tuple(spec.name for spec in self.manifest.inputs)

    @property
    def axes(self) -> tuple[Extent, ...]:
        """How long each axis of each input and output may be, and why."""
        return extents(self.manifest)

    @property
    def output_names(self) -> tuple[str, ...]:
        return self.manifest.outputs

    def run(self, feed: Feed) -> dict[str, np.ndarray]:
        """Outputs by name, from arrays by name; a memory that is left out is empty.

        Raises:
            InputError: naming the input that is missing, unknown or does not fit, and what would.
        """
        return self.engine.run(feed)

    def stream(self) -> Stream:
        """Texts read segment by segment, for a model with a memory: `stream.run(feed)` for each segment.

        Raises:
            InputError: the model has none.
        """
        return Stream(self.run, self.inputs)

    def encode(self, texts: Iterable[str], pairs: Iterable[str] | None = None) -> dict[str, np.ndarray]:
        """Arrays by input name: truncated to what the model takes, padded to the longest.

        Args:
            texts: one or more, in a list, an array of strings, a generator; the rows of the result.
            pairs: second segments, one a text, for models that compare two.

        Raises:
            InputError: what is given is no list of strings, or not as many of both.
            BundleError: the bundle has no tokenizer.
        """
        return self.encoder(texts, pairs)

    def __call__(self, texts: str | Iterable[str], pairs: str | Iterable[str] | None = None) -> Any:
        """The model's answer to texts, run in batches of like length.

        Args:
            texts: one, or several in a list, an array of strings, a generator.
            pairs: second segments, one a text, for models that compare two.

        Returns:
            For an embedding model, float32 (texts, width), or (width,) for a single string. For a classifier,
            what `predict` gives. Otherwise the outputs by name, (texts, ...), what has a text's length padded
            to the longest: behind a text's own tokens they mean nothing.

        Raises:
            InputError: what is given is no string and no list of strings.
            BundleError: the bundle has no tokenizer.
        """
        if self.manifest.task in CLASSIFIERS:
            return self.predict(texts, pairs)
        _, outputs = self._outputs(texts, pairs)
        if self.manifest.task != "embedding":
            return {name: together([row[name] for row in outputs]) for name in self.output_names}
        rows = [row[self.output_names[0]] for row in outputs]
        return rows[0] if isinstance(texts, str) else np.stack(rows)

    def predict(self, texts: str | Iterable[str], pairs: str | Iterable[str] | None = None) -> Any:
        """What a classifier says of each text, run in batches of like length.

        Args:
            texts, pairs: as for a call.

        Returns:
            One for a single string, else a list, one a text. For a classifier of texts an `Answer`, label and
            probability; a tuple of them where several labels may hold; a number where there is one column, as
            rerankers have: the model's score. For a classifier of tokens, a list of labelled `Span`s.

        Raises:
            InputError: the model is no classifier, or what is given is no string and no list of strings.
            BundleError: the bundle has no tokenizer.
        """
        if self.manifest.task not in CLASSIFIERS:
            raise InputError(
                f"the model's task is {self.manifest.task}, and only classifiers predict: "
                "call the bundle with the texts instead"
            )
        given = [texts] if isinstance(texts, str) else listed(texts)
        encodings, outputs = self._outputs(given, pairs)
        name = "logits" if "logits" in self.output_names else self.output_names[0]
        logits = [row[name] for row in outputs]
        if self.manifest.task == "sequence-classification":
            found: list[Any] = classes(np.stack(logits), self.manifest.info)
        else:
            found = [
                spans(row[: len(encoding)], encoding.offsets, text, self.manifest.info)
                for row, encoding, text in zip(logits, encodings, given, strict=True)
            ]
        return found[0] if isinstance(texts, str) else found

    def _outputs(
        self, texts: str | Iterable[str], pairs: str | Iterable[str] | None
    ) -> tuple[list[Any], list[dict[str, np.ndarray]]]:
        """Each text's tokens, and its outputs by name without the axis of texts."""
        batch = [texts] if isinstance(texts, str) else texts
        second = [pairs] if isinstance(pairs, str) else pairs
        encodings = self.encoder.tokenize(batch, second)
        order = np.argsort([len(encoding) for encoding in encodings], kind="stable")
        rows: list[Any] = [None] * len(encodings)
        for start in range(0, len(order), BATCH):
            chosen = order[start : start + BATCH]
            outputs = self.run(self.encoder.pad_together([encodings[i] for i in chosen]))
            for number, i in enumerate(chosen):
                rows[i] = {name: _row(outputs[name], number, len(chosen)) for name in self.output_names}
        return encodings, rows

    @cached_property
    def encoder(self) -> TextEncoder:
        """The bundle's tokenizer. Raises BundleError where it has none."""
        name = "tokenizer.json"
        if name not in self.manifest.files:
            raise BundleError(f"{self.directory} has no {name}: pass arrays to run()")
        self._unchanged(name)
        content = (self.directory / name).read_bytes()
        return TextEncoder(content, self.manifest.inputs, self.manifest.info, self.manifest.symbols)

    def save(self, directory: Path) -> None:
        """Copy the bundle to a new directory. Raises BundleError where that can't be written."""
        self._verify()
        with appearing(Path(directory), force=False) as partial:
            for name in (*self.manifest.files, MANIFEST):
                (partial / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(self.directory / name, partial / name)

    def _engine(self) -> Routed | Runtime:
        compiled = self.manifest.compiled
        if compiled is None:
            return Routed(self.directory, self.manifest, self.threads, self._verify, self.bounded)
        return Runtime(
            self.directory,
            compiled,
            self.manifest.inputs,
            self.manifest.outputs,
            self.manifest.symbols,
            self.threads or detect().cores,
        )

    def _verify(self) -> None:
        for name in self.manifest.files:
            self._unchanged(name)

    def _unchanged(self, name: str) -> None:
        """What was verified is what is read: sessions are made at a graph's first call, maybe hours later."""
        if _stamp(self.directory / name) != self._stamps[name]:
            raise BundleError(
                f"{self.directory / name} has changed since the bundle was loaded: load it again"
            )


def _row(array: np.ndarray, number: int, rows: int) -> np.ndarray:
    """A text's part of an output; all of one that has no row a text."""
    return array[number] if array.shape[:1] == (rows,) else array


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_ino, stat.st_size, stat.st_mtime_ns

"""PyTorch, eager and compiled: what people run before, so what every build is compared with."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...ir.errors import BackendError
from ...ir.inputs.memory import remembering
from ...ir.program import Program
from ...ir.spec import InputSpec
from ..base import Backend
from ..bundles.feeds import check
from ..target import Target
from .session import first_line


@dataclass(frozen=True)
class TorchArtifact:
    """A PyTorch module that takes and gives NumPy arrays by name.

    call: from tensors by name to tensors by name. inputs: what is checked before a call; empty where only
    names are known.
    """

    input_names: tuple[str, ...]
    output_names: tuple[str, ...]
    call: Callable[[dict[str, Any]], dict[str, Any]]
    inputs: Sequence[InputSpec] = ()
    symbols: Mapping[str, tuple[int, int]] | None = None

    def run(self, feed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Outputs by name. Raises InputError naming the input that is missing or does not fit."""
        import torch

        if self.inputs:
            feed = remembering(self.inputs, feed)
            check(self.inputs, self.symbols or {}, feed)
        with torch.inference_mode():
            outputs = self.call({name: torch.from_numpy(array) for name, array in feed.items()})
            return {name: tensor.numpy() for name, tensor in outputs.items()}

    def save(self, directory: Path) -> None:
        """Refused: a reference is not deployed.

        Raises:
            BackendError: always.
        """
        raise BackendError("a PyTorch reference is not deployed: lower the program to onnx and save that")


class Reference(Backend):
    """Runs programs of the fx dialect in PyTorch."""

    name = "reference"

    def build(
        self, program: Program, target: Target | None = None, threads: int = 2, *, compiled: bool = False
    ) -> TorchArtifact:
        """The program's own module, ready to call; its parameters are shared, not copied.

        Args:
            program: of the fx dialect.
            target: unused.
            threads: intra-op threads of the whole process: PyTorch has one setting.
            compiled: through torch.compile with dynamic shapes; the first call compiles.

        Raises:
            BackendError: the program is not of the fx dialect.
        """
        import torch

        if program.dialect != "fx":
            raise BackendError(
                f"PyTorch runs the fx dialect and this program is {program.dialect}: use onnxruntime"
            )
        torch.set_num_threads(threads)
        module = torch.compile(program.graph, dynamic=True) if compiled else program.graph
        names = tuple(spec.name for spec in program.inputs)

        def call(tensors: dict[str, Any]) -> dict[str, Any]:
            found = module(*(tensors[name] for name in names))
            found = (found,) if isinstance(found, torch.Tensor) else found
            return dict(zip(program.outputs, found, strict=True))

        return TorchArtifact(names, program.outputs, call, program.inputs, program.symbols)


def open_directory(directory: Path, threads: int = 2, compiled: bool = False) -> TorchArtifact:
    """A Hugging Face or sentence-transformers directory as its owner would run it: transformers, eager or
    compiled, in evaluation mode. The transformer alone: pooling costs nothing beside it.

    Raises:
        BackendError: transformers is missing, or can't load the directory.
    """
    try:
        import torch
        import transformers
    except ImportError as error:
        raise BackendError(
            f"{directory} needs PyTorch and transformers: pip install 'graphwright[hf]'"
        ) from error
    torch.set_num_threads(threads)
    folder = _transformer(directory)
    try:
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
        named = getattr(transformers, (config.architectures or ["AutoModel"])[0], transformers.AutoModel)
        model = named.from_pretrained(
            folder, local_files_only=True, use_safetensors=_safetensors(folder)
        ).eval()
    except (OSError, ValueError, RuntimeError) as error:
        raise BackendError(f"transformers cannot load {directory}: {first_line(error)}") from error
    forward = torch.compile(model, dynamic=True) if compiled else model

    def call(tensors: dict[str, Any]) -> dict[str, Any]:
        outputs = forward(**tensors)
        return {name: value for name, value in outputs.items() if isinstance(value, torch.Tensor)}

    return TorchArtifact(tuple(inspect.signature(model.forward).parameters), (), call)


def _transformer(directory: Path) -> Path:
    """Where the transformer of a sentence-transformers directory lies; the directory itself otherwise."""
    modules = directory / "modules.json"
    if not modules.is_file():
        return directory
    return directory / json.loads(modules.read_text())[0]["path"]


def _safetensors(folder: Path) -> bool | None:
    """Insist on safetensors where there are some, so that no pickle is opened in their place."""
    return True if any(folder.glob("*.safetensors")) else None

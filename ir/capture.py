"""The one door into the compiler: whatever describes a model becomes a Program."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from .errors import CaptureError, GraphwrightError
from .host.files import path_of, why
from .program import Program, Task

Spelling = Literal["sdpa", "eager"]
_READ = ["*.json", "*.txt", "*.safetensors", "*.jinja", "*.model"]  # of a hub id


def capture(
    source: Any,
    *,
    inputs: Mapping[str, Any] | Sequence[Any] | None = None,
    task: Task | None = None,
    attn: Spelling | None = None,
    model_type: str | None = None,
) -> Program:
    """Captures a model.

    Args:
        source: an nn.Module; a Hugging Face or sentence-transformers directory, or a hub id; an .onnx file;
            a .pt2 file.
        inputs: example tensors, for a module: by name, in the order of forward's parameters, or one alone;
            dicts and tuples of tensors are opened, and what is no tensor stays as it is.
        task: overrides the task found in the configuration.
        attn: how attention is spelled in a Hugging Face model's trace: "sdpa" (the default where the model
            offers it) keeps it one operator, "eager" writes it out.
        model_type: what transformers calls a directory's model ("bert"), where its config.json doesn't say.

    Returns:
        A program in dialect "fx" (modules, directories, .pt2: a GraphModule of ATen operators whose forward
        takes the inputs in order and returns a tuple of outputs) or "onnx" (.onnx).

    Raises:
        CaptureError: one sentence that names what is wrong with the source.
    """
    if not isinstance(source, str | Path):
        from .sources.module import from_module

        return from_module(source, inputs, task)
    with reading(source):
        return _from_path(source, task, attn, model_type)


@contextmanager
def reading(source: str | Path) -> Iterator[None]:
    """Libraries that read what nobody meant to write raise whatever they come upon.

    Raises:
        CaptureError: they did.
    """
    try:
        yield
    except GraphwrightError:
        raise
    except Exception as error:
        raise CaptureError(f"'{source}' cannot be captured: {why(error)}") from error


def _from_path(
    source: str | Path, task: Task | None, attn: Spelling | None, model_type: str | None
) -> Program:
    path = Path(path_of(source))
    if path.suffix == ".onnx":
        from .sources.onnx_file import from_onnx

        return from_onnx(path, task)
    if path.suffix == ".pt2":
        from .sources.pt2 import from_pt2

        return from_pt2(path, task)
    if path.is_file():
        raise CaptureError(f"'{path}' is not a model: give a directory, an .onnx file or a .pt2 file.")
    if not path.is_dir():
        if path.is_absolute() or str(source).startswith((".", "~")):
            raise CaptureError(f"there is no '{source}'.")
        path = fetch(str(source))
    return _directory(path, task, attn, model_type)


def _directory(path: Path, task: Task | None, attn: Spelling | None, kind: str | None) -> Program:
    from .sources.hf import from_directory
    from .sources.sentence import from_sentence_directory, is_sentence_transformer

    if (path / "manifest.json").is_file() and not (path / "config.json").exists():
        graph = (
            f"or its graph, {path / 'model.onnx'}" if (path / "model.onnx").is_file() else "which it names"
        )
        raise CaptureError(
            f"'{path}' is a bundle that optimize wrote: give the model that it was made from, {graph}; "
            "run, bench, verify and inspect --quant take the bundle itself."
        )
    if is_sentence_transformer(path) and task in (None, "embedding"):
        return from_sentence_directory(path, attn, kind)
    if task == "embedding":
        raise CaptureError(f"'{path}' has no modules.json: without its pooling there is no embedding.")
    return from_directory(path, task, attn, kind)


def fetch(repository: str) -> Path:
    """Downloads (or finds in the cache) what capture reads of a model; never code.

    Raises:
        CaptureError: no such model, no access to it, or no connection.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
    )

    try:
        directory = Path(snapshot_download(repository, allow_patterns=_READ))
        if not list(directory.glob("*.safetensors")):
            directory = Path(snapshot_download(repository, allow_patterns=[*_READ, "*pytorch_model*.bin"]))
        return directory
    except HFValidationError as error:
        raise CaptureError(f"there is no '{repository}' here, and no hub id looks like that.") from error
    except GatedRepoError as error:
        raise CaptureError(f"'{repository}' is gated: ask for access on the hub and log in.") from error
    except RepositoryNotFoundError as error:
        raise CaptureError(f"there is no '{repository}' here or on the Hugging Face hub.") from error
    except (LocalEntryNotFoundError, OfflineModeIsEnabled, HfHubHTTPError, OSError) as error:
        raise CaptureError(
            f"there is no '{repository}' here, and the Hugging Face hub cannot be reached for it."
        ) from error

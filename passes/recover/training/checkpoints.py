"""Where a training run is kept, so that it goes on after a kill: one safetensors file and one JSON file.

The tensors are written beside the older ones, under another name, and `state.json` is then replaced in one
step: whatever stops the process, and a full disk too, leaves one whole checkpoint or the other.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from ....ir.errors import CheckpointError

FORMAT = 1
STATE = "state.json"


class Checkpoints:
    """The checkpoints of one run in one folder.

    Args:
        folder: made where it does not exist.
        key: JSON-able; everything that the run's numbers depend on. Another run's checkpoint is refused.
        seconds: between two checkpoints, at least.
    """

    def __init__(self, folder: Path, key: Mapping[str, Any], seconds: float = 30.0) -> None:
        self.folder, self.seconds = Path(folder), seconds
        self.key = _digest(json.dumps(key, sort_keys=True).encode())

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keeps other processes out of the folder.

        Raises:
            CheckpointError: another process trains there, or the folder cannot be made.
        """
        from filelock import FileLock, Timeout

        lock = FileLock(self.folder / "lock", timeout=0)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except Timeout:
            raise CheckpointError(
                f"another process trains in {self.folder}: wait for it, or name another folder"
            ) from None
        except OSError as error:
            raise CheckpointError(f"{self.folder} cannot hold checkpoints: {error.strerror}") from error
        try:
            yield
        finally:
            lock.release()

    def exists(self) -> bool:
        return (self.folder / STATE).exists()

    def load(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:
        """The tensors and facts of the newest checkpoint; None where there is none.

        Raises:
            CheckpointError: it is another run's, or not what was written.
        """
        if not self.exists():
            return None
        mend = f"delete {self.folder} to start again"
        try:
            state = json.loads((self.folder / STATE).read_bytes())
            if state.pop("seal") != _digest(json.dumps(state, sort_keys=True).encode()):
                raise ValueError("seal")
            file = self.folder / Path(state["file"]).name
            with open(file, "rb") as stream:
                if hashlib.file_digest(stream, "blake2b").hexdigest() != state["digest"]:
                    raise ValueError("digest")
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            raise CheckpointError(
                f"the checkpoint in {self.folder} is damaged or was changed: {mend}"
            ) from None
        if (state["format"], state["key"]) != (FORMAT, self.key):
            raise CheckpointError(
                f"the checkpoint in {self.folder} is of another run, program, data or options differ: "
                f"name another folder, or {mend}"
            )
        return load_file(file), state["facts"]

    def save(self, tensors: Mapping[str, torch.Tensor], facts: Mapping[str, Any]) -> None:
        """Replace the checkpoint, whole or not at all.

        Raises:
            OSError: it could not be written; the older one stays.
        """
        older = [path for path in self.folder.glob("*.safetensors*") if path.is_file()]
        number = 1 + max((int(path.name.split(".")[0]) for path in older), default=0)
        file, partial = self.folder / f"{number}.safetensors", self.folder / f"{STATE}.partial"
        try:
            _written(tensors, file)
            with open(file, "rb") as stream:
                digest = hashlib.file_digest(stream, "blake2b").hexdigest()
            state = {"format": FORMAT, "key": self.key, "file": file.name, "digest": digest, "facts": facts}
            state["seal"] = _digest(json.dumps(state, sort_keys=True).encode())
            with open(partial, "w") as out:
                json.dump(state, out)
                out.flush()
                os.fsync(out.fileno())
            os.replace(partial, self.folder / STATE)
        except OSError:
            for path in (file, partial):
                path.unlink(missing_ok=True)
            raise
        for path in older:
            with suppress(OSError):
                path.unlink()


def _written(tensors: Mapping[str, torch.Tensor], file: Path) -> None:
    from safetensors import SafetensorError

    try:
        save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, file)
    except SafetensorError as error:  # what it makes of a full disk
        raise OSError(str(error)) from error
    with open(file, "rb+") as stream:
        os.fsync(stream.fileno())


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=32).hexdigest()

"""A model by its id on the Hugging Face hub: downloaded whole, then read like any directory."""

from __future__ import annotations

from pathlib import Path

from ..errors import CaptureError

_READ = ["*.json", "*.txt", "*.safetensors", "*.jinja", "*.model"]


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

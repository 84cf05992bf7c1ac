"""Which tensors are one."""

from __future__ import annotations

from typing import Any

import torch


def memory(tensor: torch.Tensor) -> tuple[Any, ...]:
    """Equal for tensors that are the same numbers in the same place."""
    return (
        tensor.untyped_storage()._cdata, tensor.storage_offset(), tuple(tensor.shape), tensor.stride(),
        tensor.dtype,
    )  # fmt: skip

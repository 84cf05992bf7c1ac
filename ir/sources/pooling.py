"""Token vectors to one vector a row, in every way that sentence-transformers knows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import CaptureError

# sentence-transformers' older spelling of the modes, in the order in which it concatenates them.
_LEGACY = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}


def modes(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The modes that 1_Pooling/config.json asks for, in either spelling.

    Raises:
        CaptureError: an unknown mode.
    """
    wished = config.get("pooling_mode")
    if wished is None:
        wished = [mode for key, mode in _LEGACY.items() if config.get(key)] or ["mean"]
    chosen = (wished,) if isinstance(wished, str) else tuple(wished)
    for mode in chosen:
        if mode not in _LEGACY.values():
            raise CaptureError(f"the pooling mode {mode!r} is none of {', '.join(_LEGACY.values())}.")
    return chosen


class Pooling(nn.Module):
    """Modes side by side along the last axis.

    Args:
        chosen: "cls" (the first token that is not padding), "max", "mean", "mean_sqrt_len_tokens" (the sum
            over the square root of the count), "weightedmean" (weights 1, 2, 3, ...) and "lasttoken".
    """

    def __init__(self, chosen: Sequence[str]) -> None:
        super().__init__()
        self.chosen = tuple(chosen)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """(batch, length, width) and (batch, length) to (batch, width * modes)."""
        parts = [_POOL[mode](tokens, mask) for mode in self.chosen]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)


def _cls(tokens: Tensor, mask: Tensor) -> Tensor:
    return _at(tokens, mask.to(torch.int32).argmax(dim=1))


def _last(tokens: Tensor, mask: Tensor) -> Tensor:
    from_the_end = mask.flip(1).to(torch.int32).argmax(dim=1)
    return _at(tokens, tokens.shape[1] - 1 - from_the_end)


def _at(tokens: Tensor, position: Tensor) -> Tensor:
    index = position[:, None, None].expand(-1, 1, tokens.shape[-1])
    return torch.gather(tokens, 1, index).squeeze(1)


def _max(tokens: Tensor, mask: Tensor) -> Tensor:
    return tokens.masked_fill(mask.unsqueeze(-1) == 0, float("-inf")).amax(dim=1)


def _mean(tokens: Tensor, mask: Tensor) -> Tensor:
    weights = mask.unsqueeze(-1).to(tokens.dtype)
    return (tokens * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1e-9)


def _mean_sqrt(tokens: Tensor, mask: Tensor) -> Tensor:
    weights = mask.unsqueeze(-1).to(tokens.dtype)
    return (tokens * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1e-9).sqrt()


def _weighted(tokens: Tensor, mask: Tensor) -> Tensor:
    places = torch.arange(1, tokens.shape[1] + 1, device=tokens.device)[None, :, None]
    first = mask.to(torch.int32).argmax(dim=1)[:, None, None]
    weights = (mask.unsqueeze(-1) * (places - first)).to(tokens.dtype)
    return (tokens * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1e-9)


_POOL = {
    "cls": _cls,
    "max": _max,
    "mean": _mean,
    "mean_sqrt_len_tokens": _mean_sqrt,
    "weightedmean": _weighted,
    "lasttoken": _last,
}

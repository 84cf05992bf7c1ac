"""Transformers as people write them by hand, in two styles that share no line with each other."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812


class CausalBlock(nn.Module):
    """nanoGPT's block: one fused qkv projection, a buffer of ones below the diagonal, pre-norm."""

    def __init__(self, width: int, heads: int, hidden: int, longest: int, sdpa: bool) -> None:
        super().__init__()
        self.heads, self.sdpa = heads, sdpa
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.c_attn, self.c_proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.register_buffer("bias", torch.tril(torch.ones(longest, longest)).view(1, 1, longest, longest))

    def attend(self, x: Tensor) -> Tensor:
        b, t, c = x.size()
        q, k, v = self.c_attn(x).split(c, dim=2)
        q, k, v = (z.view(b, t, self.heads, c // self.heads).transpose(1, 2) for z in (q, k, v))
        if self.sdpa:
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        else:
            scores = (q @ k.transpose(-2, -1)) * (1.0 / math.sqrt(k.size(-1)))
            scores = scores.masked_fill(self.bias[:, :, :t, :t] == 0, float("-inf"))
            y = F.softmax(scores, dim=-1) @ v
        return self.c_proj(y.transpose(1, 2).contiguous().view(b, t, c))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attend(self.ln_1(x))
        return x + self.down(F.gelu(self.up(self.ln_2(x)), approximate="tanh"))


class Causal(nn.Module):
    """A small GPT: token and position tables, two blocks, a final norm and a tied head."""

    def __init__(self, sdpa: bool = False) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(83, 36), nn.Embedding(40, 36)
        self.blocks = nn.ModuleList(CausalBlock(36, 3, 80, 40, sdpa) for _ in range(2))
        self.ln_f = nn.LayerNorm(36)
        self.lm_head = nn.Linear(36, 83, bias=False)
        self.lm_head.weight = self.wte.weight

    def forward(self, input_ids: Tensor) -> Tensor:
        positions = torch.arange(0, input_ids.size(1), dtype=torch.long, device=input_ids.device)
        x = self.wte(input_ids) + self.wpe(positions)
        for block in self.blocks:
            x = block(x)
        return self.lm_head(self.ln_f(x))


class EinsumLayer(nn.Module):
    """Post-norm encoder layer: per-head einsum, softmax by hand, mask by a finite large number."""

    def __init__(self, width: int, heads: int, head: int, hidden: int) -> None:
        super().__init__()
        self.heads, self.head = heads, head
        self.to_q = nn.Linear(width, heads * head, bias=False)
        self.to_k = nn.Linear(width, heads * head, bias=False)
        self.to_v = nn.Linear(width, heads * head, bias=False)
        self.to_out = nn.Linear(heads * head, width)
        self.ff = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, width))
        self.norm_a, self.norm_f = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, x: Tensor, keep: Tensor) -> Tensor:
        q, k, v = (
            z.unflatten(-1, (self.heads, self.head)) for z in (self.to_q(x), self.to_k(x), self.to_v(x))
        )
        scores = torch.einsum("bihd,bjhd->bhij", q / self.head**0.5, k)
        scores = scores - 1e4 * (1.0 - keep[:, None, None, :])
        weights = torch.exp(scores - scores.amax(dim=-1, keepdim=True))
        weights = weights / weights.sum(dim=-1, keepdim=True)
        y = torch.einsum("bhij,bjhd->bihd", weights, v).flatten(-2)
        x = self.norm_a(x + self.to_out(y))
        return self.norm_f(x + self.ff(x))


class Einsum(nn.Module):
    """Tokens and learned positions (a sliced parameter, not a lookup), then two einsum layers."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(71, 28)
        self.positions = nn.Parameter(torch.randn(1, 48, 28) * 0.1)
        self.layers = nn.ModuleList(EinsumLayer(28, 3, 8, 60) for _ in range(2))

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        x = self.tokens(input_ids) + self.positions[:, : input_ids.shape[1]]
        for layer in self.layers:
            x = layer(x, attention_mask.to(x.dtype))
        return x


class TorchEncoder(nn.Module):
    """torch.nn.TransformerEncoder, pre-norm with a final norm, under a word and a position table."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(
            d_model=40, nhead=5, dim_feedforward=96, activation="gelu", batch_first=True, norm_first=True
        )
        self.words, self.places = nn.Embedding(97, 40), nn.Embedding(50, 40)
        self.encoder = nn.TransformerEncoder(layer, 2, norm=nn.LayerNorm(40), enable_nested_tensor=False)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        x = self.words(input_ids) + self.places(torch.arange(input_ids.shape[1], device=input_ids.device))
        return self.encoder(x, src_key_padding_mask=attention_mask == 0)


class Clipped(nn.Module):
    """An attention that no recogniser takes: its scores are cut off at a number."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(12, 12) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (f(x).unflatten(-1, (3, 4)).transpose(1, 2) for f in (self.q, self.k, self.v))
        context = (q @ k.mT / 2).clip(-3, 3).softmax(-1) @ v
        return x + self.o(context.transpose(1, 2).flatten(-2))

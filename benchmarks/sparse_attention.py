"""An encoder whose tokens see some blocks of others, and one with linear attention, on both runtimes.

    python benchmarks/sparse_attention.py

Four layers of MiniLM's widths, random weights: a pattern of neighbours, the first block and a random one, in
blocks of 64 (BigBird, arXiv:2007.14062); linear attention with elu(x) + 1 (arXiv:2006.16236).
"""

from __future__ import annotations

import tempfile
from itertools import product
from pathlib import Path

import torch
from graphwright.backends.measuring.measure import compare
from graphwright.backends.measuring.workloads import workloads
from graphwright.backends.runtimes.onnxruntime import save_model
from graphwright.backends.tvm.backend import Tvm
from graphwright.ir.capture import capture
from graphwright.passes.manager.pipeline import Pipeline
from int8 import EXACT
from torch import Tensor, nn
from torch.nn import functional

WIDTH, HEADS, INNER, LAYERS, LONGEST, BLOCK = 384, 12, 1536, 4, 1024, 64
SHAPES = ("1x960", "4x256")


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(4))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        q, k, v = (side(x).unflatten(-1, (HEADS, -1)).transpose(1, 2) for side in (self.q, self.k, self.v))
        return self.out(self.mix(q, k, v, mask).transpose(1, 2).flatten(2))


class Blocks(Attention):
    def __init__(self) -> None:
        super().__init__()
        count = LONGEST // BLOCK
        place = torch.arange(count)
        sees = (place[:, None] - place).abs() <= 1
        sees[:, 0] = sees[0] = True
        sees[place, torch.randint(count, (count,), generator=torch.Generator().manual_seed(0))] = True
        self.register_buffer("sees", sees.repeat_interleave(BLOCK, 0).repeat_interleave(BLOCK, 1))

    def mix(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        length = q.shape[2]
        seen = self.sees[None, None, :length, :length] & (mask[:, None, None, :] != 0)
        scores = (q @ k.transpose(2, 3)) / q.shape[-1] ** 0.5
        return scores.masked_fill(~seen, torch.finfo(scores.dtype).min).softmax(-1) @ v


class Linear(Attention):
    def mix(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        q, k = functional.elu(q) + 1, (functional.elu(k) + 1) * mask[:, None, :, None]
        total = q @ k.sum(2).unsqueeze(-1)
        return (q @ (k.transpose(2, 3) @ v)) / (total + 1e-6)


class Layer(nn.Module):
    def __init__(self, kind: type[Attention]) -> None:
        super().__init__()
        self.attention, self.up, self.down = kind(), nn.Linear(WIDTH, INNER), nn.Linear(INNER, WIDTH)
        self.first, self.second = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = self.first(x + self.attention(x, mask))
        return self.second(x + self.down(functional.gelu(self.up(x))))


class Encoder(nn.Module):
    def __init__(self, kind: type[Attention]) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(1000, WIDTH), nn.Embedding(LONGEST, WIDTH)
        self.norm, self.layers = nn.LayerNorm(WIDTH), nn.ModuleList(Layer(kind) for _ in range(LAYERS))

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        places = torch.arange(input_ids.shape[1], device=input_ids.device)
        x, mask = self.norm(self.tokens(input_ids) + self.places(places)), attention_mask.float()
        for layer in self.layers:
            x = layer(x, mask)
        return x


def main() -> None:
    for kind in (Blocks, Linear):
        torch.manual_seed(0)
        inputs = {
            "input_ids": torch.randint(1000, (2, 200)),
            "attention_mask": torch.ones(2, 200, dtype=torch.long),
        }
        program = capture(Encoder(kind).eval(), inputs=inputs)
        calls = workloads(program, SHAPES)
        with tempfile.TemporaryDirectory() as folder:
            paths = {
                name: Path(folder, file) for name, file in (("ORT", "plain.onnx"), ("ours", "ours.onnx"))
            }
            for path, pipeline in zip(paths.values(), ("to-onnx", f"to-onnx,{EXACT}"), strict=True):
                save_model(Pipeline.parse(pipeline).run(program).program, path)
            paths["tvm"] = Path(folder, "tvm")
            buckets = [dict(zip(program.symbols, map(int, s.split("x")), strict=True)) for s in SHAPES]
            Tvm().build(program, threads=2, buckets=buckets).save(paths["tvm"])
            found = compare(paths, calls, rounds=9)
        for shape, (name, cells) in product(SHAPES, found.cells.items()):
            speedup = cells[shape].speedup
            print(
                f"{kind.__name__} {shape} {name}: {cells[shape].ms:.1f} ms, {speedup.median:.2f} "
                f"[{speedup.low:.2f}, {speedup.high:.2f}] of ORT"
            )


if __name__ == "__main__":
    main()

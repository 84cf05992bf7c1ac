"""quantize-product: weights as indices of centroids, learned from the program itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ...ir.program import Program
from ..manager.contract import Context, Lossy, Pass, Result


@dataclass(frozen=True)
class QuantizeProduct(Pass):
    """Store weights as one byte to each run of columns: the index of a centroid (product quantization).

            y = linear(x, w)
        ->  y = linear(x, reshape(embedding(centroids, codes)))

    iPQ (Stock et al., 2019, arXiv:1907.05686; Fan et al., 2020, arXiv:2004.07320, section 4.3): group by
    group, from the inputs on (the tables, then each attention and each feed-forward), weights are replaced by
    codes that keep the products with the calibration data's activations, and then the centroids, with biases
    and norms, learn to give the hidden states and outputs that the program gave. Centroids are stored in
    float16. The graph decodes with standard operators.

    block: columns to a byte: 8 / block bits a weight. Where it does not divide a weight's columns, the
        largest number below it that does. embedding_block: the same for tables; 0 takes block.
    centroids: to a weight, at most.
    steps: of gradient descent after each group; finish: after the last one. 0 needs no calibration data.
    rate: of learning, relative to the size of what learns.
    embeddings: tables too; False leaves them in float.
    """

    name: ClassVar[str] = "quantize-product"
    source: ClassVar = "fx"
    target: ClassVar = "fx"
    effect: ClassVar = Lossy()

    block: int = 4
    embedding_block: int = 0
    centroids: int = 256
    steps: int = 10
    finish: int = 100
    rate: float = 0.01
    embeddings: bool = True

    def __post_init__(self) -> None:
        if self.block < 1 or self.embedding_block < 0:
            raise ValueError(f"block is {self.block}, and a code stands for one column or more")
        if not 2 <= self.centroids <= 256:
            raise ValueError(f"centroids is {self.centroids}, and a byte tells 2 to 256 apart")
        if self.steps < 0 or self.finish < 0:
            raise ValueError("steps and finish are numbers of steps, 0 or more")
        if not 0 < self.rate < 1:
            raise ValueError(f"rate is {self.rate:g}, and a step of learning is between 0 and 1")

    def requires(self) -> tuple[str, ...]:
        return ("calibration",) if self.steps or self.finish else ()

    def run(self, program: Program, context: Context) -> Result:
        from .trained.product_fx import Runs, quantize

        runs = Runs(self.block, self.embedding_block, self.centroids, self.embeddings)
        return quantize(program, context, runs, steps=self.steps, finish=self.finish, rate=self.rate)

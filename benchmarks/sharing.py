"""Parameters of a BERT-base after sharing, beside tables 3 and 4 of ALBERT (arXiv:1909.11942).

    python benchmarks/sharing.py [--tokens 30522] [--only E768,E128,...]

Body, embeddings and pooler, random weights: nothing is downloaded and nothing is timed. The paper counts
30,000 tokens, and does not say whether with the pooler (0.6 million), so there is a column without it.
E=768 is BERT's own width; the others come of `factorise-embedding`, which leaves positions and types wide.
"""

import argparse

import torch
from graphwright.ir.capture import capture
from graphwright.ir.footprint import parameters
from graphwright.ir.program import Program
from graphwright.passes.manager.contract import Context
from graphwright.passes.manager.pipeline import Pipeline
from rich.console import Console
from rich.table import Table

HIDDEN, LAYERS, INNER, POSITIONS = 768, 12, 3072, 512
PAPER = {  # millions, by the width of the embedding and what is shared
    (768, "all"): 31, (768, "attention"): 83, (768, "ffn"): 57, (768, "none"): 108,
    (128, "all"): 12, (128, "attention"): 64, (128, "ffn"): 38, (128, "none"): 89,
    (64, "all"): 10, (256, "all"): 16,
}  # fmt: skip


def bert(tokens: int, hidden: int, layers: int, inner: int, positions: int, heads: int = 12) -> Program:
    """A random BERT with its pooler."""
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=tokens, hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=heads,
        intermediate_size=inner, max_position_embeddings=positions,
    )  # fmt: skip
    ids = torch.arange(3 * 8).reshape(3, 8)
    return capture(BertModel(config).eval(), inputs={"input_ids": ids, "attention_mask": ids * 0 + 1})


def pipeline(width: int, what: str, hidden: int) -> str:
    """The passes of one row; empty where the model is left as it is."""
    passes = [f"factorise-embedding{{rank={width}}}"] if width != hidden else []
    return ",".join([*passes, *([f"tie-layers{{what={what}}}"] if what != "none" else [])])


def counted(program: Program, text: str) -> int:
    """Parameters after a pipeline.

    Raises:
        GraphwrightError: a pass was refused or rolled back.
    """
    if not text:
        return parameters(program)
    run = Pipeline.parse(text).run(program, Context())
    for step in run.steps:
        if step.error is not None:
            raise step.error
    return parameters(run.program)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tokens", type=int, default=30522)
    parser.add_argument("--only", default="", help="rows by width, such as E768,E64")
    options = parser.parse_args()
    wanted = set(filter(None, options.only.split(",")))
    program = bert(options.tokens, HIDDEN, LAYERS, INNER, POSITIONS)
    pooler = HIDDEN * (HIDDEN + 1)
    table = Table("E", "shared", "pipeline", "parameters", "without pooler", "paper (M)")
    for (width, what), paper in PAPER.items():
        if not wanted or f"E{width}" in wanted:
            text = pipeline(width, what, HIDDEN)
            count = counted(program, text)
            table.add_row(str(width), what, text, f"{count:,}", f"{count - pooler:,}", str(paper))
    Console(width=140).print(table)


if __name__ == "__main__":
    main()

"""Parameters after sharing, by the formulas behind ALBERT's tables, on a small BERT with its pooler.

`benchmarks/sharing.py` counts BERT-base in the same way.
"""

import pytest
import torch
from graphwright.ir.capture import capture
from graphwright.ir.footprint import parameters
from graphwright.passes.manager.contract import Context
from graphwright.passes.manager.pipeline import Pipeline
from transformers import BertConfig, BertModel

TOKENS, HIDDEN, LAYERS, INNER, POSITIONS = 211, 24, 3, 40, 32
ATTENTION = 4 * (HIDDEN * HIDDEN + HIDDEN)
FFN = 2 * HIDDEN * INNER + INNER + HIDDEN
NORMS = 4 * HIDDEN


@pytest.fixture(scope="module")
def bert():
    config = BertConfig(
        vocab_size=TOKENS, hidden_size=HIDDEN, num_hidden_layers=LAYERS, num_attention_heads=3,
        intermediate_size=INNER, max_position_embeddings=POSITIONS,
    )  # fmt: skip
    torch.manual_seed(0)
    ids = torch.arange(24).reshape(3, 8)
    return capture(BertModel(config).eval(), inputs={"input_ids": ids, "attention_mask": ids * 0 + 1})


def counted(program, *passes):
    run = Pipeline.parse(",".join(passes)).run(program, Context())
    assert run.ok, [step.error for step in run.steps]
    return parameters(run.program)


@pytest.mark.parametrize("width", [HIDDEN, 8])
@pytest.mark.parametrize(
    ("what", "layers"),
    [
        ("all", ATTENTION + FFN + NORMS),
        ("attention", ATTENTION + LAYERS * (FFN + NORMS)),
        ("ffn", FFN + LAYERS * (ATTENTION + NORMS)),
    ],
)
def test_parameters_are_those_of_the_formula_in_either_order(bert, what, layers, width):
    words = TOKENS * HIDDEN if width == HIDDEN else TOKENS * width + width * HIDDEN
    others = POSITIONS * HIDDEN + 2 * HIDDEN + 2 * HIDDEN + HIDDEN * (HIDDEN + 1)
    tie, factorise = f"tie-layers{{what={what}}}", f"factorise-embedding{{rank={width}}}"
    orders = [(tie,)] if width == HIDDEN else [(tie, factorise), (factorise, tie)]
    for order in orders:
        assert counted(bert, *order) == words + others + layers

"""tie-embeddings, against models whose head was given the table in PyTorch."""

import copy

import numpy as np
import pytest
import torch
from graphwright.ir.capture import capture
from graphwright.ir.errors import PassError, PipelineError
from graphwright.ir.execute import execute
from graphwright.ir.footprint import parameters, weight_bytes
from graphwright.ir.text import text
from graphwright.passes.manager.contract import Context
from graphwright.passes.manager.pipeline import Pipeline
from graphwright.passes.share.tie_embeddings import TieEmbeddings
from handmade import golden
from pruning import run
from torch import nn
from zoo import ARCHITECTURES, fx_program

IDS = {"input_ids": torch.arange(24).reshape(3, 8)}


class Head(nn.Module):
    """A table and the scores of each token. stored: "rows" as PyTorch does, "columns" transposed."""

    def __init__(self, stored="rows", width=12, tokens=30, second=False):
        super().__init__()
        generator = torch.Generator().manual_seed(5)
        self.stored = stored
        self.table, self.positions = nn.Embedding(30, 12), nn.Embedding(30, 12)
        self.middle = nn.Linear(12, width)
        shape = (tokens, width) if stored == "rows" else (width, tokens)
        self.head, self.shift = nn.Parameter(torch.zeros(shape)), nn.Parameter(torch.zeros(tokens))
        self.second = nn.Embedding(30, 12) if second else None
        for parameter in self.parameters():
            parameter.data = torch.randint(-8, 8, parameter.shape, generator=generator) / 8

    def forward(self, input_ids):
        x = self.table(input_ids) + self.positions(torch.arange(input_ids.shape[1]))
        if self.second is not None:
            x = x + self.second(input_ids)
        x = torch.tanh(self.middle(x))
        return x @ (self.head.T if self.stored == "rows" else self.head) + self.shift


def outputs(program, feed=IDS):
    return execute(program, [{name: value.numpy() for name, value in feed.items()}])[0]


@pytest.mark.parametrize("stored", ["rows", "columns"])
@pytest.mark.parametrize("init", ["input", "output", "mean"])
def test_the_one_table_is_what_was_chosen(stored, init):
    module = Head(stored)
    result = TieEmbeddings(init=init).run(capture(module, inputs=IDS), Context())
    head = module.head if stored == "rows" else module.head.T
    table = module.table.weight
    value = {"input": table, "output": head, "mean": (table + head) / 2}[init].detach().clone()
    module.table.weight.data, module.head.data = value, value if stored == "rows" else value.T
    with torch.no_grad():
        np.testing.assert_allclose(outputs(result.program)["output"], module(**IDS), rtol=1e-6, atol=1e-6)
    assert [
        name for name, _ in result.program.graph.named_parameters() if name in ("head", "table.weight")
    ] == ["table.weight"]
    assert result.statistics["parameters before"] - result.statistics["parameters after"] == 30 * 12


@pytest.mark.parametrize("stored", ["rows", "columns"])
def test_tables_that_are_equal_become_one_exactly(stored):
    module = Head(stored, second=True)
    value = module.table.weight.detach().clone()
    module.head.data, module.second.weight.data = (
        (value if stored == "rows" else value.T.clone()),
        value.clone(),
    )
    program = capture(module, inputs=IDS)
    result = TieEmbeddings().run(program.clone(), Context())
    assert outputs(result.program)["output"].tobytes() == outputs(program)["output"].tobytes()
    assert parameters(result.program) == parameters(program) - 2 * 30 * 12
    lowered = run("tie-embeddings,to-onnx", program).program
    assert weight_bytes(lowered) <= 4 * parameters(result.program) + 64  # sizes and other small constants


def test_a_models_table_is_its_head():
    case, program = ARCHITECTURES["llama"], fx_program("llama")
    result = TieEmbeddings(init="input").run(program.clone(), Context())
    module = case.build()
    module.lm_head.weight = module.model.embed_tokens.weight
    inputs = case.inputs()
    with torch.no_grad():
        wanted = module(**inputs).logits
    np.testing.assert_allclose(outputs(result.program, inputs)["logits"], wanted, rtol=1e-5, atol=1e-6)


def test_gradients_of_the_table_are_the_sum_of_both():
    module = Head().double()
    module.head.data = module.table.weight.detach().clone()
    shared = TieEmbeddings().run(capture(Head(), inputs=IDS), Context())
    assert not shared.modified
    assert shared.notes[0].startswith("table.weight and head differ (by up to 1.8")
    gm = TieEmbeddings(init="input").run(capture(Head(), inputs=IDS), Context()).program.graph
    gm = copy.deepcopy(gm).double()
    weights = torch.randn(3, 8, 30, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    (module(**IDS) * weights).sum().backward()
    (gm(IDS["input_ids"])[0] * weights).sum().backward()
    wanted = module.table.weight.grad + module.head.grad
    found = dict(gm.named_parameters())["table.weight"].grad
    assert float((found - wanted).abs().max()) <= 1e-12 * float(wanted.abs().max())


@pytest.mark.parametrize("name", ["gpt2", "t5"])
def test_what_is_tied_already_is_left_alone(name):
    result = TieEmbeddings(init="mean").run(fx_program(name).clone(), Context())
    assert not result.modified
    assert result.notes == ("nothing to tie: the tables are one already",)


def test_other_sizes_are_refused_by_name():
    with pytest.raises(
        PassError, match=r"table\.weight \(30x12, float32\) and head \(30x20, float32\) cannot"
    ):
        TieEmbeddings(init="mean").run(capture(Head(width=20), inputs=IDS), Context())
    left = TieEmbeddings().run(capture(Head(width=20), inputs=IDS), Context())
    assert not left.modified
    assert "cannot be one table" in left.notes[0]


def test_what_is_no_language_model_is_refused():
    with pytest.raises(PassError, match=r"a row for each of the 30 tokens of table\.weight"):
        TieEmbeddings(init="mean").run(capture(Head(tokens=29), inputs=IDS), Context())
    with pytest.raises(PassError, match="no table is looked up by ids of tokens"):
        TieEmbeddings().run(fx_program("vit").clone(), Context())


class Square(nn.Module):
    """As many tokens as features: a product has the table's size and is inside, or only what is added
    to a stream that is one."""

    def __init__(self, added):
        super().__init__()
        torch.manual_seed(0)
        self.added = added
        self.table, self.middle, self.last = nn.Embedding(24, 24), nn.Linear(24, 24), nn.Linear(24, 7)

    def forward(self, input_ids):
        x = self.table(input_ids)
        return x + self.middle(x) if self.added else self.last(torch.relu(self.middle(x)))


@pytest.mark.parametrize("added", [False, True])
def test_a_product_of_the_tables_size_inside_the_model_is_no_head(added):
    with pytest.raises(PassError, match="no product that leads to an output"):
        TieEmbeddings(init="mean").run(capture(Square(added), inputs=IDS), Context())


def test_tables_by_name():
    program = capture(Head(), inputs=IDS)
    result = TieEmbeddings(init="input", tables=("table.weight", "positions.weight")).run(program, Context())
    assert result.statistics["tables tied"] == "table.weight = positions.weight"
    module = Head("columns")
    turned = TieEmbeddings(init="output", tables=("head", "table.weight")).run(
        capture(module, inputs=IDS), Context()
    )
    module.head.data = module.table.weight.detach().T.clone()
    with torch.no_grad():
        np.testing.assert_allclose(outputs(turned.program)["output"], module(**IDS), rtol=1e-6, atol=1e-6)
    assert "table.weight" not in dict(turned.program.graph.named_parameters())
    with pytest.raises(PassError, match=r"no table 'table.wieght'.*table\.weight"):
        TieEmbeddings(tables=("table.wieght", "head")).run(capture(Head(), inputs=IDS), Context())
    with pytest.raises(PipelineError, match="tables"):
        Pipeline.parse("tie-embeddings{tables=head}")


def test_golden():
    program = capture(Head("columns"), inputs=IDS)
    after = TieEmbeddings(init="input").run(program.clone(), Context()).program
    golden("share/tie-embeddings", f"# before\n{text(program)}\n# after\n{text(after)}")

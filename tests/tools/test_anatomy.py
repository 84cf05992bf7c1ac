"""What the parts of a model cost: parameters, multiply-adds and bytes against formulas written by hand."""

from io import StringIO
from types import SimpleNamespace

import pytest
import torch
import zoo
from graphwright.ir.capture import capture
from graphwright.ir.footprint import weight_bytes
from graphwright.tools import anatomy
from graphwright.tools.anatomy import parts
from graphwright.tools.verbs.inspect_costs import Costs, costs, tables

HIDDEN, INNER, HEADS, TOKENS, LAYERS = 32, 72, 4, 11, 2


def found(name, batch=3, threads=None, program=None):
    feed = {k: v.numpy() for k, v in zoo.ARCHITECTURES[name].inputs(batch, TOKENS).items()}
    return parts(program or zoo.fx_program(name), feed, threads)


def of(kind, listed):
    return [part for part in listed if part.kind == kind]


@pytest.mark.parametrize("make", [zoo.fx_program, zoo.onnx_program], ids=["fx", "onnx"])
def test_bert_by_hand(make):
    rows = 3 * TOKENS
    listed = found("bert", program=make("bert"))
    attention, feed_forward, norms = (of(kind, listed) for kind in ("attention", "feed_forward", "norm"))
    (embedding,), (other,) = of("embedding", listed), of("other", listed)
    assert [p.unique for p in attention] == [p.total for p in attention] == [4 * (HIDDEN**2 + HIDDEN)] * 2
    scores = 2 * 3 * TOKENS**2 * HIDDEN  # of all heads: queries by keys, and weights by values
    assert [p.multiply_adds for p in attention] == [4 * rows * HIDDEN**2 + scores] * 2
    assert [p.unique for p in feed_forward] == [2 * HIDDEN * INNER + HIDDEN + INNER] * 2
    assert [p.multiply_adds for p in feed_forward] == [2 * rows * HIDDEN * INNER] * 2
    assert [(p.unique, p.multiply_adds) for p in norms] == [(2 * HIDDEN, 0)] * 5
    assert embedding.unique == (101 + 64 + 2) * HIDDEN
    assert embedding.multiply_adds == other.multiply_adds == other.unique == 0
    assert all(part.ms is None for part in listed)


def test_shared_layers_count_once_and_once_a_use():
    module = zoo.ARCHITECTURES["albert"].build()
    listed = found("albert")
    assert sum(part.unique for part in listed) == sum(p.numel() for p in module.parameters())
    layer = [part for part in listed if part.kind in ("attention", "feed_forward")]
    assert [part.unique for part in layer[2:]] == [0, 0]
    assert [part.bytes for part in layer[2:]] == [0, 0]
    assert [part.total for part in layer[2:]] == [part.total for part in layer[:2]]
    assert [part.multiply_adds for part in layer[2:]] == [part.multiply_adds for part in layer[:2]]
    (other,) = of("other", listed)  # the projection between embedding and layers
    assert (other.total, other.multiply_adds) == (20 * 32 + 32, 3 * TOKENS * 20 * 32)


def test_a_head_that_reads_the_table_of_words_adds_no_parameter():
    (head,) = of("head", found("gpt2"))
    assert (head.unique, head.bytes, head.total) == (0, 0, 103 * 32)
    assert head.multiply_adds == 3 * TOKENS * 103 * 32


@pytest.mark.parametrize("name", ["bert", "albert", "gpt2", "vit", "mobilebert", "squeezebert"])
def test_every_number_is_counted_once(name):
    program, module = zoo.fx_program(name), zoo.ARCHITECTURES[name].build()
    listed = found(name)
    buffers = sum(b.numel() for b in module.buffers() if b.is_floating_point())
    count = sum(p.numel() for p in module.parameters())
    assert count <= sum(part.unique for part in listed) <= count + buffers
    assert sum(part.bytes for part in listed) <= weight_bytes(program)


def test_experts_count_what_their_tokens_multiply():
    from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

    torch.manual_seed(0)
    config = Qwen3MoeConfig(
        vocab_size=101, hidden_size=32, num_hidden_layers=1, num_attention_heads=4, num_key_value_heads=4,
        intermediate_size=48, moe_intermediate_size=24, num_experts=6, num_experts_per_tok=2, head_dim=8,
        max_position_embeddings=64, use_cache=False, decoder_sparse_step=1, mlp_only_layers=[],
    )  # fmt: skip
    config.return_dict = True
    ids = torch.randint(5, 101, (2, 9))
    program = capture(Qwen3MoeForCausalLM(config).eval(), inputs={"input_ids": ids})
    (mixture,) = of("experts", parts(program, {"input_ids": ids.numpy()}, None))
    assert mixture.unique == 6 * 3 * 32 * 24 + 6 * 32
    assert mixture.multiply_adds == 18 * (2 * 3 * 32 * 24 + 6 * 32)  # two experts a token, and the router


def test_kernels_are_timed_where_their_results_or_weights_are(monkeypatch):
    """Three kernels of known times: one that gives a feed-forward's result, one of which only the weight is
    known, and one of which nothing is."""
    program = zoo.onnx_program("bert")
    listed = found("bert", program=program)
    result = of("feed_forward", listed)[1].node
    weight = next(v.name for v in program.graph.graph.initializers.values() if "query.weight" in v.name)
    kernels = [
        (SimpleNamespace(outputs=(result,), inputs=("x",)), 0.25),
        (SimpleNamespace(outputs=("made",), inputs=("x", weight)), 0.5),
        (SimpleNamespace(outputs=("lost",), inputs=("y",)), 0.125),
    ]
    monkeypatch.setattr("graphwright.ir.onnx.profile.profile", lambda model, feed, threads: kernels)
    timed = found("bert", program=program, threads=1)
    assert {(p.kind, p.ms) for p in timed if p.ms} == {
        ("feed_forward", 250.0), ("attention", 500.0), ("other", 125.0),
    }  # fmt: skip
    assert of("feed_forward", timed)[1].ms == 250.0


def test_all_blocks_take_time_in_both_dialects():
    for make in (zoo.fx_program, zoo.onnx_program):
        listed = found("bert", threads=1, program=make("bert"))
        assert all(p.ms > 0 for p in listed if p.kind in ("attention", "feed_forward", "norm", "embedding"))


def test_kinds_are_sums_of_their_blocks():
    cost = Costs("3x11", 1, found("bert", threads=1))
    kinds = {part.kind: (count, part) for count, part in cost.by_kind()}
    assert [kinds[k][0] for k in ("attention", "feed_forward", "norm", "embedding", "other")] == [
        2,
        2,
        5,
        1,
        1,
    ]
    whole = kinds["all"][1]
    for name in ("unique", "total", "bytes", "multiply_adds"):
        assert getattr(whole, name) == sum(getattr(part, name) for part in cost.parts)
    assert whole.ms == pytest.approx(sum(part.ms for part in cost.parts))


def test_lines_fit_a_terminal():
    from rich.console import Console

    big = [
        anatomy.Part(kind, "node", 123_456_789, 1_234_567_890, 987_654_321, 123_456_789_000, 1234.5)
        for kind in ("attention", "feed_forward", "norm", "embedding", "head", "other")
    ]
    console = Console(width=80, record=True, file=StringIO())
    for line in tables(Costs("1x128", 2, big * 10)):
        console.print(line, markup=False, highlight=False)
    printed = console.export_text().splitlines()
    assert max(map(len, printed)) <= 80
    shown = "123.457     1,234.568    987.65    123,456.8    1234.500  1.7%"
    assert [line.split() for line in printed].count(["feed-forward", "10", *shown.split()]) == 1


def test_a_model_that_fails_in_the_call_says_why(monkeypatch):
    def fail(*args):
        raise RuntimeError("no such kernel\nand more")

    monkeypatch.setattr("graphwright.tools.verbs.inspect_costs.parts", fail)
    cost = costs(zoo.fx_program("bert"), "1x8", None, timed=False)
    assert cost.parts == []
    assert tables(cost) == ["what the parts cost in a call of 1x8 is not known: RuntimeError: no such kernel"]

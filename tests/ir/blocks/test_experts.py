"""Mixtures of experts: found in both dialects, however they are written, and what only looks like one."""

import graphwright as gw
import pytest
import torch
import transformers
from graphwright.backends.target import named
from graphwright.ir.blocks import recognise
from graphwright.ir.errors import CaptureError
from graphwright.ir.fx.grouped import grouped_mm
from graphwright.ir.inputs.probe import probes
from graphwright.ir.view import view
from graphwright.passes.manager.contract import Context
from torch import nn

H, WIDE, E, K = 32, 48, 4, 2
SIZES = {
    "vocab_size": 61, "hidden_size": H, "intermediate_size": WIDE, "moe_intermediate_size": WIDE,
    "shared_expert_intermediate_size": 40, "num_hidden_layers": 1, "num_attention_heads": 2,
    "num_key_value_heads": 2, "head_dim": 16, "num_local_experts": E, "num_experts": E,
    "num_experts_per_tok": K, "max_position_embeddings": 32, "pad_token_id": 0, "use_cache": False,
}  # fmt: skip
# transformers' type -> (feed-forwards beside the experts, activation, whether weights are normalised)
MODELS = {
    "mixtral": (0, "silu", True),
    "qwen2_moe": (1, "silu", False),
    "gpt_oss": (0, "other", True),
}


@pytest.fixture(scope="module")
def programs():
    made = {}

    def get(kind):
        if kind not in made:
            torch.manual_seed(0)
            defaults = transformers.AutoConfig.for_model(kind)
            sizes = {name: size for name, size in SIZES.items() if hasattr(defaults, name)}
            config = transformers.AutoConfig.for_model(kind, **sizes)
            model = transformers.AutoModel.from_config(config).eval()
            ids = torch.randint(5, 60, (2, 7))
            program = gw.trace(model, inputs={"input_ids": ids, "attention_mask": torch.ones_like(ids)})
            run = gw.Pipeline.parse("to-onnx").run(program)
            assert run.ok, run.steps[0].error
            made[kind] = program, run.program
        return made[kind]

    return get


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("dialect", [0, 1])
def test_experts_and_routers_of_transformers(programs, kind, dialect):
    others, activation, normalised = MODELS[kind]
    found = recognise(view(programs(kind)[dialect]))
    assert len(found.feed_forward) == others
    assert len(found.experts) == 1
    mixture = found.experts[0]
    assert (mixture.experts, mixture.router.per_token, mixture.width) == (E, K, WIDE)
    assert (mixture.activation, mixture.gated) == (activation, True)
    assert (mixture.router.scoring, mixture.router.normalised) == ("softmax", normalised)
    assert (mixture.router.linear.in_features, mixture.router.linear.out_features) == (H, E)
    assert [residual.of for residual in found.residual][-1] == "feed_forward"
    assert not [miss for miss in found.missed if miss.kind in ("experts", "residual")]


def test_each_expert_is_a_weight_of_its_own_in_onnx(programs):
    held = programs("mixtral")[1].graph.graph.initializers
    shapes = {name: tuple(value.shape) for name, value in held.items() if ".experts." in name}
    assert shapes == {
        **{f"layers.0.mlp.experts.gate_up_proj.{i}": (H, 2 * WIDE) for i in range(E)},
        **{f"layers.0.mlp.experts.down_proj.{i}": (WIDE, H) for i in range(E)},
    }


def test_experts_are_quantized_each_with_its_scales(programs):
    program = programs("mixtral")[1]
    run = gw.Pipeline.parse("fold-constants,quantize-dynamic{min_cosine=0.99}").run(
        program, Context(target=named("x86-64-vnni"))
    )
    assert run.ok, run.steps[-1].error
    held = run.program.graph.graph.initializers
    assert {name for name in held if name.endswith(".int8") and ".experts." in name} == {
        f"layers.0.mlp.experts.{side}.{i}.int8" for side in ("gate_up_proj", "down_proj") for i in range(E)
    }


def test_pruning_says_that_experts_are_left(programs):
    program = programs("mixtral")[0]
    step = (
        gw.Pipeline.parse("prune-ffn{ratio=0.5}")
        .run(program, Context(calibration=probes(program, 0)))
        .steps[0]
    )
    assert "a mixture of 4 experts, which are left whole" in str(step.error)


class Mixture(nn.Module):
    """Experts written by hand. way: "looked up" (a matrix for every row), "dense" (all experts for all
    tokens), or one of the near misses "soft" (no choice), "fixed" (rows by place), "chunked" (in pieces)."""

    def __init__(self, way: str, score: str = "softmax") -> None:
        super().__init__()
        self.way, self.score = way, score
        self.gate = nn.Linear(H, E)
        self.up = nn.Parameter(torch.randn(E, H, WIDE) * 0.2)
        self.down = nn.Parameter(torch.randn(E, WIDE, H) * 0.2)

    def forward(self, x):
        rows = x.reshape(-1, H)
        if self.way in ("fixed", "chunked"):
            pieces = rows.reshape(-1, H).chunk(2)
            places = (0, 0) if self.way == "chunked" else (0, 1)
            parts = [torch.relu(p @ self.up[i]) @ self.down[i] for p, i in zip(pieces, places, strict=True)]
            return torch.cat(parts).view_as(x)
        scores = self.gate(rows)
        scores = scores.sigmoid() if self.score == "sigmoid" else scores.softmax(-1)
        weights, chosen = scores.topk(K)
        if self.way == "looked up":
            ids = chosen.reshape(-1)
            each = rows.repeat_interleave(K, 0).unsqueeze(1)
            hidden = torch.relu(torch.bmm(each, self.up[ids]).squeeze(1))
            made = torch.bmm(hidden.unsqueeze(1), self.down[ids]).squeeze(1) * weights.reshape(-1, 1)
            return made.view(-1, K, H).sum(1).view_as(x)
        made = torch.relu(rows.unsqueeze(0) @ self.up) @ self.down
        every = scores if self.way == "soft" else torch.zeros_like(scores).scatter(1, chosen, weights)
        return (made * every.T.unsqueeze(-1)).sum(0).view_as(x)


def traced(module):
    torch.manual_seed(1)
    return gw.trace(module.eval(), inputs={"x": torch.randn(2, 6, H)})


@pytest.mark.parametrize("way", ["looked up", "dense"])
@pytest.mark.parametrize("score", ["softmax", "sigmoid"])
def test_experts_written_by_hand(way, score):
    found = recognise(view(traced(Mixture(way, score))))
    assert len(found.experts) == 1, found.missed
    mixture = found.experts[0]
    assert (mixture.experts, mixture.router.per_token, mixture.width) == (E, K, WIDE)
    assert (mixture.activation, mixture.gated) == ("relu", False)
    assert (mixture.router.scoring, mixture.router.normalised) == (score, False)


def test_a_mixture_of_all_experts_is_missed_with_its_reason():
    found = recognise(view(traced(Mixture("soft"))))
    assert not found.experts
    assert [miss.reason for miss in found.missed if miss.kind == "experts"] == [
        "the router takes every expert, or chooses in a way that is not understood"
    ]


@pytest.mark.parametrize("way", ["fixed", "chunked"])
def test_rows_in_pieces_are_no_experts(way):
    assert not recognise(view(traced(Mixture(way)))).experts


class Unweighed(nn.Module):
    """Rows in the order of their experts, through them, and back: nothing weighs what they give."""

    def __init__(self, routed: bool) -> None:
        super().__init__()
        self.routed, self.gate = routed, nn.Linear(H, E)
        self.up = nn.Parameter(torch.randn(E, H, WIDE) * 0.2)
        self.down = nn.Parameter(torch.randn(E, WIDE, H) * 0.2)

    def forward(self, x):
        rows = x.reshape(-1, H)
        ids = self.gate(rows).topk(1)[1] if self.routed else torch.arange(len(rows))[:, None] % E
        ids, order = ids.reshape(-1).sort()
        ends = (ids[:, None] <= torch.arange(E)).sum(0)
        made = grouped_mm(grouped_mm(rows[order], self.up, ends).relu(), self.down, ends)
        back = torch.arange(len(rows))
        return x + made[order.scatter(0, order, back)].view_as(x)


def test_a_router_is_found_where_nothing_weighs_what_experts_give():
    program = traced(Unweighed(True))
    lowered = gw.Pipeline.parse("to-onnx").run(program).program
    assert lowered.dialect == "onnx"
    for each in (program, lowered):
        found = recognise(view(each))
        assert [(one.experts, one.router.per_token, one.width) for one in found.experts] == [(E, 1, WIDE)]
        assert found.experts[0].router.scoring == "none"
        assert [one.of for one in found.residual] == ["feed_forward"]


def test_rows_that_go_to_experts_by_their_place_have_no_router():
    found = recognise(view(traced(Unweighed(False))))
    assert not found.experts
    assert [miss.reason for miss in found.missed if miss.kind == "experts"] == [
        f"nothing weighs its result and no projection to {E} scores is behind what orders its result"
    ]


def every_expert(self, states, chosen, weights):
    return sum(
        self[f"expert_{number}"](states) * weights * chosen[:, 0, number, None]
        for number in range(self.num_experts)
    )


def test_a_loop_over_the_experts_that_were_hit_is_refused_with_the_reason_and_the_mend(tmp_path, monkeypatch):
    config = transformers.SwitchTransformersConfig(
        vocab_size=61, d_model=H, d_kv=16, d_ff=WIDE, num_layers=2, num_decoder_layers=2, num_heads=2,
        num_experts=E, num_sparse_encoder_layers=1, num_sparse_decoder_layers=1, decoder_start_token_id=0,
    )  # fmt: skip
    model = transformers.SwitchTransformersModel(config).eval()
    model.save_pretrained(tmp_path)
    mend = r"decides by the values .*for expert_idx in expert_hit.* replace the method .*every turn of a loop"
    with pytest.raises(CaptureError, match=mend):
        gw.trace(tmp_path)
    # The mend that it names: each expert for every token, most of them weighed by zero.
    experts = next(each for each in model.modules() if hasattr(each, "expert_0"))
    example = {name: torch.randint(1, 61, (2, 7)) for name in ("input_ids", "decoder_input_ids")}
    example["attention_mask"] = torch.ones(2, 7, dtype=torch.int64)
    with torch.no_grad():
        wanted = model(**example, use_cache=False).last_hidden_state
    monkeypatch.setattr(type(experts), "forward", every_expert)
    program = gw.trace(model, inputs=example)
    found = program.graph(*(example[spec.name] for spec in program.inputs))[0]
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


class CastsAPart(nn.Module):
    def __init__(self, dtype):
        super().__init__()
        self.part, self.dtype = nn.Linear(H, H), dtype

    def forward(self, x):
        self.part = self.part.to(self.dtype)
        return self.part(x)


def test_a_part_that_is_cast_to_the_type_that_it_has_is_traced():
    module = CastsAPart(torch.float32)
    program = traced(module)
    assert [value.op for value in gw.ir.view.view(program) if value.op == "linear"] == ["linear"]
    assert isinstance(module.part.weight, nn.Parameter)

"""The zoo: every architecture that recognisers and passes are held to, tiny, random and seeded.

Sizes are all different within a model (hidden, FFN width, heads, vocabulary, positions), so that a
mix-up of two of them shows. `expected` counts were read off the model code, not off a recogniser.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from . import handwritten

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Case:
    """One architecture.

    make: attention spelling ("eager" or "sdpa") -> module. feed: (batch, length, generator) -> tensors.
    expected: how many blocks of each kind there are.
    attns: the spellings the model offers. fixed: its length cannot change (images, audio windows).
    """

    make: Callable[[str], nn.Module]
    feed: Callable[[int, int, torch.Generator], Tensors]
    expected: dict[str, int]
    attns: tuple[str, ...] = ("eager", "sdpa")
    fixed: bool = False

    def build(self, attn: str = "sdpa") -> nn.Module:
        """The module in evaluation mode; the same weights at every call and in every spelling.

        Norm scales and biases are drawn at random too: at their initial ones and zeros, a rewrite that
        loses them would go unseen.
        """
        torch.manual_seed(0)
        module = self.make(attn if attn in self.attns else "eager").eval()
        generator = torch.Generator().manual_seed(1)
        for parameter in module.parameters():
            if parameter.dim() == 1:
                noise = torch.randn(parameter.shape, generator=generator) * 0.1
                parameter.data = parameter.data + noise
        return module

    def inputs(self, batch: int = 3, length: int = 11, seed: int = 0) -> Tensors:
        """Example inputs; the mask, where there is one, is ragged (row r keeps length - r tokens)."""
        return self.feed(batch, length, torch.Generator().manual_seed(seed))


def _text(vocabulary: int, *, types: bool = False, mask: bool = True, decoder: bool = False) -> Any:
    def feed(batch: int, length: int, generator: torch.Generator) -> Tensors:
        feeds = {"input_ids": torch.randint(5, vocabulary, (batch, length), generator=generator)}
        if mask:
            kept = (length - torch.arange(batch)).clamp(min=1)
            feeds["attention_mask"] = (torch.arange(length)[None] < kept[:, None]).long()
        if types:
            feeds["token_type_ids"] = torch.randint(0, 2, (batch, length), generator=generator)
        if decoder:
            shape = (batch, max(1, length - 4))
            feeds["decoder_input_ids"] = torch.randint(5, vocabulary, shape, generator=generator)
        return feeds

    return feed


def _floats(name: str, *shape: int) -> Any:
    return lambda batch, length, generator: {name: torch.randn(batch, *shape, generator=generator)}


def _hf(model: str, config: str, *, base: dict[str, Any] | None = None, **settings: Any) -> Any:
    def make(attn: str) -> nn.Module:
        import transformers

        configuration = getattr(transformers, config)(**settings, attn_implementation=attn)
        configuration.return_dict = True
        return getattr(transformers, model)(configuration, **(base or {}))

    return make


def _counts(attention: int, feed_forward: int, norm: int, embedding: int) -> dict[str, int]:
    return {"attention": attention, "feed_forward": feed_forward, "norm": norm, "embedding": embedding}


_BERT = {
    "vocab_size": 101,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 72,
    "max_position_embeddings": 64,
}
_DECODER = {
    "vocab_size": 103,
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "intermediate_size": 88,
    "max_position_embeddings": 64,
    "use_cache": False,
}
_NO_POOLER = {"add_pooling_layer": False}

ARCHITECTURES: dict[str, Case] = {
    "bert": Case(
        _hf("BertModel", "BertConfig", base=_NO_POOLER, **_BERT), _text(101, types=True), _counts(2, 2, 5, 1)
    ),
    "roberta": Case(
        _hf("RobertaModel", "RobertaConfig", base=_NO_POOLER, **{**_BERT, "max_position_embeddings": 66}),
        _text(101),
        _counts(2, 2, 5, 1),
    ),
    "distilbert": Case(
        _hf(
            "DistilBertModel",
            "DistilBertConfig",
            vocab_size=101,
            dim=32,
            n_layers=2,
            n_heads=4,
            hidden_dim=72,
            max_position_embeddings=64,
        ),
        _text(101),
        _counts(2, 2, 5, 1),
    ),
    "electra": Case(
        _hf("ElectraModel", "ElectraConfig", embedding_size=24, **_BERT),
        _text(101, types=True),
        _counts(2, 2, 5, 1),
    ),
    "albert": Case(
        _hf("AlbertModel", "AlbertConfig", base=_NO_POOLER, embedding_size=20, **_BERT),
        _text(101, types=True),
        _counts(2, 2, 5, 1),
    ),
    "mpnet": Case(
        _hf("MPNetModel", "MPNetConfig", base=_NO_POOLER, **{**_BERT, "max_position_embeddings": 66}),
        _text(101),
        _counts(2, 2, 5, 1),
        attns=("eager",),
    ),
    # Per layer: two feed-forwards (ffn[0] and its own), and NoNorm after the attention, each feed-forward,
    # the output bottleneck and the two input bottlenecks. One more in the embedding.
    "mobilebert": Case(
        _hf(
            "MobileBertModel",
            "MobileBertConfig",
            base=_NO_POOLER,
            embedding_size=20,
            intra_bottleneck_size=24,
            num_feedforward_networks=2,
            **_BERT,
        ),
        _text(101, types=True),
        _counts(2, 4, 13, 1),
    ),
    "squeezebert": Case(
        _hf("SqueezeBertModel", "SqueezeBertConfig", embedding_size=32, **_BERT),
        _text(101, types=True),
        _counts(2, 2, 5, 1),
        attns=("eager",),
    ),
    # The first layer has no attention norm (an Identity); the second attends within a window.
    "modernbert": Case(
        _hf(
            "ModernBertModel",
            "ModernBertConfig",
            global_attn_every_n_layers=2,
            local_attention=8,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
            cls_token_id=3,
            sep_token_id=4,
            **_BERT,
        ),
        _text(101),
        _counts(2, 2, 5, 1),
    ),
    "gpt2": Case(
        _hf(
            "GPT2LMHeadModel",
            "GPT2Config",
            vocab_size=103,
            n_embd=32,
            n_layer=2,
            n_head=4,
            n_inner=72,
            n_positions=64,
            use_cache=False,
            bos_token_id=1,
            eos_token_id=2,
        ),
        _text(103),
        _counts(2, 2, 5, 1),
    ),
    "opt": Case(
        _hf(
            "OPTForCausalLM",
            "OPTConfig",
            vocab_size=103,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            ffn_dim=72,
            max_position_embeddings=64,
            word_embed_proj_dim=32,
            use_cache=False,
        ),
        _text(103),
        _counts(2, 2, 5, 1),
    ),
    "llama": Case(_hf("LlamaForCausalLM", "LlamaConfig", **_DECODER), _text(103), _counts(2, 2, 5, 1)),
    "qwen2": Case(_hf("Qwen2ForCausalLM", "Qwen2Config", **_DECODER), _text(103), _counts(2, 2, 5, 1)),
    # Two more norms a layer: query and key, per head.
    "qwen3": Case(
        _hf("Qwen3ForCausalLM", "Qwen3Config", head_dim=16, **_DECODER), _text(103), _counts(2, 2, 9, 1)
    ),
    # Encoder: one attention a layer; decoder: self and cross. Norms: 2 * 2 + 1 and 2 * 3 + 1.
    "t5": Case(
        _hf(
            "T5ForConditionalGeneration",
            "T5Config",
            vocab_size=107,
            d_model=32,
            d_kv=8,
            d_ff=72,
            num_layers=2,
            num_decoder_layers=2,
            num_heads=3,
            relative_attention_num_buckets=8,
            relative_attention_max_distance=16,
            use_cache=False,
        ),
        _text(107, decoder=True),
        _counts(6, 4, 12, 2),
    ),
    # Norms: 2 * 2 and 2 * 3, and one after each embedding.
    "bart": Case(
        _hf(
            "BartModel",
            "BartConfig",
            vocab_size=109,
            d_model=32,
            encoder_layers=2,
            decoder_layers=2,
            encoder_attention_heads=4,
            decoder_attention_heads=4,
            encoder_ffn_dim=72,
            decoder_ffn_dim=56,
            max_position_embeddings=64,
            use_cache=False,
        ),
        _text(109, decoder=True),
        _counts(6, 4, 12, 2),
    ),
    "whisper": Case(
        lambda attn: _hf(
            "WhisperModel",
            "WhisperConfig",
            vocab_size=113,
            num_mel_bins=12,
            d_model=32,
            encoder_layers=2,
            decoder_layers=1,
            encoder_attention_heads=4,
            decoder_attention_heads=4,
            encoder_ffn_dim=72,
            decoder_ffn_dim=72,
            max_source_positions=20,
            max_target_positions=16,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
            decoder_start_token_id=1,
            use_cache=False,
        )(attn).get_encoder(),
        _floats("input_features", 12, 40),
        _counts(2, 2, 5, 1),
        fixed=True,
    ),
    # Patches, a class token and positions, a parameter added whole, are one embedding.
    "vit": Case(
        _hf(
            "ViTModel",
            "ViTConfig",
            base=_NO_POOLER,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=72,
            image_size=24,
            patch_size=8,
        ),
        _floats("pixel_values", 3, 24, 24),
        _counts(2, 2, 5, 1),
        fixed=True,
    ),
    "clip_text": Case(
        _hf(
            "CLIPTextModel",
            "CLIPTextConfig",
            vocab_size=101,
            hidden_size=32,
            intermediate_size=72,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=30,
            bos_token_id=1,
            eos_token_id=2,
            pad_token_id=1,
        ),
        _text(101),
        _counts(2, 2, 5, 1),
    ),
    # Norms: before and after the encoder too (the last on the pooled class token).
    "clip_vision": Case(
        _hf(
            "CLIPVisionModel",
            "CLIPVisionConfig",
            hidden_size=32,
            intermediate_size=72,
            num_hidden_layers=2,
            num_attention_heads=4,
            image_size=24,
            patch_size=8,
        ),
        _floats("pixel_values", 3, 24, 24),
        _counts(2, 2, 6, 1),
        fixed=True,
    ),
    "deberta_v2": Case(
        _hf(
            "DebertaV2Model",
            "DebertaV2Config",
            relative_attention=True,
            pos_att_type=["p2c", "c2p"],
            position_buckets=16,
            norm_rel_ebd="layer_norm",
            share_att_key=True,
            position_biased_input=False,
            **_BERT,
        ),
        _text(101, types=True),
        _counts(2, 2, 6, 1),
        attns=("eager",),
    ),
    "torch_encoder": Case(
        lambda attn: handwritten.TorchEncoder(), _text(97), _counts(2, 2, 5, 1), attns=("sdpa",)
    ),
    "nanogpt": Case(
        lambda attn: handwritten.Causal(sdpa=attn == "sdpa"), _text(83, mask=False), _counts(2, 2, 5, 1)
    ),
    # Positions are a sliced parameter; the words alone are looked up.
    "einsum": Case(lambda attn: handwritten.Einsum(), _text(71), _counts(2, 2, 4, 1), attns=("eager",)),
}


# More that is done to scores, for the tests of attention alone.
SCORES: dict[str, Case] = {
    # Scores are capped; the first layer attends within a window. Norms before and after each sub-layer.
    "gemma2": Case(
        _hf(
            "Gemma2ForCausalLM",
            "Gemma2Config",
            head_dim=8,
            sliding_window=6,
            query_pre_attn_scalar=16,
            attn_logit_softcapping=2.0,
            initializer_range=0.2,
            **_DECODER,
        ),
        _text(103),
        _counts(2, 2, 9, 1),
        attns=("eager",),
    ),
    # Scores are multiplied by the causal mask before -10000 is added where it is 0.
    "openai_gpt": Case(
        _hf(
            "OpenAIGPTLMHeadModel",
            "OpenAIGPTConfig",
            vocab_size=103,
            n_embd=32,
            n_layer=2,
            n_head=4,
            n_positions=64,
        ),
        _text(103),
        _counts(2, 2, 4, 1),
        attns=("eager",),
    ),
    # ALiBi: slopes are counted from the number of heads, which stand beside the batch in one axis.
    "bloom": Case(
        _hf("BloomModel", "BloomConfig", vocab_size=103, hidden_size=32, n_layer=2, n_head=4),
        _text(103),
        _counts(2, 2, 6, 1),
        attns=("eager",),
    ),
    # q, k and v are one product, with vectors added to queries and values after it.
    "deberta": Case(
        _hf(
            "DebertaModel",
            "DebertaConfig",
            relative_attention=True,
            pos_att_type=["p2c", "c2p"],
            max_relative_positions=16,
            position_biased_input=False,
            initializer_range=0.2,
            **_BERT,
        ),
        _text(101, types=True),
        _counts(2, 2, 5, 1),
        attns=("eager",),
    ),
    # Projections by einsum; relative positions in a product of their own; rows are (length, batch).
    "xlnet": Case(
        _hf(
            "XLNetModel",
            "XLNetConfig",
            vocab_size=103,
            d_model=32,
            n_layer=2,
            n_head=4,
            d_inner=48,
            initializer_range=0.2,
            use_mems_eval=False,
        ),
        _text(103),
        _counts(2, 2, 4, 1),
        attns=("eager",),
    ),
    # A learned score a head stands beside the keys'.
    "gpt_oss": Case(
        _hf(
            "GptOssModel",
            "GptOssConfig",
            head_dim=8,
            sliding_window=6,
            num_local_experts=2,
            num_experts_per_tok=1,
            **_DECODER,
        ),
        _text(103),
        _counts(2, 0, 5, 1),
        attns=("eager",),
    ),
}


def fx_program(name: str, attn: str = "sdpa") -> Any:
    """The architecture captured by graphwright. Shared: clone before editing."""
    return _captured(name, _spelling(name, attn))


def onnx_program(name: str, attn: str = "sdpa") -> Any:
    """The same program lowered by `to-onnx`. Shared: clone before editing."""
    return _lowered(name, _spelling(name, attn))


def _spelling(name: str, attn: str) -> str:
    """The one that there is, where a model offers no choice: so that nothing is captured twice."""
    offered = (ARCHITECTURES | SCORES)[name].attns
    return attn if attn in offered else offered[0]


@functools.cache
def _captured(name: str, attn: str) -> Any:
    from graphwright.ir.capture import capture

    case = (ARCHITECTURES | SCORES)[name]
    return capture(case.build(attn), inputs=case.inputs())


@functools.cache
def _lowered(name: str, attn: str) -> Any:
    from graphwright.passes.lower.to_onnx import ToOnnx
    from graphwright.passes.manager.contract import Context

    return ToOnnx().run(_captured(name, attn).clone(), Context()).program

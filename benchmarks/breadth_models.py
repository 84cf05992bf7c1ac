"""The architectures of `breadth.py`: transformers' names, tiny sizes, how many blocks each one's code has."""

from __future__ import annotations

from typing import Any

# Sizes by whatever name a configuration has for them; those of its own come from SETTINGS.
SMALL: dict[str, Any] = {
    "vocab_size": 101, "hidden_size": 32, "d_model": 32, "n_embd": 32, "dim": 32, "emb_dim": 32,
    "embedding_size": 24, "num_hidden_layers": 2, "n_layer": 2, "n_layers": 2, "num_layers": 2,
    "encoder_layers": 2, "decoder_layers": 2, "num_decoder_layers": 2, "num_encoder_layers": 2,
    "num_attention_heads": 4, "n_head": 4, "n_heads": 4, "num_heads": 4, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "num_encoder_attention_heads": 4, "num_decoder_attention_heads": 4,
    "num_key_value_heads": 2, "intermediate_size": 72, "encoder_ffn_dim": 72, "decoder_ffn_dim": 72,
    "d_ff": 72, "ffn_dim": 72, "hidden_dim": 72, "d_inner": 72, "n_inner": 72, "d_kv": 8, "d_head": 8,
    "head_dim": 8, "max_position_embeddings": 64, "n_positions": 64, "n_ctx": 64,
    "max_source_positions": 64, "max_target_positions": 64, "use_cache": False, "pad_token_id": 0,
    "image_size": 24, "patch_size": 8,
}  # fmt: skip

NAMES = """
bert roberta xlm-roberta camembert distilbert electra albert mpnet mobilebert squeezebert modernbert deberta
deberta-v2 convbert funnel big_bird longformer nystromformer fnet ernie esm megatron-bert nomic_bert rembert
roformer roberta-prelayernorm roc_bert splinter xlm flaubert xlnet xlm-roberta-xl data2vec-text ibert
layoutlm layoutlmv3 lilt luke canine eurobert bert-generation markuplm clip_text_model siglip_text_model
gpt2 gpt_neo gpt_neox gptj codegen opt bloom falcon mpt llama mistral mixtral qwen2 qwen2_moe qwen3
qwen3_moe olmoe gpt_oss gemma gemma2 gemma3_text phi phi3 stablelm olmo olmo2 cohere starcoder2
openai-gpt biogpt xglm smollm3 granite glm persimmon exaone4 mamba t5 mt5 umt5 t5gemma bart mbart marian
pegasus blenderbot-small m2m_100 led
switch_transformers whisper vilt vit deit beit dinov2 dinov3_vit swin siglip_vision_model clip_vision_model
vit_msn wav2vec2 hubert wavlm audio-spectrogram-transformer
""".split()

_GEMMA = {
    "vocab_size": 101, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "intermediate_size": 72, "head_dim": 8, "max_position_embeddings": 64,
    "sliding_window": 6, "query_pre_attn_scalar": 8, "pad_token_id": 0, "use_cache": False,
}  # fmt: skip
SETTINGS: dict[str, dict[str, Any]] = {
    "t5gemma": {"encoder": _GEMMA, "decoder": {**_GEMMA, "cross_attention_hidden_size": 32},
        "decoder_start_token_id": 0, "use_cache": False},
    "mobilebert": {"intra_bottleneck_size": 32, "hidden_size": 64, "num_feedforward_networks": 2},
    "squeezebert": {"embedding_size": 32}, "modernbert": {"local_attention": 8},
    "deberta": {"pos_att_type": ["c2p", "p2c"], "relative_attention": True},
    "deberta-v2": {"pos_att_type": ["c2p", "p2c"], "relative_attention": True, "position_buckets": 16,
        "norm_rel_ebd": "layer_norm", "share_att_key": True},
    "convbert": {"conv_kernel_size": 3, "head_ratio": 2},
    "funnel": {"block_sizes": [1, 1], "num_decoder_layers": 1, "d_model": 32},
    "big_bird": {"attention_type": "original_full"}, "longformer": {"attention_window": [4, 4]},
    "led": {"attention_window": [4, 4], "max_encoder_position_embeddings": 64,
        "max_decoder_position_embeddings": 64, "decoder_start_token_id": 0},
    "nystromformer": {"num_landmarks": 64, "segment_means_seq_len": 64, "conv_kernel_size": 5},
    "esm": {"mask_token_id": 4},
    "rembert": {"input_embedding_size": 24, "output_embedding_size": 24},
    "layoutlmv3": {"input_size": 24, "coordinate_size": 4, "shape_size": 8},
    "luke": {"entity_vocab_size": 11, "entity_emb_size": 16, "use_entity_aware_attention": False},
    "canine": {"num_hash_buckets": 64, "local_transformer_stride": 4, "downsampling_rate": 2},
    "lilt": {"hidden_size": 96},
    "markuplm": {"xpath_unit_hidden_size": 8},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "window_size": 4},
    "gptj": {"rotary_dim": 4}, "codegen": {"rotary_dim": 4}, "opt": {"word_embed_proj_dim": 32},
    "falcon": {"new_decoder_architecture": True, "num_kv_heads": 2, "alibi": False},
    "mpt": {"expansion_ratio": 2}, "mistral": {"sliding_window": 6},
    "mixtral": {"num_local_experts": 4, "num_experts": 4, "num_experts_per_tok": 2,
        "moe_intermediate_size": 40, "shared_expert_intermediate_size": 40, "decoder_sparse_step": 1},
    "qwen2_moe": {"num_local_experts": 4, "num_experts": 4, "num_experts_per_tok": 2,
        "moe_intermediate_size": 40, "shared_expert_intermediate_size": 40, "decoder_sparse_step": 1},
    "qwen3_moe": {"num_local_experts": 4, "num_experts": 4, "num_experts_per_tok": 2,
        "moe_intermediate_size": 40, "shared_expert_intermediate_size": 40, "decoder_sparse_step": 1},
    "olmoe": {"num_experts": 4, "num_experts_per_tok": 2},
    "gpt_oss": {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 6},
    "gemma2": {"sliding_window": 6, "query_pre_attn_scalar": 8},
    "gemma3_text": {"sliding_window": 6, "query_pre_attn_scalar": 8}, "phi3": {"pad_token_id": 0},
    "xglm": {"attention_heads": 4}, "smollm3": {"pad_token_id": 0}, "glm": {"pad_token_id": 0},
    "exaone4": {"sliding_window": 6}, "mamba": {"state_size": 4, "time_step_rank": 4},
    "t5": {"decoder_start_token_id": 0}, "mt5": {"decoder_start_token_id": 0},
    "umt5": {"decoder_start_token_id": 0}, "marian": {"decoder_vocab_size": 101},
    "switch_transformers": {"num_experts": 4, "num_sparse_encoder_layers": 1, "num_sparse_decoder_layers":
        1, "decoder_start_token_id": 0},
    "whisper": {"max_source_positions": 12, "num_mel_bins": 16, "decoder_start_token_id": 1},
    "dinov2": {"mlp_ratio": 2},
    "swin": {"embed_dim": 16, "depths": [1, 1], "num_heads": [2, 2], "window_size": 3, "patch_size": 4},
    "wav2vec2": {"conv_dim": (16, 16), "conv_kernel": (10, 3), "conv_stride": (5, 2),
        "num_feat_extract_layers": 2, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4,
        "feat_extract_norm": "group"},
    "hubert": {"conv_dim": (16, 16), "conv_kernel": (10, 3), "conv_stride": (5, 2),
        "num_feat_extract_layers": 2, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4,
        "feat_extract_norm": "group"},
    "wavlm": {"conv_dim": (16, 16), "conv_kernel": (10, 3), "conv_stride": (5, 2),
        "num_feat_extract_layers": 2, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4,
        "feat_extract_norm": "group"},
    "audio-spectrogram-transformer": {"num_mel_bins": 24, "max_length": 40},
}  # fmt: skip

# (attentions, feed-forwards; a mixture of experts is one), read off the models' code, where they are not two
# of each; None: nobody says.
COUNTS: dict[str, tuple[int | None, int | None]] = {
    "mobilebert": (2, 4), "funnel": (None, None), "longformer": (None, 2), "led": (None, 4),
    "nystromformer": (2, 2),
    "fnet": (0, 2), "lilt": (3, 3), "canine": (None, None), "mamba": (0, None), "t5": (6, 4),
    "t5gemma": (6, 4),
    "mt5": (6, 4), "umt5": (6, 4), "bart": (6, 4), "mbart": (6, 4), "marian": (6, 4), "pegasus": (6, 4),
    "blenderbot-small": (6, 4), "m2m_100": (6, 4), "switch_transformers": (6, None), "whisper": (6, 4),
    "qwen2_moe": (2, 4),
    "swin": (None, None), "siglip_vision_model": (3, 3),
}  # fmt: skip

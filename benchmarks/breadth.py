"""Architectures of transformers, tiny and random, from a directory to bundles' graphs: captured, found, right?

    python benchmarks/breadth.py --out FILE.jsonl [--only NAME ...] [--tvm N]

Each is saved as a user's directory (config.json, model.safetensors), captured, its attentions and feed-forwards
counted against what its code says, and run through the presets `exact` and `balanced` for ONNX Runtime (the
first N also `exact` for TVM). Outputs are compared with PyTorch eager on three ragged batches and one padded on
the left, at real tokens. A process each, so that one that dies or hangs costs itself alone; results are appended,
and what is in FILE already is not run again.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

import numpy as np

SEED, LIMIT = 0, 600  # seconds for one architecture
SHAPES = ((1, 9, "right"), (3, 11, "right"), (4, 16, "ragged"), (3, 13, "left"))

# Sizes by whatever name a configuration has for them; those of its own come from MODELS.
SMALL: dict[str, Any] = {
    "vocab_size": 101, "hidden_size": 32, "d_model": 32, "n_embd": 32, "dim": 32, "emb_dim": 32, "embedding_size": 24,
    "num_hidden_layers": 2, "n_layer": 2, "n_layers": 2, "num_layers": 2, "encoder_layers": 2, "decoder_layers": 2,
    "num_decoder_layers": 2, "num_encoder_layers": 2, "num_attention_heads": 4, "n_head": 4, "n_heads": 4,
    "num_heads": 4, "encoder_attention_heads": 4, "decoder_attention_heads": 4, "num_encoder_attention_heads": 4,
    "num_decoder_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 72, "encoder_ffn_dim": 72,
    "decoder_ffn_dim": 72, "d_ff": 72, "ffn_dim": 72, "hidden_dim": 72, "d_inner": 72, "n_inner": 72, "d_kv": 8,
    "d_head": 8, "head_dim": 8, "max_position_embeddings": 64, "n_positions": 64, "n_ctx": 64, "max_source_positions": 64,
    "max_target_positions": 64, "use_cache": False, "pad_token_id": 0, "image_size": 24, "patch_size": 8,
}  # fmt: skip

# name -> (attentions, feed-forwards, settings beyond SMALL). Counts were read off the models' code; None: nobody says.
Entry = tuple[int | None, int | None, dict[str, Any]]
TEXT, BOTH = (2, 2), (6, 4)
SPEECH = {"conv_dim": (16, 16), "conv_kernel": (10, 3), "conv_stride": (5, 2), "num_feat_extract_layers": 2,
          "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4, "feat_extract_norm": "group"}  # fmt: skip
MOE = {"num_local_experts": 4, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 40,
       "shared_expert_intermediate_size": 40, "decoder_sparse_step": 1}  # fmt: skip
MODELS: dict[str, Entry] = {
    # encoders of text
    "bert": (*TEXT, {}), "roberta": (*TEXT, {}), "xlm-roberta": (*TEXT, {}), "camembert": (*TEXT, {}),
    "distilbert": (*TEXT, {}), "electra": (*TEXT, {}), "albert": (*TEXT, {}), "mpnet": (*TEXT, {}),
    "mobilebert": (2, 4, {"intra_bottleneck_size": 32, "hidden_size": 64, "num_feedforward_networks": 2}),
    "squeezebert": (*TEXT, {"embedding_size": 32}),
    "modernbert": (*TEXT, {"local_attention": 8}), "deberta": (*TEXT, {"pos_att_type": ["c2p", "p2c"], "relative_attention": True}),
    "deberta-v2": (*TEXT, {"pos_att_type": ["c2p", "p2c"], "relative_attention": True, "position_buckets": 16, "norm_rel_ebd": "layer_norm", "share_att_key": True}),
    "convbert": (*TEXT, {"conv_kernel_size": 3, "head_ratio": 2}), "funnel": (None, None, {"block_sizes": [1, 1], "num_decoder_layers": 1, "d_model": 32}),
    "big_bird": (*TEXT, {"attention_type": "original_full"}), "longformer": (None, 2, {"attention_window": [4, 4]}),
    "nystromformer": (None, 2, {"num_landmarks": 4, "segment_means_seq_len": 64, "conv_kernel_size": 5}),
    "fnet": (0, 2, {}), "ernie": (*TEXT, {}), "esm": (*TEXT, {"mask_token_id": 4, "token_dropout": False}),
    "megatron-bert": (*TEXT, {}), "nomic_bert": (*TEXT, {}), "rembert": (*TEXT, {"input_embedding_size": 24, "output_embedding_size": 24}),
    "roformer": (*TEXT, {}), "roberta-prelayernorm": (*TEXT, {}), "roc_bert": (*TEXT, {}), "splinter": (*TEXT, {}),
    "xlm": (*TEXT, {}), "flaubert": (*TEXT, {}), "xlnet": (*TEXT, {}), "xlm-roberta-xl": (*TEXT, {}), "data2vec-text": (*TEXT, {}),
    "ibert": (*TEXT, {}), "layoutlm": (*TEXT, {}), "layoutlmv3": (*TEXT, {"input_size": 24, "coordinate_size": 4, "shape_size": 8, "visual_embed": False}),
    "lilt": (None, None, {}), "luke": (*TEXT, {"entity_vocab_size": 11, "entity_emb_size": 16, "use_entity_aware_attention": False}),
    "canine": (None, None, {"num_hash_buckets": 64, "local_transformer_stride": 4, "downsampling_rate": 2}),
    "eurobert": (*TEXT, {}), "bert-generation": (*TEXT, {}), "markuplm": (*TEXT, {"xpath_unit_hidden_size": 8}),
    "clip_text_model": (*TEXT, {}), "siglip_text_model": (*TEXT, {}),
    # decoders
    "gpt2": (*TEXT, {}), "gpt_neo": (*TEXT, {"attention_types": [[["global", "local"], 1]], "window_size": 4}),
    "gpt_neox": (*TEXT, {}), "gptj": (*TEXT, {"rotary_dim": 4}), "codegen": (*TEXT, {"rotary_dim": 4}),
    "opt": (*TEXT, {"word_embed_proj_dim": 32}), "bloom": (*TEXT, {}), "falcon": (*TEXT, {"new_decoder_architecture": True, "num_kv_heads": 2, "alibi": False}),
    "mpt": (*TEXT, {"expansion_ratio": 2}), "llama": (*TEXT, {}), "mistral": (*TEXT, {"sliding_window": 6}), "mixtral": (*TEXT, MOE),
    "qwen2": (*TEXT, {}), "qwen2_moe": (*TEXT, MOE), "qwen3": (*TEXT, {}), "qwen3_moe": (*TEXT, MOE), "gemma": (*TEXT, {}),
    "gemma2": (*TEXT, {"sliding_window": 6, "query_pre_attn_scalar": 8}), "gemma3_text": (*TEXT, {"sliding_window": 6, "query_pre_attn_scalar": 8}),
    "phi": (*TEXT, {}), "phi3": (*TEXT, {"pad_token_id": 0}), "stablelm": (*TEXT, {}), "olmo": (*TEXT, {}), "olmo2": (*TEXT, {}),
    "cohere": (*TEXT, {}), "starcoder2": (*TEXT, {}), "openai-gpt": (*TEXT, {}), "biogpt": (*TEXT, {}), "xglm": (*TEXT, {"attention_heads": 4}),
    "smollm3": (*TEXT, {"pad_token_id": 0}), "granite": (*TEXT, {}), "glm": (*TEXT, {"pad_token_id": 0}), "persimmon": (*TEXT, {}),
    "exaone4": (*TEXT, {"sliding_window": 6}), "mamba": (0, None, {"state_size": 4, "time_step_rank": 4}),
    # both
    "t5": (*BOTH, {"decoder_start_token_id": 0}), "mt5": (*BOTH, {"decoder_start_token_id": 0}), "umt5": (*BOTH, {"decoder_start_token_id": 0}),
    "bart": (*BOTH, {}), "mbart": (*BOTH, {}), "marian": (*BOTH, {"decoder_vocab_size": 101}), "pegasus": (*BOTH, {}), "blenderbot-small": (*BOTH, {}),
    "m2m_100": (*BOTH, {}), "switch_transformers": (6, None, {"num_experts": 4, "num_sparse_encoder_layers": 1, "num_sparse_decoder_layers": 1, "decoder_start_token_id": 0}),
    "whisper": (*BOTH, {"max_source_positions": 12, "num_mel_bins": 16, "decoder_start_token_id": 1}),
    # images
    "vit": (*TEXT, {}), "deit": (*TEXT, {}), "beit": (*TEXT, {}), "dinov2": (*TEXT, {"mlp_ratio": 2}), "dinov3_vit": (*TEXT, {}),
    "swin": (None, None, {"embed_dim": 16, "depths": [1, 1], "num_heads": [2, 2], "window_size": 3, "patch_size": 4}),
    "siglip_vision_model": (3, 3, {}), "clip_vision_model": (*TEXT, {}), "vit_msn": (*TEXT, {}),
    # sound
    "wav2vec2": (*TEXT, SPEECH), "hubert": (*TEXT, SPEECH), "wavlm": (*TEXT, SPEECH), "audio-spectrogram-transformer": (*TEXT, {"num_mel_bins": 24, "max_length": 40}),
}  # fmt: skip


def build(name: str) -> Any:
    """The model in evaluation mode, with random norms and biases, so that one that is lost shows."""
    import torch
    import transformers

    torch.manual_seed(SEED)
    config = transformers.AutoConfig.for_model(name)
    settings = {key: value for key, value in SMALL.items() if hasattr(config, key)} | MODELS[name][2]
    config = transformers.AutoConfig.for_model(name, **settings)
    model = transformers.AutoModel.from_config(config).eval().float()
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        if parameter.dim() == 1:
            parameter.data += torch.randn(parameter.shape, generator=generator) * 0.1
    return model


def feeds(program: Any) -> list[dict[str, np.ndarray]]:
    from graphwright.ir.probe import feed

    found = []
    for number, (batch, length, mask) in enumerate(SHAPES):
        wished = {s: batch if s == "batch" else length for s in program.symbols}
        sizes = {s: int(np.clip(wished[s], low, high)) for s, (low, high) in program.symbols.items()}
        found.append(feed(program, sizes, mask, np.random.default_rng(number)))
    return found


def eager(model: Any, program: Any, feed: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    import torch

    with torch.no_grad():
        result = model(**{name: torch.from_numpy(array) for name, array in feed.items()}, return_dict=True)
    return {name: result[name].numpy() for name in program.outputs if name in result}


def distances(program: Any, feed: Any, wanted: Any, found: Any) -> tuple[float, float]:
    """(largest |found - wanted| / max(1, |wanted|), smallest cosine of a row), at real tokens."""
    from graphwright.passes.verify import scaled_distance, smallest_cosine

    masks = [spec.name for spec in program.inputs if spec.role in ("attention_mask", "decoder_attention_mask")]
    error, cosine = 0.0, 1.0
    for name, reference in wanted.items():
        a, b = reference.astype(np.float64), found[name].astype(np.float64)
        for mask in masks:
            if a.shape[:2] == feed[mask].shape:
                a, b = a[feed[mask] != 0], b[feed[mask] != 0]
                break
        if a.shape != b.shape or np.isnan(b).any():
            return float("inf"), -1.0
        error, cosine = max(error, scaled_distance(a, b)), min(cosine, smallest_cosine(a, b))
    return error, cosine


def work(name: str, tvm: bool, queue: Any) -> None:
    record: dict[str, Any] = {"name": name}
    try:
        with tempfile.TemporaryDirectory() as folder:
            record |= examine(name, Path(folder), tvm)
    except Exception as error:
        record["error"] = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        record["where"] = traceback.format_exc()[-1500:]
    queue.put(record)


def examine(name: str, folder: Path, tvm: bool) -> dict[str, Any]:
    import graphwright as gw
    from graphwright.backends.onnxruntime import OnnxRuntime
    from graphwright.backends.target import detect
    from graphwright.ir.blocks import recognise
    from graphwright.passes.base import Context
    from graphwright.tools.presets import chain

    model = build(name)
    model.save_pretrained(folder)
    began = time.perf_counter()
    program = gw.trace(folder)
    record: dict[str, Any] = {"captured": True, "capture_s": round(time.perf_counter() - began, 1)}
    record["symbols"] = {symbol: list(bounds) for symbol, bounds in program.symbols.items()}
    record["inputs"] = {spec.name: f"{spec.role} {list(spec.shape)}" for spec in program.inputs}
    blocks = recognise(program)
    record["attention"], record["feed_forward"] = len(blocks.attention), len(blocks.feed_forward)
    record["missed"] = [f"{m.kind}: {m.reason}" for m in blocks.missed][:6]
    batches = feeds(program)
    references = [eager(model, program, feed) for feed in batches]
    for preset in ("exact", "balanced"):
        context = Context(target=detect(), calibration=batches)
        run = chain(preset, program)[0].run(program, context, keep_going=True)
        record[f"{preset}_rolled_back"] = [f"{s.text}: {s.error}" for s in run.steps if s.status == "rolled back"]
        record[f"{preset}_unverified"] = [s.unverified for s in run.steps if s.unverified][:1]
        artifact = OnnxRuntime().build(run.program)
        found = [distances(program, f, r, artifact.run(f)) for f, r in zip(batches, references, strict=True)]
        record[f"{preset}_error"], record[f"{preset}_cosine"] = max(e for e, _ in found), min(c for _, c in found)
        if preset == "exact":
            onnx = recognise(run.program)
            record["onnx_attention"], record["onnx_feed_forward"] = len(onnx.attention), len(onnx.feed_forward)
    if tvm:
        from graphwright.backends.tvm.backend import Tvm

        lowered = chain("exact", program, "tvm")[0].run(program, Context(target=detect()), keep_going=True).program
        artifact = Tvm().build(lowered, buckets=[_sizes(lowered, batches[1])])
        record["tvm_error"] = distances(program, batches[1], references[1], artifact.run(batches[1]))[0]
    return record


def _sizes(program: Any, feed: dict[str, np.ndarray]) -> dict[str, int]:
    pairs = ((d, n) for s in program.inputs for d, n in zip(s.shape, feed[s.name].shape, strict=True))
    return {dim: size for dim, size in pairs if isinstance(dim, str)}


def summary(records: list[dict[str, Any]]) -> None:
    good = [r for r in records if r.get("captured")]
    complete = [r for r in good if all(MODELS[r["name"]][i] in (None, r[key]) for i, key in enumerate(("attention", "feed_forward")))]
    print(f"captured {len(good)} of {len(records)}; every attention and feed-forward found in {len(complete)}")
    print("rolled back:", sum(bool(r.get("exact_rolled_back") or r.get("balanced_rolled_back")) for r in good))
    for key, bad in (("exact_error", lambda x: x > 1e-5), ("balanced_cosine", lambda x: x < 0.999), ("tvm_error", lambda x: x > 1e-4)):
        seen = [r for r in good if key in r]
        print(f"{key}: {sum(not bad(r[key]) for r in seen)} of {len(seen)} within")
    for r in records:
        expected = MODELS[r["name"]][:2]
        parts = [r["error"]] if "error" in r else []
        if r in good and r not in complete:
            parts.append(f"found {r['attention']}, {r['feed_forward']} of {expected} {r['missed'][:2]}")
        parts += [*r.get("exact_rolled_back", []), *r.get("balanced_rolled_back", [])]
        parts += [f"exact off by {r['exact_error']:.2g}"] if r.get("exact_error", 0) > 1e-5 else []
        parts += [f"balanced {r['balanced_cosine']:.5f}"] if r.get("balanced_cosine", 1) < 0.999 else []
        parts += [f"tvm off by {r['tvm_error']:.2g}"] if r.get("tvm_error", 0) > 1e-4 else []
        if parts:
            print(f"  {r['name']}: " + "; ".join(parts))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="*", choices=list(MODELS))
    parser.add_argument("--tvm", type=int, default=0, help="build the first so many for TVM, too")
    args = parser.parse_args()
    lines = args.out.read_text().splitlines() if args.out.exists() else []
    records = [json.loads(line) for line in lines]
    spawn = multiprocessing.get_context("spawn")
    for number, name in enumerate(args.only or MODELS):
        if any(r["name"] == name for r in records):
            continue
        queue = spawn.Queue()
        process = spawn.Process(target=work, args=(name, number < args.tvm, queue))
        process.start()
        try:
            record = queue.get(timeout=LIMIT)
        except Exception:
            record = {"name": name, "error": f"gave nothing in {LIMIT} s, or died"}
        process.kill()
        records.append(record)
        with args.out.open("a") as file:
            file.write(json.dumps(record) + "\n")
        print(name, record.get("error", "ok"), file=sys.stderr, flush=True)
    summary(records)
    return 0


if __name__ == "__main__":
    sys.exit(main())

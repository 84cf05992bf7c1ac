"""Peak memory of optimising a decoder of about a billion fp32 parameters, against its weights.

    python benchmarks/decoder_memory.py [--layers 18] [--json OUT.json]

Writes a Llama-style decoder of random weights as a Hugging Face directory, a tensor at a time, runs
`optimize MODEL -o OUT --preset exact` on it as a user would, and samples the proportional set size (Linux
PSS: shared pages counted once) of the command and all its children ten times a second.
"""

import argparse
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path

import psutil
import torch
from rich.console import Console
from rich.table import Table
from safetensors.torch import save_file

HIDDEN, WIDTH, HEADS, KV_HEADS, VOCABULARY = 2048, 5632, 32, 8, 32000


def tensors(layers: int) -> dict[str, tuple[int, ...]]:
    kv = HIDDEN * KV_HEADS // HEADS
    shapes = {"model.embed_tokens.weight": (VOCABULARY, HIDDEN)}
    for layer in range(layers):
        at = f"model.layers.{layer}"
        shapes |= {
            f"{at}.input_layernorm.weight": (HIDDEN,),
            f"{at}.self_attn.q_proj.weight": (HIDDEN, HIDDEN),
            f"{at}.self_attn.k_proj.weight": (kv, HIDDEN),
            f"{at}.self_attn.v_proj.weight": (kv, HIDDEN),
            f"{at}.self_attn.o_proj.weight": (HIDDEN, HIDDEN),
            f"{at}.post_attention_layernorm.weight": (HIDDEN,),
            f"{at}.mlp.gate_proj.weight": (WIDTH, HIDDEN),
            f"{at}.mlp.up_proj.weight": (WIDTH, HIDDEN),
            f"{at}.mlp.down_proj.weight": (HIDDEN, WIDTH),
        }
    return shapes | {"model.norm.weight": (HIDDEN,), "lm_head.weight": (VOCABULARY, HIDDEN)}


def write_model(directory: Path, layers: int) -> int:
    """A shard a tensor, so that writing needs one tensor's memory. Returns the bytes of the weights."""
    directory.mkdir(parents=True)
    generator, index, total = torch.Generator().manual_seed(0), {}, 0
    for number, (name, shape) in enumerate(tensors(layers).items()):
        values = torch.ones(shape) if len(shape) == 1 else torch.randn(shape, generator=generator) * 0.02
        shard = f"model-{number:05d}.safetensors"
        save_file({name: values}, directory / shard, metadata={"format": "pt"})
        index[name], total = shard, total + values.nbytes
    (directory / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {"total_size": total}, "weight_map": index})
    )
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": HIDDEN,
        "intermediate_size": WIDTH, "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS,
        "num_hidden_layers": layers, "vocab_size": VOCABULARY, "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu", "tie_word_embeddings": False,
        "torch_dtype": "float32", "bos_token_id": 1, "eos_token_id": 2,
    }  # fmt: skip
    (directory / "config.json").write_text(json.dumps(config))
    return total


def tree_memory(process: psutil.Process) -> int:
    total = 0
    for member in [process, *process.children(recursive=True)]:
        try:
            total += member.memory_full_info().pss
        except psutil.Error:
            continue
    return total


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--layers", type=int, default=18)
    parser.add_argument("--shapes", default="1x128")
    parser.add_argument("--json")
    args = parser.parse_args()
    scratch = Path(tempfile.mkdtemp(prefix="graphwright-decoder-"))
    try:
        weights = write_model(scratch / "model", args.layers)
        command = [
            sys.executable,
            "-m",
            "graphwright.tools.cli",
            str(scratch / "model"),
            "-o",
            str(scratch / "out"),
        ]
        command += ["--preset", "exact", "--shapes", args.shapes]
        start, peak, at = time.perf_counter(), 0, 0.0
        process = psutil.Popen(command)
        while process.poll() is None:
            now = tree_memory(process)
            if now > peak:
                peak, at = now, time.perf_counter() - start
            time.sleep(0.1)
        seconds = time.perf_counter() - start
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    row = {
        "parameters": weights // 4,
        "weights_gib": round(weights / 2**30, 2),
        "peak_gib": round(peak / 2**30, 2),
        "ratio": round(peak / weights, 2),
        "peak_at_s": round(at),
        "seconds": round(seconds),
        "exit": process.returncode,
    }
    table = Table(*row)
    table.add_row(*map(str, row.values()))
    Console().print(table)
    if args.json:
        Path(args.json).write_text(json.dumps(row, indent=1))


if __name__ == "__main__":
    main()

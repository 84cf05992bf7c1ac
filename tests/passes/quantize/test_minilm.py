"""quantize-dynamic and -static on the real all-MiniLM-L6-v2, however exported, beside ONNX Runtime's own."""

import warnings

import numpy as np
import onnxruntime
import pytest
import torch
from graphwright.backends.measuring.workloads import prose
from graphwright.backends.target import detect
from graphwright.ir.capture import capture
from graphwright.ir.execute import execute
from graphwright.passes.manager.contract import Context
from graphwright.passes.manager.pipeline import Pipeline
from graphwright.passes.quantize.quantize_dynamic import QuantizeDynamic
from graphwright.passes.quantize.quantize_static import QuantizeStatic
from graphwright.tools.verbs.demo import model_directory
from onnxruntime.quantization import quantize_dynamic
from onnxruntime.transformers.optimizer import optimize_model
from tokenizers import Tokenizer
from transformers import AutoModel

pytestmark = pytest.mark.slow  # three exports of 22 million parameters

NAMES = ("input_ids", "attention_mask", "token_type_ids")


class Tokens(torch.nn.Module):
    """The transformer without its pooling: one vector a token."""

    def __init__(self):
        super().__init__()
        self.model = AutoModel.from_pretrained(model_directory(), attn_implementation="eager")

    def forward(self, input_ids, attention_mask, token_type_ids):
        return self.model(input_ids, attention_mask, token_type_ids).last_hidden_state


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The model as its exporters and ONNX Runtime's own tools write it."""
    folder = tmp_path_factory.mktemp("minilm")
    paths = {name: folder / f"{name}.onnx" for name in ("dynamo", "torchscript", "optimised", "ort-int8")}
    module, ids = Tokens().eval(), torch.ones(2, 8, dtype=torch.long)
    example = (ids, torch.ones_like(ids), torch.zeros_like(ids))
    settings = {"input_names": list(NAMES), "output_names": ["tokens"]}
    axes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length", max=512)}
    named = {name: {0: "batch", 1: "length"} for name in (*NAMES, "tokens")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            example,
            paths["dynamo"],
            dynamo=True,
            dynamic_shapes=(axes,) * 3,
            verbose=False,
            **settings,
        )
        torch.onnx.export(
            module,
            example,
            paths["torchscript"],
            dynamo=False,
            dynamic_axes=named,
            opset_version=17,
            **settings,
        )
    optimised = optimize_model(str(paths["torchscript"]), model_type="bert", num_heads=12, hidden_size=384)
    optimised.save_model_to_file(str(paths["optimised"]))
    quantize_dynamic(paths["dynamo"], paths["ort-int8"])
    return paths


@pytest.fixture(scope="module")
def feeds():
    """64 sentences of every length, in batches of 16."""
    return tokenized(0)


@pytest.fixture(scope="module")
def calibration():
    """64 others."""
    return tokenized(1)


def tokenized(first):
    tokenizer = Tokenizer.from_file(str(model_directory() / "tokenizer.json"))
    tokenizer.enable_padding()
    sentences = prose()[first :: len(prose()) // 64][:64]
    found = []
    for start in range(0, 64, 16):
        batch = tokenizer.encode_batch(sentences[start : start + 16])
        ids, mask = (np.array([getattr(e, k) for e in batch]) for k in ("ids", "attention_mask"))
        found.append(dict(zip(NAMES, (ids, mask, np.zeros_like(ids)), strict=True)))
    return found


def cosines(expected, found, feeds):
    """Of every real token, or of every sentence where the model pools them."""
    rows = []
    for (a,), (b,), feed in zip(expected, found, feeds, strict=True):
        real = feed["attention_mask"] != 0
        a, b = (x.astype(np.float64)[real] if x.ndim == 3 else x.astype(np.float64) for x in (a, b))
        rows.append((a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1))
    return np.concatenate(rows)


def outputs(program, feeds):
    return [tuple(found.values()) for found in execute(program, feeds)]


@pytest.mark.parametrize(
    ("spelling", "products", "quantize"),
    [
        ("dynamo", 36, QuantizeDynamic()),
        ("torchscript", 36, QuantizeStatic()),
        ("optimised", 24, QuantizeDynamic()),
        ("optimised", 24, QuantizeStatic()),
        ("directory", 36, QuantizeStatic()),
    ],
    ids=lambda one: getattr(one, "name", None),
)
def test_every_spelling_beats_onnx_runtimes_own_int8(files, feeds, calibration, spelling, products, quantize):
    """36 products: q, k, v, o, up, down in six layers; ONNX Runtime's Attention has q, k and v as one.

    On the optimizer's output ONNX Runtime's quantize_dynamic raises "Unable to find data type for
    weight_name". The figures to beat are those of issue 2, and what it makes of the same sentences here.
    """
    if spelling == "directory":
        program = Pipeline.parse("to-onnx").run(capture(model_directory())).program
    else:
        program = capture(files[spelling])
    result = quantize.run(program.clone(), Context(target=detect(), calibration=calibration))
    assert result.statistics["products in int8"] == products
    assert result.statistics["left in float"] == 0
    ours = cosines(outputs(program, feeds), outputs(result.program, feeds), feeds)
    session = onnxruntime.InferenceSession(files["ort-int8"], providers=["CPUExecutionProvider"])
    reference = outputs(capture(files["dynamo"]), feeds)
    theirs = cosines(reference, [tuple(session.run(None, feed)) for feed in feeds], feeds)
    print(f"{quantize.name}, {spelling}: {ours.mean():.5f} worst {ours.min():.5f}")
    print(f"ORT: {theirs.mean():.5f} worst {theirs.min():.5f}")
    assert ours.mean() > max(0.987, theirs.mean())
    assert ours.min() > max(0.954, theirs.min())

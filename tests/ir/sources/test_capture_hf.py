"""Capturing Hugging Face directories: every way weights are stored, every task head, and no pickled code."""

import json
import pickle

import pytest
import torch
import transformers
from graphwright.ir.capture import capture
from graphwright.ir.errors import CaptureError
from graphwright.ir.view import view
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models

TOLERANCE = 1e-5  # of max(1, |reference|)
BERT = {
    "vocab_size": 61, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
    "intermediate_size": 24, "max_position_embeddings": 32, "initializer_range": 0.5,
}  # fmt: skip
DECODER = {**BERT, "num_key_value_heads": 1, "pad_token_id": 0}


def model(name: str, **settings):
    torch.manual_seed(0)
    maker = getattr(transformers, name)
    base = DECODER if "Llama" in name else BERT
    return maker(maker.config_class(**base, **settings)).eval()


@pytest.fixture
def saved(tmp_path):
    """A plain BERT, saved as safetensors."""
    model("BertModel").save_pretrained(tmp_path / "m")
    return tmp_path / "m"


def edit(directory, **changes):
    path = directory / "config.json"
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in config.items() if v is not None}))


def feed(batch=2, length=7):
    kept = (length - torch.arange(batch)).clamp(min=1)
    ids = torch.randint(5, 61, (batch, length), generator=torch.Generator().manual_seed(batch))
    return {"input_ids": ids, "attention_mask": (torch.arange(length)[None] < kept[:, None]).long()}


def check(program, reference, **more):
    """At two sizes that the capture has not seen, the outputs are those of eager PyTorch."""
    for batch, length in ((1, 3), (5, 17)):
        tensors = feed(batch, length)
        given = {name: tensors.get(name, torch.zeros(batch, length).long()) for name in specs(program)}
        with torch.no_grad():
            wanted, got = reference(**tensors, **more), program.graph(*given.values())
        for name, value in zip(program.outputs, got, strict=True):
            assert float(((value - wanted[name]).abs() / wanted[name].abs().clamp(min=1)).max()) < TOLERANCE


def specs(program):
    return [spec.name for spec in program.inputs]


def refusal(source, **options) -> str:
    with pytest.raises(CaptureError) as refused:
        capture(source, **options)
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize("stored", ["safetensors", "sharded", "bin", "bfloat16"])
def test_weights_are_read_however_they_are_stored(tmp_path, stored):
    reference = model("BertModel")
    if stored == "bin":
        torch.save(reference.state_dict(), tmp_path / "pytorch_model.bin")
        reference.config.architectures = ["BertModel"]
        reference.config.save_pretrained(tmp_path)
    elif stored == "bfloat16":
        reference.bfloat16().save_pretrained(tmp_path)
        reference = reference.float()
    else:
        reference.save_pretrained(tmp_path, max_shard_size="5KB" if stored == "sharded" else "1GB")
    assert len(list(tmp_path.glob("*.safetensors"))) == {"sharded": 4, "bin": 0}.get(stored, 1)

    program = capture(tmp_path)

    assert (program.dialect, program.task, program.outputs) == ("fx", "features", ("last_hidden_state",))
    assert specs(program) == ["input_ids", "attention_mask", "token_type_ids"]
    assert program.symbols == {"batch": (1, 2**31 - 1), "length": (1, 32)}
    assert program.info["model_type"] == "bert"
    assert program.info["max_length"] == 32
    check(program, reference)


@pytest.mark.parametrize(
    ("name", "task", "outputs", "facts"),
    [
        (
            "BertForSequenceClassification",
            "sequence-classification",
            ("logits",),
            {"labels": ["a", "b", "c"]},
        ),
        ("BertForTokenClassification", "token-classification", ("logits",), {"labels": ["a", "b", "c"]}),
        ("BertForQuestionAnswering", "question-answering", ("start_logits", "end_logits"), {}),
        ("BertForMaskedLM", "masked-lm", ("logits",), {}),
        ("LlamaForCausalLM", "causal-lm", ("logits",), {"causal": True}),
    ],
)
def test_the_task_is_the_head_that_the_configuration_records(tmp_path, name, task, outputs, facts):
    reference = model(name, **({"id2label": {0: "a", 1: "b", 2: "c"}} if "labels" in facts else {}))
    reference.save_pretrained(tmp_path)

    program = capture(tmp_path)

    assert (program.task, program.outputs) == (task, outputs)
    assert {key: program.info.get(key) for key in ("labels", "causal")} == {
        "labels": None, "causal": None, **facts,
    }  # fmt: skip
    assert program.info["pad_token_id"] == 0
    check(program, reference)


def test_a_task_may_be_chosen_where_the_checkpoint_has_its_weights(tmp_path):
    model("BertForMaskedLM").save_pretrained(tmp_path)
    program = capture(tmp_path, task="features")
    assert program.task == "features"
    sentence = refusal(tmp_path, task="sequence-classification")
    assert "has no bert.pooler.dense.bias, bert.pooler.dense.weight, classifier.bias and 1 more" in sentence
    assert "another task" in sentence
    assert "has no modules.json" in refusal(tmp_path, task="embedding")


def test_attention_is_spelled_as_asked(saved):
    eager, sdpa = capture(saved, attn="eager"), capture(saved, attn="sdpa")
    assert [sum(v.op == op for v in view(eager)) for op in ("sdpa", "softmax")] == [0, 1]
    assert [sum(v.op == op for v in view(sdpa)) for op in ("sdpa", "softmax")] == [1, 0]


class Malice:
    """Pickled, it creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize("form", ["zip", "pickle"])
def test_a_pickle_with_code_in_it_is_refused_and_does_not_run(saved, tmp_path, form):
    trace = tmp_path / "ran"
    weights = load_file(saved / "model.safetensors")
    (saved / "model.safetensors").unlink()
    evil = {**weights, "extra": Malice(trace)}
    if form == "zip":
        torch.save(evil, saved / "pytorch_model.bin")
    else:
        (saved / "pytorch_model.bin").write_bytes(pickle.dumps(evil))
    assert refusal(saved) == f"'{saved}' holds a pickle that would run code: give model.safetensors."
    assert not trace.exists()


def test_remote_code_is_never_run(saved, tmp_path):
    trace = tmp_path / "ran"
    (saved / "modeling_evil.py").write_text(f"open({str(trace)!r}, 'w')\n")
    edit(saved, auto_map={"AutoModel": "modeling_evil.Evil"})
    check(capture(saved), model("BertModel"))  # transformers' own class of that model_type
    edit(saved, model_type="evil")
    assert "brings its own code (auto_map in config.json): never run" in refusal(saved)
    assert not trace.exists()


def test_what_a_directory_lacks_is_named(saved, tmp_path):
    assert refusal(tmp_path / "nowhere") == f"there is no '{tmp_path / 'nowhere'}'."
    (tmp_path / "empty").mkdir()
    assert "holds no config.json" in refusal(tmp_path / "empty")
    (tmp_path / "notes.txt").write_text("no model")
    assert "give a directory, an .onnx file or a .pt2 file" in refusal(tmp_path / "notes.txt")
    (saved / "model.safetensors").unlink()
    assert f"'{saved}' holds no weights" in refusal(saved)


@pytest.mark.parametrize("left", [0, 5, 2000])
def test_truncated_safetensors_are_called_so(saved, left):
    path = saved / "model.safetensors"
    path.write_bytes(path.read_bytes()[:left])
    assert f"'{path}' is truncated or no safetensors file" in refusal(saved)


def test_shards_are_all_there_and_inside_the_directory(tmp_path):
    model("BertModel").save_pretrained(tmp_path / "m", max_shard_size="5KB")
    (tmp_path / "m" / "model-00002-of-00004.safetensors").rename(tmp_path / "stolen.safetensors")
    assert "model-00002-of-00004.safetensors, which is not there" in refusal(tmp_path / "m")
    path = tmp_path / "m" / "model.safetensors.index.json"
    path.write_text(path.read_text().replace("model-00002-of-00004", "../stolen"))
    assert "stolen.safetensors, which is not there" in refusal(tmp_path / "m")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            {"model_type": "nonesuch"},
            "config.json names model_type 'nonesuch', which transformers does not know",
        ),
        ({"model_type": None, "architectures": None}, "say what it is (--model-type bert)"),
        ({"architectures": ["NoModel"]}, "the architecture 'NoModel', which transformers does not have"),
        ({"architectures": ["pipeline"]}, "the architecture 'pipeline', which transformers does not have"),
        ({"quantization_config": {"quant_method": "gptq"}}, "is quantized already"),
        (
            {"intermediate_size": 25},
            "'encoder.layer.0.intermediate.dense.bias' of shape (24,); its config.json asks for (25,)",
        ),
        ({"num_hidden_layers": 2}, "the checkpoint has no encoder.layer.1"),
        ({"hidden_act": "nonesuch"}, "cannot be loaded"),
        (
            {"hidden_size": "wide"},
            "cannot be loaded: its config.json gives hidden_size as 'wide', and int is meant",
        ),
    ],
)
def test_a_configuration_that_does_not_fit_is_refused(saved, change, sentence):
    edit(saved, **change)
    assert sentence in refusal(saved)


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "\0"])
def test_a_configuration_that_is_no_object_is_refused(saved, content):
    (saved / "config.json").write_text(content)
    assert str(saved / "config.json") in refusal(saved)


def test_nan_weights_are_named(saved):
    weights = load_file(saved / "model.safetensors")
    weights["encoder.layer.0.output.dense.weight"][3, 3] = float("nan")
    save_file(weights, saved / "model.safetensors", {"format": "pt"})
    assert "'encoder.layer.0.output.dense.weight' holds NaN" in refusal(saved)


@pytest.mark.parametrize("file", ["tokenizer.json", "tokenizer_config.json"])
def test_a_broken_tokenizer_is_named(saved, file):
    (saved / "tokenizer.json").write_text("{}")
    (saved / "tokenizer_config.json").write_text('{"pad_token": "[PAD]"}')
    (saved / file).write_text('{"version')
    assert file in refusal(saved)


def test_a_padding_token_that_is_no_text_is_named(saved):
    Tokenizer(models.WordLevel({"w": 0}, unk_token="w")).save(str(saved / "tokenizer.json"))
    (saved / "tokenizer_config.json").write_text('{"pad_token": true}')
    assert "give pad_token as True: a text is meant" in refusal(saved)


@pytest.mark.parametrize(
    ("holds", "mend"), [("model.onnx", "or its graph, .*model.onnx"), ("model.so", "which it names")]
)
def test_a_bundle_is_called_one(tmp_path, holds, mend):
    for name in ("manifest.json", holds):
        (tmp_path / name).write_text("{}")
    with pytest.raises(CaptureError, match=f"is a bundle that optimize wrote: give the model .*{mend}"):
        capture(tmp_path)

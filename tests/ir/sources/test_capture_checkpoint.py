"""What a directory holds is merged, used or refused: adapters, second weights, other models' tensors."""

import json
import os
import struct
import time

import pytest
import torch
import transformers
from graphwright.ir.capture import capture
from graphwright.ir.errors import CaptureError
from graphwright.ir.sources.config import check_sizes
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models

TOLERANCE = 1e-5
BERT = {
    "vocab_size": 61, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
    "intermediate_size": 24, "max_position_embeddings": 32, "initializer_range": 0.5,
}  # fmt: skip
QUERY = "encoder.layer.1.attention.self.query"


@pytest.fixture(scope="module")
def reference():
    torch.manual_seed(0)
    return transformers.BertModel(transformers.BertConfig(**BERT)).eval()


@pytest.fixture
def saved(reference, tmp_path):
    reference.save_pretrained(tmp_path / "m")
    return tmp_path / "m"


def edit(directory, **changes):
    path = directory / "config.json"
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in config.items() if v is not None}))


def refusal(source, **options) -> str:
    before = time.perf_counter()
    with pytest.raises(CaptureError) as refused:
        capture(source, **options)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 600
    assert time.perf_counter() - before < 60, "refused, but not before all the work"
    return str(refused.value)


def agrees(program, module):
    """At a size that the capture has not seen, the graph gives what the module gives."""
    ids = torch.randint(1, 60, (2, 9), generator=torch.Generator().manual_seed(1))
    feed = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    feed |= {spec.name: torch.zeros_like(ids) for spec in program.inputs if spec.name == "token_type_ids"}
    with torch.no_grad():
        wanted = module(**feed)[0]
        got = program.graph(*(feed[spec.name] for spec in program.inputs))[0]
    torch.testing.assert_close(got, wanted, atol=TOLERANCE, rtol=TOLERANCE)


def adapt(directory, tensors, **config):
    save_file(
        {f"base_model.model.{k}": v for k, v in tensors.items()}, directory / "adapter_model.safetensors"
    )
    settings = {
        "peft_type": "LORA",
        "r": 3,
        "lora_alpha": 5,
        "base_model_name_or_path": "acme/bert",
        **config,
    }
    (directory / "adapter_config.json").write_text(json.dumps(settings))


def pair(path, inside, outside, rank=3, seed=1, kind=""):
    torch.manual_seed(seed)
    return {
        f"{path}.lora_{kind}A{'' if kind else '.weight'}": torch.randn(rank, inside),
        f"{path}.lora_{kind}B{'' if kind else '.weight'}": torch.randn(outside, rank),
    }


@pytest.mark.parametrize(
    ("settings", "scale"),
    [
        ({}, 5 / 3),
        ({"use_rslora": True}, 5 / 3**0.5),
        ({"alpha_pattern": {"self.query": 7}}, 7 / 3),
        ({"alpha_pattern": {"other": 7}}, 5 / 3),
    ],
)
def test_a_lora_adapter_computes_as_its_branch_beside_the_layer(saved, settings, scale):
    tensors = pair(QUERY, 16, 16)
    adapt(saved, tensors, **settings)
    a, b = tensors.values()
    module = transformers.BertModel.from_pretrained(saved, add_pooling_layer=False).eval()
    module.get_submodule(QUERY).register_forward_hook(lambda _, x, y: y + scale * (x[0] @ a.T) @ b.T)
    agrees(capture(saved), module)


def test_linear_layers_stored_the_other_way_round_and_tables_are_merged_too(tmp_path):
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=61, n_embd=16, n_layer=1, n_head=2, n_positions=32, bos_token_id=1, eos_token_id=2,
        initializer_range=0.5,
    )  # fmt: skip
    transformers.GPT2LMHeadModel(config).save_pretrained(tmp_path)
    layer, table = "transformer.h.0.attn.c_attn", "transformer.wte"
    tensors = pair(layer, 16, 48) | pair(table, 61, 16, seed=2, kind="embedding_")
    adapt(tmp_path, tensors, fan_in_fan_out=True)
    a, b, c, d = tensors.values()
    module = transformers.GPT2LMHeadModel.from_pretrained(tmp_path).eval()
    module.get_submodule(layer).register_forward_hook(lambda _, x, y: y + 5 / 3 * (x[0] @ a.T) @ b.T)
    module.get_submodule(table).register_forward_hook(lambda _, x, y: y + 5 / 3 * c.T[x[0]] @ d.T)
    agrees(capture(tmp_path), module)  # the head, tied to the table, stays as it was


def test_modules_saved_whole_and_biases_replace_the_models_own(saved):
    changed = {f"{QUERY}.bias": torch.randn(16), "embeddings.LayerNorm.weight": torch.rand(16)}
    adapt(saved, pair(QUERY, 16, 16) | changed, bias="lora_only", modules_to_save=["LayerNorm"], lora_alpha=0)
    module = transformers.BertModel.from_pretrained(saved, add_pooling_layer=False).eval()
    module.load_state_dict(changed, strict=False)
    agrees(capture(saved), module)


def test_a_head_that_only_the_adapter_holds_is_no_missing_head(saved):
    edit(saved, architectures=["BertForTokenClassification"], id2label={"0": "a", "1": "b", "2": "c"})
    head = {"classifier.weight": torch.randn(3, 16), "classifier.bias": torch.randn(3)}
    assert "the checkpoint has no classifier" in refusal(saved)
    adapt(saved, pair(f"bert.{QUERY}", 16, 16) | head, lora_alpha=0, modules_to_save=["classifier"])
    module = transformers.BertForTokenClassification.from_pretrained(saved).eval()
    module.load_state_dict(head, strict=False)
    agrees(capture(saved), module)


@pytest.mark.parametrize(
    ("tensors", "config", "sentence"),
    [
        (pair(QUERY, 16, 16), {"peft_type": "IA3"}, "an adapter of kind IA3"),
        (pair(QUERY, 16, 16), {"peft_type": "PREFIX_TUNING"}, "an adapter of kind PREFIX_TUNING"),
        (pair(QUERY, 16, 16), {"peft_type": None}, "an adapter that is not PEFT's"),
        (pair(QUERY, 16, 16), {"use_dora": True}, "with use_dora: plain LoRA alone is merged"),
        (pair(QUERY, 16, 16), {"init_lora_weights": "pissa"}, "init_lora_weights 'pissa'"),
        (
            pair(QUERY, 16, 16) | {f"{QUERY}.lora_magnitude_vector": torch.ones(16)},
            {},
            "lora_magnitude_vector",
        ),
        (pair(QUERY, 16, 16) | {"nonesuch.weight": torch.ones(16)}, {}, "'nonesuch', which BertModel lacks"),
        (pair("encoder.layer.7.attention.self.query", 16, 16), {}, "'encoder.layer.7.attention.self.query'"),
        (pair(QUERY, 12, 16), {}, "by (16, 12), and its weight is (16, 16)"),
        (pair("embeddings.LayerNorm", 16, 16), {}, "a LayerNorm: linear layers and tables alone"),
        ({f"{QUERY}.lora_A.weight": torch.ones(3, 16)}, {}, "are not A (r, in) and B (out, r)"),
        (pair(QUERY, 16, 16), {"lora_alpha": "much"}, "lora_alpha as 'much'"),
    ],
)
def test_an_adapter_that_is_not_plain_or_does_not_fit_is_refused_by_name(saved, tensors, config, sentence):
    adapt(saved, tensors, **config)
    assert sentence in refusal(saved)


def test_an_adapter_without_its_model_says_which_it_wants(tmp_path, saved):
    (tmp_path / "a").mkdir()
    adapt(tmp_path / "a", pair(QUERY, 16, 16))
    assert "is an adapter alone: merge it into the model 'acme/bert'" in refusal(tmp_path / "a")
    adapt(saved, pair(QUERY, 16, 16))
    (saved / "adapter_model.safetensors").unlink()
    assert "holds adapter_config.json and no adapter_model.safetensors" in refusal(saved)


def test_a_second_set_of_weights_is_taken_for_what_it_is(saved, reference):
    weights = load_file(saved / "model.safetensors")
    torch.save({k: v.bfloat16() for k, v in weights.items()}, saved / "pytorch_model.bin")
    agrees(capture(saved), reference)  # the same in the older form, rounded
    torch.save(
        weights | {"embeddings.word_embeddings.weight": torch.ones(61, 16)}, saved / "pytorch_model.bin"
    )
    assert "holds model.safetensors and pytorch_model.bin, which differ" in refusal(saved)
    (saved / "pytorch_model.bin").unlink()
    save_file({"x": torch.ones(2)}, saved / "model-00001-of-00001.safetensors")
    assert "holds model.safetensors and model-00001-of-00001.safetensors, which differ" in refusal(saved)
    (saved / "model.safetensors").unlink()
    assert "is named by no model.safetensors.index.json" in refusal(saved)


def test_a_file_and_shards_of_the_same_weights_are_one_model(tmp_path, reference):
    reference.save_pretrained(tmp_path, max_shard_size="5KB")
    save_file(reference.state_dict(), tmp_path / "model.safetensors", {"format": "pt"})
    agrees(capture(tmp_path), reference)


@pytest.mark.parametrize(
    "name",
    [
        f"{QUERY}.lora_A.weight", f"{QUERY}.scale", "encoder.layer.2.output.dense.bias",
        "encoder.layer.0.adapter.down.weight", "bert.encoder.layer.0.adapter.down.weight",
    ],
)  # fmt: skip
def test_a_tensor_that_belongs_into_a_layer_is_not_left_out(saved, name):
    weights = load_file(saved / "model.safetensors") | {name: torch.ones(4, 4)}
    save_file(weights, saved / "model.safetensors", {"format": "pt"})
    assert f"holds '{name}', which the model of its config.json has no place for" in refusal(saved)


def test_a_layer_that_the_configuration_does_not_count_is_not_dropped(saved):
    edit(saved, num_hidden_layers=1)
    assert "holds 'encoder.layer.1." in refusal(saved)


def test_heads_for_other_tasks_are_left_and_named(tmp_path):
    torch.manual_seed(0)
    transformers.BertForPreTraining(transformers.BertConfig(**BERT)).save_pretrained(tmp_path)
    edit(tmp_path, architectures=["BertModel"])
    info = capture(tmp_path).info
    unused = info["unused_weights"]
    assert info["notes"] == ["the checkpoint also holds cls, which this model doesn't use."]
    assert {name.partition(".")[0] for name in unused if "pooler" not in name} == {"cls"}


def retyped(path, name, dtype):
    """Writes another type into a safetensors header, over the same bytes."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    header[name]["dtype"] = dtype
    new = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(new)) + new + data[8 + length :])


@pytest.mark.parametrize("dtype", ["I32", "U32"])
def test_integers_in_place_of_weights_are_refused(saved, dtype):
    retyped(saved / "model.safetensors", f"{QUERY}.weight", dtype)
    assert f"holds '{QUERY}.weight' as {dtype}: a weight is made of floats" in refusal(saved)


def test_a_tokenizer_that_gives_ids_beyond_the_table_is_refused(saved):
    for size, extra in ((61, []), (60, ["[PAD]"])):
        words = {f"w{i}": i for i in range(size)}
        tokenizer = Tokenizer(models.WordLevel(words, unk_token="w0"))
        tokenizer.add_special_tokens(extra)
        tokenizer.save(str(saved / "tokenizer.json"))
        capture(saved)
    tokenizer.add_tokens(["[NEW]"])
    tokenizer.save(str(saved / "tokenizer.json"))
    assert "gives '[NEW]' the id 61, and the model's table has 61 rows" in refusal(saved)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"num_attention_heads": 0}, "num_attention_heads as 0"),
        ({"hidden_size": 0}, "hidden_size as 0"),
        ({"vocab_size": 0}, "vocab_size as 0"),
        ({"num_hidden_layers": -1}, "num_hidden_layers as -1"),
        ({"num_attention_heads": -2}, "num_attention_heads as -2"),
        ({"num_hidden_layers": 10**6}, "num_hidden_layers as 1000000, and the checkpoint holds"),
        ({"num_hidden_layers": 10**30}, "num_hidden_layers as 1000000000000000000000000000000"),
        ({"num_labels": 10**9}, "num_labels as 1000000000: at most"),
        ({"max_position_embeddings": 10**10}, "max_position_embeddings as 10000000000: at most"),
        ({"vocab_size": 10**9}, "it belongs to another model"),
        ({"intermediate_size": 10**9}, "it belongs to another model"),
        ({"architectures": 7}, "architectures as 7"),
        ({"architectures": [7]}, "architectures as [7]"),
        ({"architectures": "BertModel"}, 'architectures as "BertModel"'),
        ({"architectures": {"a": 1}}, "architectures as"),
        ({"id2label": {"one": "x"}}, "id2label"),
        ({"id2label": ["x"]}, "id2label"),
        ({"model_type": ["bert"]}, "model_type ['bert']"),
        ({"hidden_act": 7}, "gives hidden_act as 7, and str is meant"),
        ({"hidden_act": "glue"}, "gives hidden_act as 'glue', which transformers does not know"),
        ({"hidden_size": "wide" * 10_000}, "widewidewide..., and int is meant"),
        ({"layer_norm_eps": "small"}, "gives layer_norm_eps as 'small', and float is meant"),
        ({"pad_token_id": "x"}, "gives pad_token_id as 'x', and int, NoneType is meant"),
        ({"eos_token_id": 0.5}, "gives eos_token_id as 0.5, and int, list, NoneType is meant"),
        ({"dtype": "float31"}, 'gives dtype as "float31": the name of a type is meant'),
        ({"torch_dtype": {"a": 1}}, 'gives torch_dtype as {"a": 1}: the name of a type is meant'),
        ({"transformers_weights": "other.safetensors"}, "names other weights"),
    ],
)
def test_sizes_and_names_that_no_model_has_are_refused_before_any_work(saved, change, sentence):
    edit(saved, **change)
    assert sentence in refusal(saved)


def test_what_a_model_may_be_without_may_have_a_size_of_zero():
    """DeBERTa's type_vocab_size is 0."""
    check_sizes({"type_vocab_size": 0, "additional_vocab_size": 0, "text": {"speaker_embedding_size": 0}}, 9)
    with pytest.raises(CaptureError, match="type_vocab_size as -1: a size is at least 0"):
        check_sizes({"type_vocab_size": -1}, 9)


@pytest.mark.slow
def test_no_configuration_that_transformers_makes_is_refused_for_its_sizes(caplog):
    made = 0
    for kind in transformers.CONFIG_MAPPING:
        try:
            config = transformers.CONFIG_MAPPING[kind]().to_dict()
        except Exception:  # of composite models, which have no defaults
            continue
        check_sizes(config, 10**6)
        made += 1
    assert made > 300


@pytest.mark.parametrize("depth", [40, 500, 100_000])
def test_deep_nesting_is_called_so(saved, depth):
    (saved / "config.json").write_text('{"model_type": "bert", "x": ' + "[" * depth + "]" * depth + "}")
    assert "nested" in refusal(saved)


@pytest.mark.parametrize("content", ["[]", '{"weight_map": []}', '{"weight_map": {"a": 7}}', "{}", "null"])
def test_an_index_without_a_map_is_refused(saved, content):
    (saved / "model.safetensors").unlink()
    (saved / "model.safetensors.index.json").write_text(content)
    assert "model.safetensors.index.json" in refusal(saved)


@pytest.mark.parametrize(
    "name",
    [
        "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "adapter_config.json",
        "modules.json",
    ],
)  # fmt: skip
def test_a_pipe_is_not_waited_for(saved, name):
    (saved / name).unlink(missing_ok=True)
    os.mkfifo(saved / name)
    assert "is not a regular file" in refusal(saved)


def test_a_checkpoint_of_2019_is_read_by_its_class_or_by_its_tensors(tmp_path):
    torch.manual_seed(0)
    whole = transformers.BertForMaskedLM(transformers.BertConfig(**BERT)).eval()
    whole.save_pretrained(tmp_path)
    old = {key: value for key, value in BERT.items() if key != "initializer_range"}
    (tmp_path / "config.json").write_text(json.dumps({**old, "architectures": ["BertForMaskedLM"]}))
    program = capture(tmp_path)
    assert (program.task, program.info["model_type"]) == ("masked-lm", "bert")
    agrees(program, whole)
    (tmp_path / "config.json").write_text(json.dumps(old))
    agrees(capture(tmp_path), whole.bert)  # by "bert." in the tensors' names


def test_where_nothing_tells_the_model_a_person_can(saved, reference):
    edit(saved, model_type=None, architectures=None)
    assert "say what it is (--model-type bert)" in refusal(saved)
    agrees(capture(saved, model_type="bert"), reference)
    assert "transformers has no model type 'brt'; did you mean" in refusal(saved, model_type="brt")
    edit(saved, model_type="bert")
    assert "is a bert, not a roberta" in refusal(saved, model_type="roberta")

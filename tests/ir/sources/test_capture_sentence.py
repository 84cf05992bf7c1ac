"""Capturing sentence-transformers directories: the graph gives what SentenceTransformer.encode gives."""

import json

import numpy as np
import pytest
import torch
from graphwright.ir.capture import capture
from graphwright.ir.errors import CaptureError
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors

TOLERANCE = 1e-5
WIDTH = 16
WORDS = "[PAD] [UNK] [CLS] [SEP] a cat sits on the red mat and plays".split()
TEXTS = ["a cat", "the red cat sits on the mat and plays", "mat", "plays on and on and on"]
NN = "torch.nn.modules.activation."
NAME = "sentence_transformers.models."


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A random BERT with a tokenizer, mean pooling and nothing else."""
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("sentence")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS), hidden_size=WIDTH, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=24, max_position_embeddings=32, initializer_range=0.5,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]").save_pretrained(folder)
    write(folder, "sentence_bert_config.json", {"max_seq_length": 24, "do_lower_case": False})
    return folder


def write(folder, name, content):
    (folder / name).parent.mkdir(exist_ok=True, parents=True)
    (folder / name).write_text(json.dumps(content))


def build(base, tmp_path, pooling, *modules):
    """A directory of the base and modules after its pooling: (type, config, weights or None)."""
    folder = tmp_path / "m"
    folder.mkdir()
    for file in base.iterdir():
        (folder / file.name).symlink_to(file)
    listed = [("Transformer", ""), ("Pooling", "1_Pooling")]
    write(folder, "1_Pooling/config.json", {"word_embedding_dimension": WIDTH, **pooling})
    for number, (kind, config, weights) in enumerate(modules, 2):
        path = f"{number}_{kind}"
        write(folder, f"{path}/config.json", config)
        if weights:
            save_file(weights, folder / path / "model.safetensors")
        listed.append((kind, path))
    write(folder, "modules.json", [{"idx": i, "name": str(i), "path": p, "type": NAME + k}
                                   for i, (k, p) in enumerate(listed)])  # fmt: skip
    return folder


def embed(program, texts):
    """Runs the graph on tokenized texts, padded to the longest."""
    tokenizer = Tokenizer.from_str(program.tokenizer["tokenizer.json"].decode())
    tokenizer.enable_padding(pad_id=program.info["pad_token_id"])
    rows = tokenizer.encode_batch(texts)
    fields = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}
    feed = [torch.tensor([getattr(row, fields[spec.name]) for row in rows]) for spec in program.inputs]
    with torch.no_grad():
        (result,) = program.graph(*feed)
    return result.numpy()


def dense(outside, **more):
    torch.manual_seed(1)
    config = {
        "in_features": WIDTH, "out_features": outside, "bias": True,
        "activation_function": NN + "Tanh", **more,
    }  # fmt: skip
    return (
        "Dense",
        config,
        {"linear.weight": torch.randn(outside, WIDTH), "linear.bias": torch.randn(outside)},
    )


FIRST = {"type": NAME + "Transformer", "path": ""}
NORMALIZE = ("Normalize", {}, None)
MEAN = {"pooling_mode_mean_tokens": True}


@pytest.mark.parametrize(
    ("pooling", "modules", "width"),
    [
        (MEAN, [NORMALIZE], WIDTH),
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, [], WIDTH),
        ({"pooling_mode_max_tokens": True, "pooling_mode_mean_tokens": False}, [NORMALIZE], WIDTH),
        ({"pooling_mode_mean_sqrt_len_tokens": True, "pooling_mode_mean_tokens": False}, [], WIDTH),
        ({"pooling_mode_weightedmean_tokens": True, "pooling_mode_mean_tokens": False}, [], WIDTH),
        ({"pooling_mode_lasttoken": True, "pooling_mode_mean_tokens": False}, [], WIDTH),
        ({"pooling_mode_cls_token": True, **MEAN}, [NORMALIZE], 2 * WIDTH),
        ({"pooling_mode": "max"}, [], WIDTH),
        (MEAN, [dense(10), NORMALIZE], 10),
        (MEAN, [("LayerNorm", {"dimension": WIDTH}, {"norm.weight": torch.rand(WIDTH),
                                                     "norm.bias": torch.rand(WIDTH)})], WIDTH),
    ],
)  # fmt: skip
def test_the_graph_gives_what_sentence_transformers_gives(base, tmp_path, pooling, modules, width):
    from sentence_transformers import SentenceTransformer

    folder = build(base, tmp_path, pooling, *modules)
    wanted = SentenceTransformer(str(folder), device="cpu").encode(TEXTS, convert_to_numpy=True)

    program = capture(folder)

    assert (program.task, program.outputs) == ("embedding", ("sentence_embedding",))
    got = embed(program, TEXTS)
    assert got.shape == wanted.shape == (len(TEXTS), width)
    np.testing.assert_allclose(got, wanted, atol=TOLERANCE)
    np.testing.assert_allclose(embed(program, TEXTS[:1]), wanted[:1], atol=TOLERANCE)


def test_limits_prompts_and_similarity_are_recorded(base, tmp_path):
    folder = build(base, tmp_path, MEAN)
    config = {"prompts": {"query": "a cat", "text": ""}, "default_prompt_name": "query",
              "similarity_fn_name": "cosine"}  # fmt: skip
    write(folder, "config_sentence_transformers.json", config)
    program = capture(folder)
    assert program.symbols["length"] == (1, 32)
    expected = {"max_length": 24, "pad_token_id": 0, "similarity": "cosine", "prompt": "a cat"}
    assert {key: program.info[key] for key in expected} == expected
    assert program.info["prompts"] == config["prompts"]


def test_another_task_takes_the_encoder_alone(base, tmp_path):
    program = capture(build(base, tmp_path, MEAN), task="features")
    assert (program.task, program.outputs) == ("features", ("last_hidden_state",))


def refusal(folder) -> str:
    with pytest.raises(CaptureError) as refused:
        capture(folder)
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize(
    ("pooling", "modules", "sentence"),
    [
        ({"pooling_mode": "median"}, [], "the pooling mode 'median' is none of cls, max, mean"),
        (MEAN, [("WordWeights", {}, None)], "lists a WordWeights after the pooling, which is not supported"),
        (
            MEAN,
            [dense(4, activation_function="os.system")],
            "the activation os.system, which is none of torch",
        ),
        (MEAN, [dense(4, activation_function="torch.nn.modules.activation.nn")], "none of torch.nn's"),
        (
            MEAN,
            [dense(4, activation_function="torch.nn.modules.activation.MultiheadAttention")],
            "MultiheadAtt",
        ),
        (MEAN, [dense(4, out_features=5)], "its config.json asks for [5, 16]"),
        (MEAN, [dense(4, out_features=10**12)], "its config.json asks for [1000000000000, 16]"),
        (MEAN, [dense(4, out_features="4")], "its config.json asks for ['4', 16]"),
        (MEAN, [dense(4, activation_function=7)], "asks for the activation 7, which is none"),
        (MEAN, [(*dense(4)[:2], None)], "does not hold a Dense"),
    ],
)
def test_what_is_not_supported_or_broken_is_named(base, tmp_path, pooling, modules, sentence):
    assert sentence in refusal(build(base, tmp_path, pooling, *modules))


@pytest.mark.parametrize(
    ("modules", "sentence"),
    [
        (
            [{"type": NAME + "Transformer", "path": ""}],
            "is made of Transformer: a Transformer and its Pooling",
        ),
        (
            [{"type": NAME + "Transformer", "path": ""}, {"type": NAME + "Pooling", "path": "../x"}],
            "outside of",
        ),
        ([{"type": 3, "path": ""}], "is not a list of modules"),
        ({"a": 1}, "is not a list of modules"),
        ([], "is made of nothing"),
    ],
)
def test_modules_json_is_checked(base, tmp_path, modules, sentence):
    folder = build(base, tmp_path, MEAN)
    write(folder, "modules.json", modules)
    assert sentence in refusal(folder)


def test_a_pickled_dense_layer_with_code_in_it_does_not_run(base, tmp_path):
    trace = tmp_path / "ran"

    class Malice:
        def __reduce__(self):
            return (open, (str(trace), "w"))

    kind, config, weights = dense(4)
    folder = build(base, tmp_path, MEAN, (kind, config, None))
    torch.save(weights, folder / "2_Dense" / "pytorch_model.bin")
    assert capture(folder).outputs == ("sentence_embedding",)
    torch.save({**weights, "x": Malice()}, folder / "2_Dense" / "pytorch_model.bin")
    assert "2_Dense' holds a pickle that would run code: give model.safetensors." in refusal(folder)
    assert not trace.exists()


def test_vectors_are_cut_to_the_width_that_the_directory_asks_for(base, tmp_path):
    from sentence_transformers import SentenceTransformer

    folder = build(base, tmp_path, MEAN, NORMALIZE)
    write(folder, "config_sentence_transformers.json", {"truncate_dim": 6})
    wanted = SentenceTransformer(str(folder), device="cpu").encode(TEXTS, convert_to_numpy=True)
    got = embed(capture(folder), TEXTS)
    assert got.shape == wanted.shape == (len(TEXTS), 6)
    np.testing.assert_allclose(got, wanted, atol=TOLERANCE)


def test_an_encoder_whose_configuration_records_a_head_is_taken_without_it(base, tmp_path):
    folder = build(base, tmp_path, MEAN)
    plain = embed(capture(folder), TEXTS)
    config = json.loads((folder / "config.json").read_text()) | {"architectures": ["BertForMaskedLM"]}
    (folder / "config.json").unlink()  # a link to the base's
    write(folder, "config.json", config)
    np.testing.assert_array_equal(embed(capture(folder), TEXTS), plain)


@pytest.mark.parametrize(
    ("pooling", "modules", "files", "sentence"),
    [
        (MEAN, [("Normalize", {"module_input_name": "token_embeddings"}, None)], {}, "module_input_name"),
        (MEAN, [dense(4, module_output_name="other")], {}, "module_output_name to 'other'"),
        (MEAN, [], {"sentence_bert_config.json": {"transformer_task": "fill-mask"}}, "transformer_task"),
        (MEAN, [], {"sentence_bert_config.json": {"max_seq_length": "long"}}, "max_seq_length as 'long'"),
        (MEAN, [], {"config_sentence_transformers.json": {"truncate_dim": 0}}, "truncate_dim as 0"),
        (
            {**MEAN, "include_prompt": False}, [],
            {"config_sentence_transformers.json": {"prompts": {"q": "a cat"}, "default_prompt_name": "q"}},
            "leaves its default prompt out of the pooling",
        ),
        (MEAN, [("WeightedLayerPooling", {}, None)], {}, "lists a WeightedLayerPooling"),
    ],
)  # fmt: skip
def test_settings_that_change_what_is_computed_are_not_ignored(
    base, tmp_path, pooling, modules, files, sentence
):
    folder = build(base, tmp_path, pooling, *modules)
    for name, content in files.items():
        (folder / name).unlink(missing_ok=True)
        write(folder, name, content)
    assert sentence in refusal(folder)


@pytest.mark.parametrize("kind", ["custom_st.Transformer", "graphwright.sentence_transformers.Pooling"])
def test_a_module_of_the_models_own_code_is_refused_whatever_it_is_called(base, tmp_path, kind):
    folder = build(base, tmp_path, MEAN)
    listed = json.loads((folder / "modules.json").read_text())
    listed[0]["type"] = kind
    write(folder, "modules.json", listed)
    assert f"lists {kind}, which is the model's own code: never run here." in refusal(folder)


def test_an_adapter_in_the_transformers_folder_is_merged(base, tmp_path):
    folder = build(base, tmp_path, MEAN)
    before = embed(capture(folder), TEXTS)
    layer = "base_model.model.encoder.layer.0.output.dense"
    torch.manual_seed(2)
    save_file({f"{layer}.lora_A.weight": torch.randn(2, 24), f"{layer}.lora_B.weight": torch.randn(WIDTH, 2)},
              folder / "adapter_model.safetensors")  # fmt: skip
    write(folder, "adapter_config.json", {"peft_type": "LORA", "r": 2, "lora_alpha": 0})
    np.testing.assert_array_equal(embed(capture(folder), TEXTS), before)
    write(folder, "adapter_config.json", {"peft_type": "LORA", "r": 2, "lora_alpha": 4})
    assert np.abs(embed(capture(folder), TEXTS) - before).max() > 0.01

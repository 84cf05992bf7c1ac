"""A directory's inputs are those that its configuration and its processor describe, and sizes are told."""

import json

import pytest
import torch
import transformers
from graphwright.ir.capture import capture
from graphwright.ir.errors import CaptureError
from graphwright.ir.sources.examples import example_inputs
from graphwright.ir.sources.hf import of_padding
from graphwright.ir.sources.inputs import Example
from graphwright.ir.sources.processor import processor

TEXT = {
    "vocab_size": 61, "hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2,
    "intermediate_size": 24, "max_position_embeddings": 32,
}  # fmt: skip
IMAGE = {
    "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24,
    "image_size": 32, "patch_size": 8,
}  # fmt: skip
SOUND = {
    "vocab_size": 30, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
    "intermediate_size": 24, "conv_dim": (8, 8), "conv_kernel": (10, 3), "conv_stride": (5, 2),
    "num_feat_extract_layers": 2, "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2,
}  # fmt: skip
SEQ2SEQ = {
    "vocab_size": 59, "d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24,
    "max_position_embeddings": 32, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip


def make(name, **settings):
    torch.manual_seed(0)
    maker = getattr(transformers, name)
    return maker(maker.config_class(**settings)).eval()


def described(tmp_path, **settings):
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    return tmp_path


def shapes(model, directory):
    example = example_inputs(model, directory)
    return {name: tuple(tensor.shape) for name, tensor in example.tensors.items()}, example.axes


def detector():
    backbone = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 8, 8, 16], depths=[1, 1, 1, 1], out_features=["stage4"]
    )
    return make(
        "DetrForObjectDetection", use_timm_backbone=False, use_pretrained_backbone=False, backbone=None,
        backbone_config=backbone, d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=24, decoder_ffn_dim=24, num_queries=5,
    )  # fmt: skip


def reader(kind):
    """TrOCR (a vision transformer) or Donut (windows, an oblong image) before a text decoder."""
    decoder = {**SEQ2SEQ, "is_decoder": True, "add_cross_attention": True}
    if kind == "trocr":
        parts = (
            transformers.ViTConfig(**IMAGE),
            transformers.TrOCRConfig(**decoder, cross_attention_hidden_size=16),
        )
    else:
        windows = transformers.DonutSwinConfig(
            image_size=[48, 32], patch_size=4, embed_dim=8, depths=[1, 1], num_heads=[1, 2], window_size=2
        )
        parts = windows, transformers.MBartConfig(**decoder)
    config = transformers.VisionEncoderDecoderConfig.from_encoder_decoder_configs(*parts)
    torch.manual_seed(0)
    return transformers.VisionEncoderDecoderModel(config).eval()


def test_boxes_are_an_input_and_their_corners_are_in_order(tmp_path):
    model = make("LayoutLMModel", **TEXT, max_2d_position_embeddings=50)
    example = example_inputs(model, tmp_path)
    boxes = example.tensors["bbox"]
    assert boxes.shape == (3, 11, 4)
    assert example.axes["bbox"] == ("batch", "length", 4)
    assert (boxes[..., 2:] >= boxes[..., :2]).all()
    assert 0 <= int(boxes.min()) < int(boxes.max()) < 50
    model.save_pretrained(tmp_path)
    program = capture(tmp_path)
    assert "bbox" in [spec.name for spec in program.inputs]
    feed = {spec.name: example.tensors[spec.name] for spec in program.inputs}
    with torch.no_grad():
        wanted = model(**feed).last_hidden_state
        nowhere = model(**{**feed, "bbox": torch.zeros_like(boxes)}).last_hidden_state
        got = program.graph(*feed.values())[0]
    assert (wanted - nowhere).abs().max() > 0.01, "a test in which boxes say nothing"
    torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-5)


def test_a_document_model_takes_boxes_and_pixels(tmp_path):
    model = make(
        "LayoutLMv3Model", **TEXT, max_2d_position_embeddings=64, coordinate_size=4, shape_size=4,
        input_size=32, patch_size=8, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    found, _ = shapes(model, tmp_path)
    assert {"input_ids", "attention_mask", "bbox", "pixel_values"} <= found.keys()
    assert found["pixel_values"] == (3, 3, 32, 32)


@pytest.mark.parametrize(
    ("name", "more", "settings", "masked"),
    [
        ("Wav2Vec2ForCTC", {}, {"return_attention_mask": False}, False),
        ("HubertForCTC", {}, {}, False),
        ("Wav2Vec2ForCTC", {"feat_extract_norm": "layer", "do_stable_layer_norm": True}, {}, True),
        ("WavLMForCTC", {"num_buckets": 8, "max_bucket_distance": 16}, {"return_attention_mask": True}, True),
    ],
)
def test_samples_and_their_mask_as_the_feature_extractor_makes_them(tmp_path, name, more, settings, masked):
    found, axes = shapes(make(name, **SOUND, **more), described(tmp_path, **settings))
    assert len(found["input_values"]) == 2
    assert axes["input_values"] == ("batch", "length")
    assert ("attention_mask" in found) == masked
    assert not masked or found["attention_mask"] == found["input_values"]


def test_a_spectrogram_has_the_length_of_the_table_that_is_added_to_it(tmp_path):
    model = make(
        "ASTForAudioClassification", hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=24, patch_size=4, frequency_stride=4, time_stride=4, max_length=24, num_mel_bins=8,
    )  # fmt: skip
    model.save_pretrained(tmp_path)
    program = capture(tmp_path)
    assert program.inputs[0].shape == ("batch", 24, 8)
    assert "table of positions" in program.info["sizes"]["reasons"]["input_values.1"]


@pytest.mark.parametrize("file", ["preprocessor_config.json", "processor_config.json"])
def test_images_have_the_size_that_the_processor_makes(tmp_path, file):
    model = make("SegformerForImageClassification", hidden_sizes=[8, 8, 8, 8], depths=[1, 1, 1, 1],
                 num_attention_heads=[1, 1, 1, 1], decoder_hidden_size=8)  # fmt: skip
    settings = {"do_resize": True, "size": {"height": 64, "width": 128}}
    if file == "processor_config.json":
        settings = {"image_processor": settings}
    (tmp_path / file).write_text(json.dumps(settings))
    assert shapes(model, tmp_path)[0] == {"pixel_values": (3, 3, 64, 128)}


@pytest.mark.parametrize(
    ("settings", "size"),
    [
        ({"size": 24}, (24, 24)),
        ({"size": [20, 30]}, (20, 30)),
        ({"size": {"shortest_edge": 40}, "do_center_crop": True, "crop_size": 32}, (32, 32)),
        ({"size": {"shortest_edge": 40}, "do_center_crop": False, "crop_size": 32}, None),
        ({"size": {"shortest_edge": 800, "longest_edge": 1333}}, None),
        ({"size": 24, "do_resize": False}, None),
        ({}, None),
    ],
)
def test_what_a_processor_says_of_an_images_size(tmp_path, settings, size):
    assert processor(described(tmp_path, **settings)).image() == size


@pytest.mark.parametrize("size", [0, -3, 10**9, {"height": "x", "width": 3}, {"height": 3}, [0, 3]])
def test_a_size_that_no_image_has_is_refused(tmp_path, size):
    with pytest.raises(CaptureError, match="no size of an image"):
        processor(described(tmp_path, size=size)).image()


def test_a_detector_takes_images_of_any_size_with_their_mask(tmp_path):
    described(tmp_path, size={"shortest_edge": 800, "longest_edge": 1333})
    found, axes = shapes(detector(), tmp_path)
    assert found["pixel_mask"] == (found["pixel_values"][0], *found["pixel_values"][2:])
    assert axes["pixel_values"] == ("batch", 3, "height", "width")


@pytest.mark.parametrize("kind", ["trocr", "donut"])
def test_a_reader_of_images_takes_pixels_and_the_ids_of_its_decoder(tmp_path, kind):
    found, axes = shapes(reader(kind), tmp_path)
    assert found == {"pixel_values": (3, 3, 48 if kind == "donut" else 32, 32), "decoder_input_ids": (3, 7)}
    assert axes["decoder_input_ids"] == ("batch", "decoder_length")


def test_patches_come_with_a_grid_that_is_part_of_the_graph_and_is_said(tmp_path):
    settings = {**IMAGE, "patch_size": 4, "num_patches": 9}
    del settings["image_size"]
    model = make("Siglip2VisionModel", **settings)
    model.save_pretrained(tmp_path)
    program = capture(tmp_path)
    assert [spec.shape for spec in program.inputs] == [(1, 9, 48), (1, 9)]
    assert "'spatial_shapes' is part of the graph, as [3, 3] for every row." in program.info["notes"]
    patches, mask = torch.randn(1, 9, 48), torch.tensor([[1] * 7 + [0] * 2])
    with torch.no_grad():
        wanted = model(patches, mask, torch.tensor([[3, 3]])).last_hidden_state
        torch.testing.assert_close(program.graph(patches, mask)[0], wanted, atol=1e-5, rtol=1e-5)


def test_a_choice_by_values_is_refused_in_words_and_the_mend_holds(tmp_path, monkeypatch):
    settings = {**TEXT, "max_position_embeddings": 34, "attention_window": [4], "pad_token_id": 1}
    model = make("LongformerModel", **settings)
    model.save_pretrained(tmp_path)
    mend = r"LongformerModel decides by the values in its inputs .*modeling_long.*one branch of an if"
    with pytest.raises(CaptureError, match=mend):
        capture(tmp_path)
    attention = type(model.encoder.layer[0].attention.self)
    forward = attention.forward
    local = lambda self, *args, **kwargs: forward(self, *args, **{**kwargs, "is_global_attn": False})
    monkeypatch.setattr(attention, "forward", local)
    ids = torch.randint(2, settings["vocab_size"], (3, 8))
    program = capture(model, inputs={"input_ids": ids, "attention_mask": torch.ones_like(ids)})
    mask = torch.tensor([[1] * 8, [1] * 5 + [0] * 3, [1] * 2 + [0] * 6])
    with torch.no_grad():
        wanted = model(ids, mask).last_hidden_state
    torch.testing.assert_close(program.graph(ids, mask)[0], wanted, atol=1e-5, rtol=1e-5)


def test_an_input_that_the_model_itself_cannot_take_is_named(tmp_path):
    make("NystromformerModel", **TEXT, num_landmarks=4, segment_means_seq_len=16).save_pretrained(tmp_path)
    with pytest.raises(
        CaptureError, match="'attention_mask' is left out, as the model can't compute with it"
    ):
        capture(tmp_path)


def test_videos_have_frames(tmp_path):
    model = make("VideoMAEModel", **IMAGE, num_frames=4, tubelet_size=2)
    assert shapes(model, tmp_path)[0] == {"pixel_values": (3, 4, 3, 32, 32)}


def test_characters_are_ids_where_there_is_no_table_of_them(tmp_path):
    model = make(
        "CanineModel", hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24,
        max_position_embeddings=64, num_hash_buckets=16, local_transformer_stride=8,
    )  # fmt: skip
    assert set(shapes(model, tmp_path)[0]) == {"input_ids", "attention_mask", "token_type_ids"}


def test_a_decoders_positions_end_where_its_table_does(tmp_path):
    make(
        "WhisperForConditionalGeneration", **{**SEQ2SEQ, "decoder_start_token_id": 1}, num_mel_bins=8,
        max_source_positions=10, max_target_positions=14,
    ).save_pretrained(tmp_path)  # fmt: skip
    program = capture(tmp_path)
    assert program.symbols["decoder_length"] == (1, 14)
    assert {spec.name: spec.shape for spec in program.inputs} == {
        "input_features": ("batch", 8, 20), "decoder_input_ids": ("batch", "decoder_length"),
    }  # fmt: skip


def test_a_buffer_of_positions_that_is_sliced_ends_the_length_too(tmp_path):
    make("FlaubertModel", vocab_size=61, emb_dim=16, n_layers=1, n_heads=2,
         max_position_embeddings=20).save_pretrained(tmp_path)  # fmt: skip
    assert capture(tmp_path).symbols["length"] == (1, 20)


def test_code_that_runs_over_the_tokens_is_traced_at_one_length_and_says_so(tmp_path):
    make("MambaForCausalLM", vocab_size=61, hidden_size=8, num_hidden_layers=1, state_size=4,
         expand=1).save_pretrained(tmp_path)  # fmt: skip
    program = capture(tmp_path)
    assert program.inputs[0].shape == ("batch", 16)
    assert (
        program.info["sizes"]["reasons"]["input_ids.1"]
        == "torch.export can't trace MambaForCausalLM for others"
    )
    assert any(note.startswith("the length is fixed at 16") for note in program.info["notes"])


def test_a_decoder_that_keeps_a_cache_by_its_own_setting_has_a_free_length(tmp_path):
    half = {
        "vocab_size": 61, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
        "num_key_value_heads": 1, "intermediate_size": 24, "head_dim": 8, "sliding_window": 8,
    }  # fmt: skip
    config = transformers.T5GemmaConfig(
        encoder=half, decoder={**half, "cross_attention_hidden_size": 16}, vocab_size=61
    )
    transformers.T5GemmaForConditionalGeneration(config).save_pretrained(tmp_path)
    program = capture(tmp_path)
    shapes = {spec.name: spec.shape for spec in program.inputs}
    assert shapes["decoder_input_ids"] == ("batch", "decoder_length")
    # Its default call, over a cache, hides no padding: findings/transformers-t5gemma-...
    assert any("hides padding tokens where it has no cache" in note for note in program.info["notes"])


def test_nothing_is_said_of_a_cache_that_changes_nothing(tmp_path):
    make("T5Model", vocab_size=61, d_model=16, d_kv=8, d_ff=24, num_layers=1, num_heads=2).save_pretrained(
        tmp_path
    )
    assert not any("cache" in note for note in capture(tmp_path).info.get("notes", ()))


def test_images_that_are_padded_to_windows_are_of_one_size_at_once(tmp_path):
    make("SwinModel", image_size=16, patch_size=2, embed_dim=8, depths=[1, 1], num_heads=[1, 2],
         window_size=4).save_pretrained(tmp_path)  # fmt: skip
    program = capture(tmp_path)
    assert program.inputs[0].shape == ("batch", 3, 16, 16)
    assert program.info["sizes"]["reasons"]["pixel_values.2"] == "config.json states its image_size"


def test_a_broken_description_of_a_processor_is_named(tmp_path):
    make("ViTModel", **IMAGE).save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text("{")
    with pytest.raises(CaptureError, match=r"preprocessor_config\.json' cannot be read"):
        capture(tmp_path)


def test_a_configuration_of_several_texts_says_nothing_of_padding():
    class Config:
        def get_text_config(self, decoder):
            raise ValueError("Multiple valid text configs were found")

    class Model:
        config = Config()

    tensors = {"decoder_input_ids": torch.ones(2, 3, dtype=torch.long)}
    assert of_padding(Model(), Example(tensors, {"decoder_input_ids": ("batch", "decoder_length")})) == ""

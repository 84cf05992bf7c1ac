"""Directories whose inputs a processor or a configuration describes, through `optimize` as a user would."""

import json

import pytest
import torch
import transformers
from graphwright.tools.verbs.optimize import optimize

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}


def document(folder):
    """Words with boxes, a label for each: no tokenizer lies beside it."""
    config = transformers.LiltConfig(
        **SMALL | {"hidden_size": 48}, vocab_size=61, max_position_embeddings=40, num_labels=3
    )
    transformers.LiltForTokenClassification(config).save_pretrained(folder)


def spectrogram(folder):
    config = transformers.ASTConfig(**SMALL, max_length=64, num_mel_bins=32, num_labels=4)
    transformers.ASTForAudioClassification(config).save_pretrained(folder)
    described = {"feature_extractor_type": "ASTFeatureExtractor", "max_length": 64, "num_mel_bins": 32}
    (folder / "preprocessor_config.json").write_text(json.dumps(described))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("save", "inputs"),
    [
        (
            document,
            {
                "input_ids": ("batch", "length"),
                "bbox": ("batch", "length", 4),
                "attention_mask": ("batch", "length"),
                "token_type_ids": ("batch", "length"),
            },
        ),
        (spectrogram, {"input_values": ("batch", 64, 32)}),
    ],
)
def test_a_directory_ends_with_0_and_every_pass_kept(tmp_path, save, inputs):
    torch.manual_seed(0)
    save(tmp_path / "m")
    outcome = optimize(tmp_path / "m", preset="exact", quick=True)
    assert outcome.failures == []
    assert outcome.status == 0
    assert {spec.name: spec.shape for spec in outcome.source.inputs} == inputs
    assert {each.step.status for each in outcome.steps} <= {"applied", "no change"}
    assert outcome.neighbours.distance < 1e-5

"""Capturing by hub id: what is fetched, and what is said when it cannot be. No network."""

import fnmatch
from types import SimpleNamespace

import huggingface_hub
import pytest
from graphwright.ir.capture import capture
from graphwright.ir.errors import CaptureError
from huggingface_hub import errors
from transformers import BertConfig, BertModel


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub that holds what is in tmp_path/hub, downloaded by copying what the patterns ask for."""
    held, local, asked = tmp_path / "hub", tmp_path / "local", []

    def snapshot_download(repository, allow_patterns):
        asked.append(repository)
        local.mkdir(exist_ok=True)
        for file in held.iterdir():
            if any(fnmatch.fnmatch(file.name, pattern) for pattern in allow_patterns):
                (local / file.name).write_bytes(file.read_bytes())
        return str(local)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    config = BertConfig(vocab_size=61, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                        intermediate_size=24, max_position_embeddings=32)  # fmt: skip
    BertModel(config).save_pretrained(held)
    return held, local, asked


def test_an_id_is_fetched_without_code_or_pickles(hub):
    held, local, asked = hub
    (held / "modeling_own.py").write_text("raise SystemExit")
    (held / "pytorch_model.bin").write_bytes(b"pickle")
    assert capture("someone/tiny-bert").outputs == ("last_hidden_state",)
    assert asked == ["someone/tiny-bert"]
    assert sorted(f.name for f in local.iterdir()) == ["config.json", "model.safetensors"]


def test_pickled_weights_are_fetched_where_there_are_no_others(hub):
    held, local, asked = hub
    (held / "model.safetensors").unlink()
    (held / "pytorch_model.bin").write_bytes(b"no pickle")
    with pytest.raises(CaptureError, match=r"cannot be loaded|would run code"):
        capture("someone/tiny-bert")
    assert len(asked) == 2
    assert (local / "pytorch_model.bin").is_file()


OUT = "there is no 'a/b' here, and the Hugging Face hub cannot be reached"
RESPONSE = SimpleNamespace(headers={}, request=None)


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        (
            errors.LocalEntryNotFoundError("x"),
            OUT,
        ),
        (
            errors.OfflineModeIsEnabled("x"),
            OUT,
        ),
        (OSError("x"), OUT),
        (
            errors.RepositoryNotFoundError("x", response=RESPONSE),
            "'a/b' here or on the Hugging Face hub.",
        ),
        (errors.GatedRepoError("x", response=RESPONSE), "'a/b' is gated: ask for access"),
        (errors.HfHubHTTPError("x", response=RESPONSE), "the Hugging Face hub cannot be reached"),
    ],
)
def test_each_fault_is_one_sentence(monkeypatch, fault, sentence):
    def snapshot_download(*_, **__):
        raise fault

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    with pytest.raises(CaptureError) as refused:
        capture("a/b")
    assert sentence in str(refused.value)


def test_offline_without_a_cache(monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(CaptureError, match=r"^there is no 'someone/nothing' here, and the Hugging Face hub"):
        capture("someone/nothing")


@pytest.mark.parametrize("name", ["a/b/c", "two words", "x" * 200, "a/b.", "../up"])
def test_what_is_no_id_is_no_model(name):
    with pytest.raises(CaptureError, match=r"^there is no '"):
        capture(name)

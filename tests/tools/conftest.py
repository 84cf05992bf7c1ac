"""A tiny sentence encoder on disk, as Hugging Face and sentence-transformers lay it out, and its bundle."""

import json
import os
from pathlib import Path

import pytest

WORDS = "a the man woman cat film plays eats good bad red big sits runs and is".split()


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory):
    """Measured ratios of tests stay out of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRAPHWRIGHT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def encoder_directory(tmp_path_factory) -> Path:
    """2 layers, width 32; mean pooling and normalisation by modules.json."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel

    folder = tmp_path_factory.mktemp("models") / "encoder"
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = [prefix + chr(97 + i) for prefix in ("", "##") for i in range(26)]
    vocabulary = {token: i for i, token in enumerate([*special, *WORDS, *letters[1:]])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    BertModel(config).save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    files = {
        "tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "[PAD]"},
        "modules.json": [
            {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
            {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
            {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
        ],
        "sentence_bert_config.json": {"max_seq_length": 48, "do_lower_case": False},
        "1_Pooling/config.json": {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True},
    }
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(content))
    return folder


@pytest.fixture(scope="session")
def command():
    """Runs the real command in a process of its own: command(*words) -> CompletedProcess."""
    import subprocess
    import sys

    def run(*words, **options):
        environment = {**os.environ, **options.pop("env", {})}
        line = [sys.executable, "-m", "graphwright.tools.cli", *map(str, words)]
        return subprocess.run(line, capture_output=True, text=True, env=environment, timeout=300, **options)

    return run


@pytest.fixture(scope="session")
def invoke():
    """Runs the command in this process: invoke(*words) -> typer's Result."""
    from graphwright.tools.cli import app
    from typer.testing import CliRunner

    runner = CliRunner()
    return lambda *words: runner.invoke(app, [str(word) for word in words], prog_name="optimize")

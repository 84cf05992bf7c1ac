"""Programs with tokenizers trained on made-up sentences, and feeds that tell their texts."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
from graphwright.passes.common.texts import reader, with_texts
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
STEMS = ["play", "sing", "walk", "read", "paint", "cook"]
ENDS = ["", "s", "ed", "ing", "er"]
NAMES = ["man", "woman", "girl", "teacher", "painter"]


def sentences(count=60, seed=5):
    rng = np.random.default_rng(seed)
    word = lambda: f"{rng.choice(STEMS)}{rng.choice(ENDS)}"
    return [f"The {rng.choice(NAMES)} {word()} and {word()}, {word()}." for _ in range(count)]


def _wordpiece(size):
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer, trainers.WordPieceTrainer(vocab_size=size, special_tokens=SPECIAL, show_progress=False)


def _bpe(size):
    tokenizer = Tokenizer(models.BPE(unk_token="[UNK]", end_of_word_suffix="</w>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return tokenizer, trainers.BpeTrainer(
        vocab_size=size, special_tokens=SPECIAL, end_of_word_suffix="</w>", show_progress=False
    )


def _unigram(size):
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    return tokenizer, trainers.UnigramTrainer(
        vocab_size=size, special_tokens=SPECIAL, unk_token="[UNK]", show_progress=False
    )


KINDS = {"WordPiece": _wordpiece, "BPE": _bpe, "Unigram": _unigram}


@cache
def files(kind="WordPiece", size=101):
    """Of a tokenizer of `size` tokens at most, that puts [CLS] and [SEP] around a text."""
    tokenizer, trainer = KINDS[kind](size)
    tokenizer.train_from_iterator(sentences(300, 1), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")],
    )
    return {"tokenizer.json": tokenizer.to_str().encode()}


def worded(program, kind="WordPiece"):
    """The program with a tokenizer of at most as many tokens as its table has rows."""
    rows = next(spec.high for spec in program.inputs if spec.role == "token_ids")
    return replace(program, tokenizer=files(kind, rows), info={**program.info, "pad_token_id": 0})


def feeds_of(program, texts=None, batch=6, pairs=None):
    """Batches of texts, which stand beside their ids."""
    texts = texts or sentences()
    read = reader(program)
    cut = [slice(start, start + batch) for start in range(0, len(texts), batch)]
    seconds = [None if pairs is None else pairs[rows] for rows in cut]
    return [
        with_texts(read(texts[rows], second), texts[rows], second)
        for rows, second in zip(cut, seconds, strict=True)
    ]

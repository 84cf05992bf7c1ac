"""Tokenizers with fewer tokens, against the package tokenizers and the tokenizer they were made from."""

import json
from functools import cache

import pytest
from graphwright.ir.errors import PassError
from graphwright.passes.prune.vocabulary.tokenizer import Tokens
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

TEXT = """It is a truth universally acknowledged, that a single man in possession of a good fortune, must be
in want of a wife. However little known the feelings or views of such a man may be on his first entering a
neighbourhood, this truth is so well fixed in the minds of the surrounding families, that he is considered as
the rightful property of some one or other of their daughters. Engineers mended seventeen bridges""".split()
WORDS = sorted({word.strip(",.").lower() for word in TEXT})
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def _wordpiece():
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer, trainers.WordPieceTrainer(vocab_size=160, special_tokens=SPECIAL, show_progress=False)


def _byte_level():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer, trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )


def _suffixed():
    """As CLIP's: the last piece of a word carries a mark."""
    tokenizer = Tokenizer(models.BPE(unk_token="[UNK]", end_of_word_suffix="</w>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return tokenizer, trainers.BpeTrainer(
        vocab_size=160, special_tokens=SPECIAL, end_of_word_suffix="</w>", show_progress=False
    )


def _unigram():
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    return tokenizer, trainers.UnigramTrainer(
        vocab_size=120, special_tokens=SPECIAL, unk_token="[UNK]", show_progress=False
    )


KINDS = {"WordPiece": _wordpiece, "BPE": _byte_level, "BPE with a suffix": _suffixed, "Unigram": _unigram}


@cache
def files(kind):
    """A trained tokenizer's files; one token is added behind its vocabulary."""
    tokenizer, trainer = KINDS[kind]()
    tokenizer.train_from_iterator(TEXT * 3, trainer)
    ids = {token: tokenizer.token_to_id(token) for token in SPECIAL}
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B [SEP]",
        special_tokens=[(token, ids[token]) for token in ("[CLS]", "[SEP]")],
    )
    tokenizer.add_tokens([AddedToken("<extra>", special=True)])
    tokenizer.enable_padding(pad_id=ids["[PAD]"], pad_token="[PAD]")
    added = {
        str(i): {"content": token} for token, i in [*ids.items(), ("<extra>", len(tokenizer.get_vocab()) - 1)]
    }
    return {
        "tokenizer.json": tokenizer.to_str().encode(),
        "tokenizer_config.json": json.dumps({"added_tokens_decoder": added, "pad_token": "[PAD]"}).encode(),
        "special_tokens_map.json": b'{"pad_token": "[PAD]"}',
    }


def read(content):
    return Tokenizer.from_str(content["tokenizer.json"].decode())


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_texts_of_kept_tokens_are_the_same_tokens(kind, data):
    before = read(files(kind))
    seen = data.draw(st.lists(st.sampled_from(WORDS), min_size=1, max_size=8))
    encoded = before.encode(" ".join(seen))
    tokens = Tokens(files(kind))
    kept = sorted(tokens.needed(encoded.ids))
    rewritten = tokens.rewritten(kept)
    after = read(rewritten)
    assert after.get_vocab_size() == len(kept) < before.get_vocab_size()
    for text in (" ".join(seen), seen[-1]):
        if {*before.encode(text).ids} <= {*kept}:
            assert after.encode(text).tokens == before.encode(text).tokens
            assert [kept[i] for i in after.encode(text).ids] == before.encode(text).ids
    other = data.draw(st.lists(st.sampled_from(WORDS), min_size=1, max_size=4))
    text = " ".join(other)
    pieces = after.encode(text)
    assert max(pieces.ids) < len(kept)
    # Every character is kept, so what was known is known, in smaller pieces.
    assert pieces.tokens.count("[UNK]") == before.encode(text).tokens.count("[UNK]") == 0
    bare = lambda tokens: "".join(t.removeprefix("##").removesuffix("</w>") for t in tokens)
    assert bare(pieces.tokens) == bare(before.encode(text).tokens)


@pytest.mark.parametrize("kind", KINDS)
def test_every_place_where_an_id_stands_follows(kind):
    tokens = Tokens(files(kind))
    before = read(files(kind))
    kept = sorted(tokens.needed(before.encode("daughters").ids))
    rewritten = tokens.rewritten(kept)
    after = read(rewritten)
    pair = after.encode_batch([("a man", "a wife"), ("a", "views of")])
    assert [pair[0].tokens[0], pair[0].tokens[-1]] == ["[CLS]", "[SEP]"]
    assert pair[1].ids[-1] == after.token_to_id("[PAD]")
    settings = json.loads(rewritten["tokenizer_config.json"])["added_tokens_decoder"]
    assert {int(i): token["content"] for i, token in settings.items()} == {
        after.token_to_id(token): token for token in [*SPECIAL, "<extra>"]
    }
    assert rewritten["special_tokens_map.json"] == files(kind)["special_tokens_map.json"]


def test_bpe_keeps_the_merges_that_lead_to_a_token():
    """By hand: "abcd" is made by ab, cd, abcd; bc would be made first were its merge not of higher rank."""
    vocabulary = ["a", "b", "c", "d", "ab", "cd", "bc", "abcd", "bcd"]
    model = {
        "type": "BPE",
        "vocab": {token: i for i, token in enumerate(vocabulary)},
        "merges": ["a b", "c d", "b c", "ab cd", "b cd"],
    }
    content = {"tokenizer.json": json.dumps({"model": model, "added_tokens": []}).encode()}
    tokens = Tokens(content)
    assert tokens.needed([7]) == {0, 1, 2, 3, 4, 5, 7}
    rewritten = json.loads(tokens.rewritten([0, 1, 2, 3, 4, 5, 7])["tokenizer.json"])["model"]
    assert rewritten["merges"] == ["a b", "c d", "ab cd"]
    assert rewritten["vocab"]["abcd"] == 6


def test_characters_may_be_those_seen_alone():
    tokens = Tokens(files("WordPiece"))
    ids = read(files("WordPiece")).encode("wife").ids
    few, all_ = (
        read(tokens.rewritten(sorted(tokens.needed(ids, characters)))) for characters in (False, True)
    )
    assert few.get_vocab_size() < all_.get_vocab_size()
    assert few.encode("wife").tokens == all_.encode("wife").tokens
    assert "[UNK]" in few.encode("good").tokens
    assert "[UNK]" not in all_.encode("good").tokens


def test_lists_of_tokens_follow_in_their_files():
    vocabulary = {"[UNK]": 0, "one": 1, "two": 2, "three": 3}
    tokens = Tokens({
        "tokenizer.json": json.dumps({
            "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "[UNK]"},
            "added_tokens": [],
        }).encode(),
        "vocab.txt": b"[UNK]\none\ntwo\nthree\n",
        "vocab.json": json.dumps(vocabulary).encode(),
        "merges.txt": b"#version: 0.2\no ne\nth ree\n",
    })  # fmt: skip
    rewritten = tokens.rewritten(sorted(tokens.needed([3])))
    assert rewritten["vocab.txt"] == b"[UNK]\nthree\n"
    assert json.loads(rewritten["vocab.json"]) == {"[UNK]": 0, "three": 1}
    assert rewritten["merges.txt"] == b"#version: 0.2\n"


def test_what_cannot_be_rewritten_is_refused():
    with pytest.raises(PassError, match=r"has no tokenizer\.json"):
        Tokens({})
    with pytest.raises(PassError, match="model is Odd"):
        Tokens({"tokenizer.json": b'{"model": {"type": "Odd", "vocab": {}}}'})


def test_unigram_keeps_what_an_unknown_character_costs():
    """By hand: 10 more than the lowest score. From -30, three pieces of -8 cost less; from -8, more."""
    scores = dict.fromkeys("abcde", -7.9) | dict.fromkeys(("ab", "cd", "e☃"), -8.0)
    scores |= {"abcde": -0.1, "low": -30.0, "zz": -9.0}
    model = {"type": "Unigram", "vocab": [["[UNK]", 0.0], *scores.items()], "unk_id": 0}
    content = json.dumps({"version": "1.0", "model": model, "added_tokens": []}).encode()
    tokens = Tokens({"tokenizer.json": content})
    before = read(tokens.files).encode("abcde☃")
    assert before.tokens == ["ab", "cd", "e☃"]
    kept = sorted(tokens.needed([*before.ids, *read(tokens.files).encode("abcde").ids]))
    assert len(kept) == len(scores)
    assert read(tokens.rewritten(kept)).encode("abcde☃").tokens == before.tokens

"""A datastore mixed into a language model's expectations: the paper's formula, on PyTorch's states."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from graphwright import BundleError, ConfigError, InputError
from graphwright.ir.capture import capture
from graphwright.tools.retrieval.keys import LanguageModel
from graphwright.tools.retrieval.knn_lm import Datastore, near
from tokenizers import Tokenizer, models, pre_tokenizers

LETTERS = "abcdefghij"
WIDTH = 16
ROUNDING = 1e-4  # relative, of probabilities: the model runs in float32


def built(kind, folder):
    """A tiny random model as transformers saves it, with a tokenizer of letters; and itself."""
    from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    if kind == "llama":
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=12, hidden_size=WIDTH, intermediate_size=24, num_hidden_layers=2,
                num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=64,
            )
        )  # fmt: skip
        last = model.model.layers[-1].mlp
    else:
        model = GPT2LMHeadModel(GPT2Config(vocab_size=12, n_embd=WIDTH, n_layer=2, n_head=2, n_positions=64))
        last = model.transformer.h[-1].mlp
    with torch.no_grad():  # random weights of the usual size tell tokens hardly apart
        for weight in model.parameters():
            if weight.ndim == 2:
                weight.mul_(12 if kind == "gpt2" else 8)
    model.eval().save_pretrained(folder)
    tokenizer = Tokenizer(
        models.WordLevel({"[UNK]": 0, **{x: 2 + i for i, x in enumerate(LETTERS)}}, "[UNK]")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    return model, last


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def made(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / request.param
    model, last = built(request.param, folder)
    return folder, model, last, LanguageModel(folder, threads=1)


def drawn(seed, count):
    draw = np.random.default_rng(seed)
    return [" ".join(draw.choice(list(LETTERS), draw.integers(1, 9))) for _ in range(count)]


def states(model, last, text):
    """(tokens, width) what the last feed-forward reads, (tokens, vocabulary) probabilities, and ids."""
    ids = torch.tensor([[2 + LETTERS.index(letter) for letter in text.split()]])
    seen = []
    handle = last.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    with torch.no_grad():
        logits = model(ids).logits[0].double()
    handle.remove()
    return seen[0][0].double().numpy(), torch.softmax(logits, -1).numpy(), ids[0].numpy()


def mixed(model, last, stored, texts, weight, temperature, count):
    """Probabilities of every token but a text's first, without and with the datastore, in float64."""
    pairs = [states(model, last, text) for text in stored]
    keys = np.concatenate([rows[:-1] for rows, _, _ in pairs])
    following = np.concatenate([ids[1:] for _, _, ids in pairs])
    plain, found = [], []
    for text in texts:
        rows, chances, ids = states(model, last, text)
        for row, chance, token in zip(rows[:-1], chances[:-1], ids[1:], strict=True):
            distances = ((keys - row) ** 2).sum(axis=1)
            nearest = np.argsort(distances, kind="stable")[:count]
            shares = np.exp(-(distances[nearest] - distances.min()) / temperature)
            part = shares[following[nearest] == token].sum() / shares.sum()
            plain.append(chance[token])
            found.append((1 - weight) * chance[token] + weight * part)
    return np.array(plain), np.array(found)


def perplexity(probabilities):
    return np.exp(-np.log(probabilities).mean())


def test_perplexity_is_that_of_the_papers_formula(made, tmp_path):
    _, model, last, language = made
    stored, judged = drawn(0, 30), drawn(1, 9)
    store = Datastore.build(language, iter(stored), tmp_path / "store")
    assert len(store) == sum(len(text.split()) - 1 for text in stored)
    for weight, temperature, count in ((0.25, 1.0, 1024), (0.6, 30.0, 5)):
        plain, found = mixed(model, last, stored, judged, weight, temperature, count)
        got = Datastore(tmp_path / "store", language).perplexity(judged, weight, temperature, count)
        assert got.plain == pytest.approx(perplexity(plain), rel=ROUNDING)
        assert got.mixed == pytest.approx(perplexity(found), rel=ROUNDING)
        assert (got.tokens, got.neighbours) == (len(plain), min(count, len(store)))
        assert abs(got.mixed - got.plain) > 100 * ROUNDING * got.plain  # the datastore is felt


def test_what_is_not_given_is_chosen_by_texts_that_do_not_judge(made, tmp_path):
    _, model, last, language = made
    stored, judged = drawn(0, 30), [*drawn(0, 8), *drawn(2, 8)]
    store = Datastore.build(language, stored, tmp_path / "store")
    got = store.perplexity(judged)
    assert got.mixed < got.plain
    plain, found = mixed(model, last, stored, judged[1::2], got.weight, got.temperature, 1024)
    assert got.plain == pytest.approx(perplexity(plain), rel=ROUNDING)
    assert got.mixed == pytest.approx(perplexity(found), rel=ROUNDING)
    tuned = store.perplexity(judged[::2], got.weight, got.temperature).mixed
    for weight, temperature in ((0.1, got.temperature), (got.weight, 3.0), (0.9, 1000.0)):
        assert store.perplexity(judged[::2], weight, temperature).mixed >= tuned
    assert store.perplexity(judged, got.weight).temperature in (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)


def test_probabilities_of_the_next_token_are_probabilities(made, tmp_path):
    _, model, last, language = made
    stored = drawn(0, 30)
    store = Datastore.build(language, stored, tmp_path / "store")
    texts = ["a b c", "d"]
    found = store.next_tokens(texts, weight=0.4, temperature=5.0, count=20)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-9)
    for text, row in zip(texts, found, strict=True):
        for letter in LETTERS:
            _, expected = mixed(model, last, stored, [f"{text} {letter}"], 0.4, 5.0, 20)
            assert row[2 + LETTERS.index(letter)] == pytest.approx(expected[-1], rel=ROUNDING, abs=1e-6)


def test_distances_are_those_of_all_keys_in_order(made, tmp_path):
    _, model, last, language = made
    stored = drawn(3, 12)
    store = Datastore.build(language, stored, tmp_path / "store")
    rows = np.concatenate([states(model, last, text)[0][:-1] for text in stored])
    asked = states(model, last, "a c e")[0]
    distances, _ = store.distances(asked.astype(np.float32), 7)
    expected = np.sort(((asked[:, None] - rows[None]) ** 2).sum(-1), axis=1)[:, :7]
    np.testing.assert_allclose(distances, expected, rtol=1e-3, atol=1e-3)


def test_shares_of_neighbours_are_a_softmax_of_distances():
    distances = np.array([[1.0, 2.0, 4.0], [1e6, 1e6, 1e6 + 5]])
    for temperature in (1.0, 3.0):
        expected = np.exp(-(distances - distances[:, :1]) / temperature)
        np.testing.assert_allclose(near(distances, temperature), expected / expected.sum(1, keepdims=True))


def test_what_does_not_fit_is_refused(made, tmp_path):
    folder, _, _, language = made
    store = Datastore.build(language, drawn(0, 5), tmp_path / "store")
    with pytest.raises(InputError, match="there are no texts to index"):
        Datastore.build(language, ["a", "b"], tmp_path / "none")  # nothing follows their tokens
    with pytest.raises(InputError, match="no text has two tokens"):
        store.perplexity(["a", "b"], 0.2, 1.0)
    with pytest.raises(InputError, match="too few texts of two tokens"):
        store.perplexity(["a b"])
    for weight, temperature in ((1.5, 1.0), (-0.1, None), (0.2, 0.0), (None, float("nan"))):
        with pytest.raises(ConfigError, match="a weight is a number from 0 to 1"):
            store.perplexity(["a b"], weight, temperature)
    other = LanguageModel(language.program.clone(), threads=1)
    with pytest.raises(BundleError, match="states of another model"):
        Datastore(tmp_path / "store", other)
    encoder = replace(capture(folder), task="embedding")
    with pytest.raises(InputError, match="is no causal language model"):
        LanguageModel(encoder)


@pytest.mark.parametrize("made", ["gpt2"], indirect=True)
def test_the_command_builds_and_judges(made, tmp_path, invoke):
    folder, *_ = made
    stored, judged = tmp_path / "stored.txt", tmp_path / "judged.txt"
    stored.write_text("\n".join(drawn(0, 30)))
    judged.write_text("\n".join([*drawn(0, 8), *drawn(2, 8)]))
    done = invoke(
        "knn-lm", folder, tmp_path / "store", "--texts", stored, "--data", judged, "--json", "--threads", 1
    )
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)["quality"]
    assert found["mixed"] < found["plain"]
    again = invoke("knn-lm", folder, tmp_path / "store", "--data", judged, "--threads", 1)
    assert f"perplexity {found['plain']:.3f}, with the datastore {found['mixed']:.3f}" in again.stdout
    assert invoke("knn-lm", folder, tmp_path / "store").exit_code == 2
    lost = invoke(
        "knn-lm", folder / "no model", tmp_path / "none", "--data", judged
    )  # the cheaper look first
    assert (lost.exit_code, "has no index.json" in lost.stderr) == (1, True)

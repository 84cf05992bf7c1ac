"""transfer-vocabulary: tables are the means NumPy finds, files and feeds follow, a teacher keeps its ids."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from graphwright.ir.capture import capture
from graphwright.ir.errors import DataError, PassError, PipelineError
from graphwright.ir.execute import execute
from graphwright.ir.footprint import weight_bytes
from graphwright.passes.common.texts import reader, told
from graphwright.passes.manager.contract import Context
from graphwright.passes.manager.pipeline import Pipeline
from graphwright.passes.prune.transfer_vocabulary import TransferVocabulary
from graphwright.passes.prune.vocabulary.tokenizer import Tokens
from tokenizers import Tokenizer
from tokens import pooled
from torch import nn
from worded import KINDS, feeds_of, sentences, worded
from zoo import fx_program

SIZE = 64


def transferred(program, size=SIZE, **settings):
    return TransferVocabulary(size=size).run(
        program.clone(), Context(calibration=feeds_of(program), original=program, **settings)
    )


def parameter(program, name):
    return program.graph.get_parameter(name).detach().numpy()


def by_hand(files, token):
    """The old tokens of a new one: those of the whole word that it is cut from, at the same characters."""
    old = Tokenizer.from_str(files["tokenizer.json"].decode())
    if token in (vocabulary := old.get_vocab()):
        return [vocabulary[token]]
    if token.startswith("##"):  # the longest piece that goes on, until nothing is left
        rest, found = token[2:], []
        while rest:
            piece = next((rest[:n] for n in range(len(rest), 0, -1) if f"##{rest[:n]}" in vocabulary), None)
            if piece is None:
                return [vocabulary["[UNK]"]]
            found, rest = [*found, vocabulary[f"##{piece}"]], rest[len(piece) :]
        return found
    return [token.id for token in old.model.tokenize(token)]


def test_rows_are_the_means_of_the_old_tokens():
    program = worded(fx_program("bert"))
    # Texts of words that the old tokenizer splits, so that there is something to take the mean of.
    texts = ["cooker repainted singers"] * 4 + ["the rewalkers replayed"] * 4
    context = Context(calibration=feeds_of(program, texts))
    result = TransferVocabulary(size=SIZE).run(program.clone(), context)
    ids = Tokens(result.program.tokenizer).ids
    assert sorted(ids.values()) == list(range(len(ids)))
    before, after = (parameter(one, "embeddings.word_embeddings.weight") for one in (program, result.program))
    assert after.shape == (len(ids), before.shape[1])
    assert len(ids) <= SIZE
    pieces = {token: by_hand(program.tokenizer, token) for token in ids}
    assert max(map(len, pieces.values())) > 2
    for token, number in ids.items():
        expected = before[pieces[token]].astype(np.float64).mean(0)
        np.testing.assert_allclose(after[number], expected, rtol=0, atol=1e-6)
    old = Tokens(program.tokenizer).ids
    for token in ("[PAD]", "[CLS]", "[SEP]", "[UNK]"):
        np.testing.assert_array_equal(after[ids[token]], before[old[token]])
    assert weight_bytes(result.program) < weight_bytes(program)
    assert {spec.high for spec in result.program.inputs if spec.role == "token_ids"} == {len(ids)}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_reads_what_it_was_trained_on(kind):
    program = worded(pooled("bert"), kind)
    result = transferred(program, 90 if kind == "BPE" else SIZE)
    read = reader(result.program)
    text = sentences()[0]
    tokens = read.tokenize([text])[0].tokens
    assert [tokens[0], tokens[-1]] == ["[CLS]", "[SEP]"]
    assert "[UNK]" not in tokens
    assert len(tokens) >= len(reader(program).tokenize([text])[0])
    again = result.context.calibration
    assert len(again) == len(feeds_of(program))
    for feed, old in zip(again, feeds_of(program), strict=True):
        assert told(feed) == told(old)
        assert feed["input_ids"].max() < len(Tokens(result.program.tokenizer).ids)
    assert np.isfinite(execute(result.program, again[:1])[0][program.outputs[0]]).all()
    assert transferred(program, 90 if kind == "BPE" else SIZE).program.tokenizer == result.program.tokenizer


def test_scores_over_the_vocabulary_are_means_too():
    program = worded(fx_program("gpt2"))
    result = transferred(program)
    ids = Tokens(result.program.tokenizer).ids
    new = [number for token, number in ids.items() if token in Tokens(program.tokenizer).ids]
    kept = [Tokens(program.tokenizer).ids[token] for token in ids if token in Tokens(program.tokenizer).ids]
    assert len(kept) > 20
    old_ids, new_ids = (np.array([numbers[3:12]]) for numbers in (kept, new))
    feeds = ({**feeds_of(program)[0], "input_ids": array} for array in (old_ids, new_ids))
    feeds = [
        {name: array[:1, :9] if name != "input_ids" else array for name, array in feed.items()
         if array.ndim == 2} for feed in feeds
    ]  # fmt: skip
    (expected,), (found,) = execute(program, feeds[:1]), execute(result.program, feeds[1:])
    (name,) = program.outputs[:1]
    np.testing.assert_allclose(found[name][..., new], expected[name][..., kept], rtol=0, atol=1e-5)
    assert found[name].shape[-1] == len(ids)
    # Logits are linear in the rows of the table, so those of a new token are the mean of its old ones'.
    pairs = {token: by_hand(program.tokenizer, token) for token in ids}
    longest = max(pairs, key=lambda token: len(pairs[token]))
    mean = expected[name][..., pairs[longest]].mean(-1)
    np.testing.assert_allclose(found[name][..., ids[longest]], mean, rtol=0, atol=1e-5)


class Untied(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.head = nn.Embedding(101, 8), nn.Linear(8, 101)

    def forward(self, input_ids):
        return self.head(self.words(input_ids))


def test_a_head_of_its_own_gets_means_of_its_rows():
    ids = torch.arange(18).reshape(2, 9)
    program = worded(capture(Untied().eval(), inputs={"input_ids": ids}))
    result = transferred(program)
    for name in ("words.weight", "head.weight", "head.bias"):
        old, new = parameter(program, name), parameter(result.program, name)
        for token, number in Tokens(result.program.tokenizer).ids.items():
            expected = old[by_hand(program.tokenizer, token)].astype(np.float64).mean(0)
            np.testing.assert_allclose(new[number], expected, rtol=0, atol=1e-6)


def test_training_texts_come_first_and_all_characters_may_stay():
    program = worded(fx_program("bert"))
    some = feeds_of(program, ["a cook sings"] * 6)
    context = Context(calibration=feeds_of(program), training=some)
    seen, every = (
        TransferVocabulary(size=SIZE, characters=which).run(program.clone(), context)
        for which in ("seen", "all")
    )
    assert "cook" in Tokens(seen.program.tokenizer).ids
    assert "painter" not in Tokens(seen.program.tokenizer).ids
    assert "w" not in Tokens(seen.program.tokenizer).ids
    assert "w" in Tokens(every.program.tokenizer).ids
    assert any("and not 64" in note for note in seen.notes)
    assert len(seen.context.training) == len(some)


def test_what_the_graph_knows_keeps_its_row():
    """RoBERTa counts positions from where ids are not its padding."""
    program = worded(fx_program("roberta"))
    result = transferred(program)
    (feed,) = result.context.calibration[:1]
    alone = {
        name: array[:1, feed["attention_mask"][0] != 0] for name, array in feed.items() if array.ndim == 2
    }
    (together,), (single,) = execute(result.program, [feed]), execute(result.program, [alone])
    length = alone["input_ids"].shape[1]
    name = program.outputs[0]
    np.testing.assert_allclose(together[name][0, :length], single[name][0], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "rest",
    [
        "factorise-embedding{rank=8},to-onnx,quantize-static",
        "tie-embeddings,to-onnx,quantize-weights{bits=4,group=32}",
        "prune-vocabulary,distill{steps=2,batch=4},to-onnx",
    ],
)
def test_passes_behind_it_go_on(rest):
    program = worded(fx_program("gpt2" if "tie" in rest else "bert"))
    context = Context(calibration=feeds_of(program), original=program)
    run = Pipeline.parse(f"transfer-vocabulary{{size={SIZE}}},{rest}").run(program, context)
    assert run.ok, [str(step.error) for step in run.steps if step.error]
    assert run.program.tokenizer != program.tokenizer
    assert execute(run.program, feeds_of(run.program)[:1])


def test_it_follows_a_factorised_table():
    program = worded(fx_program("bert"))
    run = Pipeline.parse(f"factorise-embedding{{rank=8}},transfer-vocabulary{{size={SIZE}}}").run(
        program, Context(calibration=feeds_of(program))
    )
    assert run.ok, [str(step.error) for step in run.steps if step.error]
    count = len(Tokens(run.program.tokenizer).ids)
    assert (count, 8) in {tuple(p.shape) for p in run.program.graph.parameters()}


def test_a_student_of_other_ids_learns_from_its_teacher():
    program = worded(pooled("bert"))
    feeds = feeds_of(program, sentences(96))
    context = Context(calibration=feeds, original=program)
    plain = Pipeline.parse(f"transfer-vocabulary{{size={SIZE}}}").run(program, context)
    told = "steps=60,rate=3e-3,batch=6,embeddings=true,hidden=1.0"
    run = Pipeline.parse(f"transfer-vocabulary{{size={SIZE}}},distill{{{told}}}").run(program, context)
    assert run.ok, [str(step.error) for step in run.steps if step.error]
    fresh = sentences(24, seed=77)
    (reference,) = execute(program, feeds_of(program, fresh, 24))

    def away(one):
        (found,) = execute(one, feeds_of(one, fresh, 24))
        return float(np.square(found[one.outputs[0]] - reference[program.outputs[0]]).mean())

    assert away(run.program) < away(plain.program) / 2


def test_bad_inputs_are_refused_in_a_sentence():
    bert = fx_program("bert")
    program = worded(bert)
    feeds = feeds_of(program)

    def refused(message, program=program, feeds=feeds, error=PassError, **options):
        before = program.fingerprint()
        with pytest.raises(error, match=message):
            TransferVocabulary(**{"size": SIZE, **options}).run(program.clone(), Context(calibration=feeds))
        assert program.fingerprint() == before

    refused(r"no tokenizer\.json", program=bert)
    refused("size is 102, and the vocabulary has 101 tokens: give fewer", size=102)
    refused(r"size is 9, and 4 tokens that stay and \d+ single characters are \d+: give that or more", size=9)
    ids = [{name: array for name, array in feed.items() if array.ndim == 2} for feed in feeds]
    refused("the data are ids alone", feeds=ids, error=DataError)
    refused("every text of the data is empty", feeds=feeds_of(program, [""] * 3), error=DataError)
    words = {"type": "WordLevel", "vocab": {"[UNK]": 0, "the": 1}, "unk_token": "[UNK]"}
    content = json.dumps({"version": "1.0", "added_tokens": [], "model": words}).encode()
    refused("model is WordLevel", program=replace(bert, tokenizer={"tokenizer.json": content}))
    refused("takes no token ids", program=replace(fx_program("vit"), tokenizer=program.tokenizer))
    refused(
        "knows the id 100 by itself",
        program=replace(
            program, info={"mask_token_id": 100}, tokenizer=worded(fx_program("bert"), "Unigram").tokenizer
        ),
    )
    with pytest.raises(PipelineError, match="size is 0"):
        Pipeline.parse("transfer-vocabulary{size=0}")


class LastOfAll(nn.Module):
    """Reads the text at its largest id, as CLIP does."""

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(101, 8)

    def forward(self, input_ids):
        x = self.words(input_ids)
        return x[torch.arange(x.shape[0]), input_ids.argmax(-1)]


def test_the_order_of_ids_is_not_kept():
    program = worded(capture(LastOfAll().eval(), inputs={"input_ids": torch.arange(18).reshape(2, 9)}))
    with pytest.raises(PassError, match=r"argmax.* goes by the order of token ids"):
        transferred(program)


@pytest.mark.parametrize(
    "pass_", ["layerdrop", "theseus", "prune-movement", "to-onnx,quantize-mixed{by=hessian}"]
)
def test_passes_that_compare_token_by_token_say_so(pass_):
    program = worded(fx_program("bert"))
    context = Context(calibration=feeds_of(program), original=program)
    run = Pipeline.parse(f"transfer-vocabulary{{size={SIZE}}},{pass_}").run(program, context)
    assert run.steps[-1].status == "refused"
    assert "another tokenizer" in str(run.steps[-1].error)

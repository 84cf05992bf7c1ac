"""prune-vocabulary, against the program before it on the same tokens."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from graphwright.ir.capture import capture
from graphwright.ir.errors import PassError, PipelineError
from graphwright.ir.execute import execute
from graphwright.ir.footprint import weight_bytes
from graphwright.ir.inputs.probe import feed
from graphwright.passes.manager.contract import Context
from graphwright.passes.manager.pipeline import Pipeline
from graphwright.passes.prune.prune_vocabulary import PruneVocabulary
from graphwright.passes.prune.vocabulary.token_ids import Translated
from graphwright.passes.prune.vocabulary.tokenizer import Tokens
from torch import nn
from zoo import ARCHITECTURES, fx_program

TEXT = sorted(name for name, case in ARCHITECTURES.items() if not case.fixed)
LOGITS = {"gpt2", "opt", "llama", "qwen2", "qwen3", "t5", "nanogpt"}  # scores over the vocabulary
ROLES = ("token_ids", "decoder_token_ids")


def with_tokenizer(program, rows, unknown=0):
    """Every id a word of its own."""
    model = {"type": "WordLevel", "vocab": {f"w{i}": i for i in range(rows)}, "unk_token": f"w{unknown}"}
    content = json.dumps({"version": "1.0", "added_tokens": [], "model": model}).encode()
    return replace(program, tokenizer={"tokenizer.json": content})


def feeds_of(program, chosen, count=3):
    """Feeds whose ids are among those chosen."""
    feeds = []
    for number in range(count):
        rng = np.random.default_rng([7, number])
        made = feed(program, dict.fromkeys(program.symbols, 9) | {"batch": 3}, "right", rng)
        for spec in program.inputs:
            if spec.role in ROLES:
                ids = rng.choice(chosen, made[spec.name].shape)
                ids[:, 0] = chosen[0]
                mask = made.get("attention_mask") if spec.role == "token_ids" else None
                made[spec.name] = ids if mask is None else np.where(mask, ids, chosen[0])
        feeds.append(made)
    return feeds


@pytest.mark.parametrize("name", TEXT)
def test_outputs_on_kept_tokens_are_the_same(name):
    program = fx_program(name)
    rows = next(spec.high for spec in program.inputs if spec.role in ROLES)
    program = with_tokenizer(program, rows)
    feeds = feeds_of(program, np.arange(3, rows, 4))
    result = PruneVocabulary().run(program.clone(), Context(calibration=feeds))
    pruned = result.program
    words = Tokens(pruned.tokenizer).ids
    kept = [int(word[1:]) for word in words]
    assert list(words.values()) == list(range(len(kept)))
    assert len(kept) < rows / 2
    assert {spec.high for spec in pruned.inputs if spec.role in ROLES} == {len(kept)}
    assert weight_bytes(pruned) < weight_bytes(program)
    assert rows not in {d for _, p in pruned.graph.named_parameters() for d in p.shape}
    for old, new in zip(feeds, result.context.calibration, strict=True):
        (expected,), (found,) = execute(program, [old]), execute(pruned, [new])
        for output, reference in expected.items():
            if name in LOGITS and reference.shape[-1] == rows:
                reference = reference[..., kept]
            np.testing.assert_array_equal(found[output], reference)


def test_the_padding_that_positions_are_counted_by_follows():
    """RoBERTa's positions skip padding, told by its id, which no feed here has."""
    program = with_tokenizer(fx_program("roberta"), 101, unknown=40)
    feeds = feeds_of(program, np.arange(30, 60))
    result = PruneVocabulary().run(program.clone(), Context(calibration=feeds))
    kept = sorted(int(word[1:]) for word in Tokens(result.program.tokenizer).ids)
    assert kept.index(1) == 0
    ids = feeds[0]["input_ids"].copy()
    ids[:, 5:] = 1
    old = {**feeds[0], "input_ids": ids}
    new = Translated([old], program, kept, 40)[0]
    assert (new["input_ids"][:, 5:] == 0).all()
    (expected,), (found,) = execute(program, [old]), execute(result.program, [new])
    np.testing.assert_array_equal(found["last_hidden_state"], expected["last_hidden_state"])


def test_ids_that_are_gone_are_unknown():
    translated = Translated([{"input_ids": np.array([[4, 5, 900, 2]])}], fx_program("bert"), [2, 4, 7], 2)
    np.testing.assert_array_equal(translated[0]["input_ids"], [[1, 0, 0, 0]])


def test_what_comes_after_gets_new_ids_and_a_pruned_original():
    program = with_tokenizer(fx_program("bert"), 101)
    feeds = feeds_of(program, np.arange(40, 70))
    context = Context(calibration=feeds, training=feeds[:2], original=program)
    run = Pipeline.parse("prune-vocabulary,prune-layers{keep=1,choose=search},to-onnx").run(program, context)
    assert run.ok, [step.error for step in run.steps]
    pruned = PruneVocabulary().run(program.clone(), context)
    after = pruned.context
    assert len(after.training) == 2
    (a,), (b,) = execute(after.original, after.training[:1]), execute(program, feeds[:1])
    np.testing.assert_array_equal(a["last_hidden_state"], b["last_hidden_state"])


def test_rare_tokens_may_go_too():
    program = with_tokenizer(fx_program("bert"), 101)
    ids = np.array([[10, 10, 11, 11, 12]])
    feeds = [{"input_ids": ids, "attention_mask": ids * 0 + 1, "token_type_ids": ids * 0}]
    result = PruneVocabulary(times=2).run(program.clone(), Context(calibration=feeds))
    assert Tokens(result.program.tokenizer).ids.keys() >= {"w10", "w11"}
    assert "w12" not in Tokens(result.program.tokenizer).ids
    assert result.context.calibration[0]["input_ids"][0, 4] == 0


def test_padding_is_not_seen():
    program = with_tokenizer(fx_program("bert"), 101)
    ids = np.array([[10, 11, 77, 77]])
    mask = np.array([[1, 1, 0, 0]])
    feeds = [{"input_ids": ids, "attention_mask": mask, "token_type_ids": ids * 0}]
    result = PruneVocabulary().run(program.clone(), Context(calibration=feeds))
    assert "w77" not in Tokens(result.program.tokenizer).ids


def test_nothing_to_prune_changes_nothing():
    program = with_tokenizer(fx_program("bert"), 101)
    ids = np.arange(101)[None, :60], np.arange(101)[None, 41:]
    feeds = [{"input_ids": i, "attention_mask": i * 0 + 1, "token_type_ids": i * 0} for i in ids]
    result = PruneVocabulary().run(program.clone(), Context(calibration=feeds))
    assert not result.modified
    assert result.notes == ("every token is needed",)
    refused = PruneVocabulary().run(
        program.clone(), Context(calibration=[feeds[0]], allow=lambda rewrite: False)
    )
    assert not refused.modified
    assert refused.program.fingerprint() == program.fingerprint()


class Odd(nn.Module):
    """Looks words up, and does something else with their ids."""

    def __init__(self, odd):
        super().__init__()
        self.odd = odd
        self.words = nn.Embedding(50, 8)
        self.head = nn.Linear(8, 50)

    def forward(self, input_ids):
        x = self.words(input_ids)
        if self.odd == "parity":
            return x * (input_ids % 2).unsqueeze(-1)
        if self.odd == "softmax":
            return self.head(x).softmax(-1)
        if self.odd == "whole":
            return x + self.words.weight.mean(0)
        if self.odd == "back":
            return x, input_ids.reshape(-1)
        return x, self.words(torch.arange(9))


@pytest.mark.parametrize(
    ("odd", "reason"),
    [
        ("parity", "computes with token ids"),
        ("softmax", "reads the scores of all tokens"),
        ("whole", "reads all of words.weight"),
        ("back", "gives token ids back"),
        ("other ids", "by ids that are no input"),
    ],
)
def test_other_uses_of_ids_are_refused_by_name(odd, reason):
    program = capture(Odd(odd).eval(), inputs={"input_ids": torch.arange(18).reshape(2, 9)})
    feeds = [{"input_ids": np.arange(18).reshape(2, 9)}]
    with pytest.raises(PassError, match=reason):
        PruneVocabulary().run(with_tokenizer(program, 50), Context(calibration=feeds))


def test_other_refusals():
    program = fx_program("bert")
    feeds = feeds_of(program, np.arange(40, 70))
    with pytest.raises(PassError, match=r"no tokenizer\.json"):
        PruneVocabulary().run(program.clone(), Context(calibration=feeds))
    with pytest.raises(PassError, match="takes no token ids"):
        PruneVocabulary().run(with_tokenizer(fx_program("vit"), 9).clone(), Context(calibration=feeds))
    with pytest.raises(PipelineError, match="times is 0"):
        Pipeline.parse("prune-vocabulary{times=0}")
    with pytest.raises(PipelineError, match="needs calibration data"):
        Pipeline.parse("prune-vocabulary").run(program, Context())

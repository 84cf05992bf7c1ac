"""What a bundle is to a server: its limits, and what is tried before anybody asks."""

import threading
from types import SimpleNamespace

import numpy as np
import pytest
import served
from graphwright.backends.running.runner import load
from graphwright.ir.errors import BundleError
from graphwright.tools.serve.model import TOKENS, model
from graphwright.tools.serve.refusal import Refusal


@pytest.fixture
def letters(bundles):
    return load(bundles["letters"])


def stand_in(bundle, **changes):
    """A bundle whose manifest says something else."""
    manifest = SimpleNamespace(
        **{
            name: getattr(bundle.manifest, name)
            for name in ("task", "symbols", "info", "dispatch", "compiled", "record", "inputs", "files")
        }
        | changes
    )
    return SimpleNamespace(
        manifest=manifest,
        encoder=bundle.encoder,
        run=bundle.run,
        inputs=bundle.inputs,
        output_names=bundle.output_names,
        directory=bundle.directory,
    )


def test_a_bundle_s_limits_are_the_server_s(letters):
    found = model("x", letters)
    assert (found.kind, found.width, found.longest) == ("embedding", served.WIDTH, served.LONGEST)
    assert (found.budget.tokens, found.budget.rows) == (TOKENS, 64)


def test_texts_are_no_longer_than_a_call(letters):
    found = model("x", letters, 20)
    assert found.longest == 20
    assert len(found.tokenize(["a " * 32], None, True, "inputs")[0]) == 20
    with pytest.raises(Refusal, match="longer than the 20 tokens that x takes"):
        found.tokenize(["a " * 21], None, False, "inputs")


def test_pairs_share_the_length(bundles):
    found = model("x", load(bundles["match"]))
    (encoding,) = found.tokenize(["a " * 20], ["b " * 20], True, "texts")
    assert len(encoding) == served.LONGEST
    with pytest.raises(Refusal):
        found.tokenize(["a " * 20], ["b " * 20], False, "texts")


def test_the_largest_calls_are_made_before_anybody_asks(letters):
    made = []
    bundle = stand_in(
        letters,
        dispatch=({"batch": 4, "length": 8, "padding": 0.5}, {"batch": 99, "length": 8, "padding": 0}),
    )
    bundle.run = lambda feed: made.append(feed["attention_mask"]) or letters.run(feed)
    model("x", bundle, 320)
    assert [each.shape for each in made] == [(4, 8), (10, served.LONGEST)]  # 99 rows are no call
    assert made[0].sum() == 8 + 3 * 3  # nearly half is padding
    assert made[1].all()


def test_as_many_at_once_as_there_will_be(letters):
    both = threading.Barrier(2, timeout=10)
    bundle = stand_in(letters)
    bundle.run = lambda feed: (both.wait() and False) or letters.run(feed)
    assert model("x", bundle, parallel=2).width == served.WIDTH  # alone, a call would wait for ever


def test_recorded_widths_may_be_asked_for(letters):
    info = {**letters.manifest.info, "matryoshka_dimensions": [8, 4, True, "2"]}
    assert model("x", stand_in(letters, info=info), cuts=(2,)).cuts == (2, 4, 8)
    with pytest.raises(BundleError, match="x's vectors have 16 numbers and can't be cut to 17"):
        model("x", letters, cuts=(17,))


def test_what_takes_several_texts_at_least_is_refused(letters):
    with pytest.raises(BundleError, match="takes no call of fewer than 2 texts"):
        model("x", stand_in(letters, symbols={"batch": (2, 64)}))


def test_what_gives_no_row_a_text_is_refused(letters):
    bundle = stand_in(letters)
    bundle.run = lambda feed: {"embedding": np.zeros((len(feed["input_ids"]), 3, 2), np.float32)}
    with pytest.raises(BundleError, match="not a row a text"):
        model("x", bundle)

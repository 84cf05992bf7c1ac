"""synthesizer: weights that come from no pairs of queries and keys."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from graphwright.passes.attend.kinds.synthesizer import Synthesizer, mean_logarithms
from mixing import alone, drawn, full, kept
from pruning import run
from substituted import causal, feeds, lowered_alike, trained, vectors
from tokens import batch, pooled

FORMS = ("random", "factorised-random", "dense", "factorised-dense")


def started(kind, heads, longest=12):
    site = SimpleNamespace(causal=heads.causal, longest=longest)
    return kind.own(site, lambda: iter([heads]), torch.Generator())


def texts(looks_back=False, left=False, seed=0):
    heads = drawn([9, 6, 2, 1], causal=looks_back, left=left, seed=seed)
    heads.x.copy_(torch.randn(heads.x.shape, generator=torch.Generator().manual_seed(seed + 1)))
    return heads


def reference(heads, own, form, share=None):
    """Tay et al., 2020, equations 1 and 3, text by text, and section 3.1.5 for a share of the scores."""
    own = {name: tensor.detach().double().numpy() for name, tensor in own.items()}
    out = np.zeros(heads.v.shape)
    for b in range(len(out)):
        at = np.flatnonzero(heads.keep[b].numpy())
        q, k, v = (x[b][:, at].double().numpy() for x in (heads.q, heads.k, heads.v))
        x, n = heads.x[b, at].double().numpy(), len(at)
        for h in range(3):
            if "dense" in form:
                second = own["second"] if form == "dense" else own["left"] @ own["right"]
                rows = np.maximum(x @ own["first"], 0) @ second + own["bias"]
                logits = rows.reshape(n, 3, -1)[:, h, :n]
            elif form == "random":
                logits = own["table"].reshape(12, 3, 12)[:n, h, :n]
            else:
                logits = own["left"].reshape(12, 3, -1)[:n, h] @ own["right"][h][:, :n]
            if share is not None:
                logits = share * (q[h] @ k[h].T * heads.scale) + (1 - share) * logits
            weights = np.exp(logits) * (np.tri(n) if heads.causal else 1)
            out[b, h, at] = weights / weights.sum(-1, keepdims=True) @ v[h]
    return out


@pytest.mark.parametrize("looks_back", [False, True])
@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_is_the_papers_formula_text_by_text(form, left, looks_back):
    kind = Synthesizer(form=form, rank=3)
    heads = texts(looks_back, left)
    own = started(kind, heads)
    found = kind.mix(heads, own)
    np.testing.assert_allclose(
        kept(heads, found), kept(heads, reference(heads, own, form)), rtol=0, atol=2e-5
    )


def test_a_mixture_is_a_mean_of_logits_and_starts_as_full_attention_or_half_way():
    heads = texts()
    kind = Synthesizer(mixture=True)
    found = kind.mix(heads, started(kind, heads))
    np.testing.assert_allclose(kept(heads, found), kept(heads, full(heads)), rtol=0, atol=1e-5)
    kind = Synthesizer(mixture=True, start="even")
    own = started(kind, heads)
    wanted = reference(heads, own, "random", 0.5)
    np.testing.assert_allclose(kept(heads, kind.mix(heads, own)), kept(heads, wanted), rtol=0, atol=2e-5)


def test_the_map_of_a_lone_text_is_met_and_so_it_is_by_factors_of_full_rank():
    heads = alone(texts(), 0)
    for form in ("random", "factorised-random"):
        kind = Synthesizer(form=form, rank=12)
        found = kind.mix(heads, started(kind, heads))
        np.testing.assert_allclose(kept(heads, found), kept(heads, full(heads)), rtol=0, atol=1e-4)


@pytest.mark.parametrize("looks_back", [False, True])
def test_the_mean_map_is_that_of_texts_and_of_distances_where_no_text_reaches(looks_back):
    heads = texts(looks_back)
    found = torch.stack(list(mean_logarithms(lambda: iter([heads, heads]), 12, looks_back))).exp().numpy()
    total, count = np.zeros((3, 12, 12)), np.zeros((12, 12))
    for row in range(4):
        one = alone(heads, row)
        scores = (one.q @ one.k.transpose(2, 3) * one.scale)[0].double().numpy()
        n = scores.shape[1]
        there = np.tri(n) if looks_back else np.ones((n, n))
        weights = np.exp(scores) * there
        total[:, :n, :n] += weights / weights.sum(-1, keepdims=True)
        count[:n, :n] += there
    for i, j in np.ndindex(9, 9):
        if count[i, j]:
            np.testing.assert_allclose(
                found[:, i, j], np.maximum(total[:, i, j] / count[i, j], 1e-5), rtol=1e-5
            )
    far = np.trace(total, -2, 1, 2) / np.trace(count, -2)
    np.testing.assert_allclose(found[:, 11, 9], far, rtol=1e-5)
    if looks_back:
        np.testing.assert_allclose(found[:, 9, 11], far, rtol=1e-5)


def test_factors_start_as_the_best_product_of_their_rank_for_each_head():
    heads = texts()
    own = started(Synthesizer(form="factorised-random", rank=3), heads, longest=300)
    tables = mean_logarithms(lambda: iter([heads]), 300, False)
    for h, table in enumerate(tables):
        left, size, right = np.linalg.svd(table.numpy())
        found = (
            own["left"].detach().double().numpy().reshape(300, 3, -1)[:, h] @ own["right"][h].detach().numpy()
        )
        np.testing.assert_allclose(found, left[:, :3] * size[:3] @ right[:3], rtol=0, atol=1e-4)


def test_dense_rows_are_nearer_than_a_table_for_what_they_were_fitted_on():
    heads = texts()
    wanted = kept(heads, full(heads))
    away = []
    for form in ("random", "dense"):
        kind = Synthesizer(form=form)
        away.append(np.square(kept(heads, kind.mix(heads, started(kind, heads))) - wanted).sum())
    assert away[1] < away[0]


def test_tokens_beyond_the_longest_take_its_last_place():
    heads = texts()
    kind = Synthesizer(length=4)
    assert torch.isfinite(kind.mix(heads, started(kind, heads))).all()


def test_runtimes_agree_and_it_learns():
    trained(lowered_alike("bert", "kind=synthesizer,form=dense"), "second")


def test_distilling_brings_it_nearer_and_other_families_come_after():
    program = pooled("bert")
    data = [batch(program, (9, 7, 5, 3), seed=seed) for seed in range(6)]
    held = batch(program, (9, 8, 6, 2), seed=99)
    away = []
    for steps in ("", ",distill{steps=20}", ",distill{steps=20},prune-ffn,to-onnx,quantize-dynamic"):
        done = run(
            f"substitute-attention{{kind=synthesizer,form=dense}}{steps}",
            program,
            calibration=data,
            training=data,
        )
        assert done.ok, [str(step.error) for step in done.steps]
        away.append(np.square(vectors(done.program, held) - vectors(program, held)).mean())
    assert done.program.dialect == "onnx"
    assert away[1] < 0.9 * away[0]
    assert np.isfinite(away[2])


def test_a_table_that_is_not_trained_is_no_parameter():
    heads = texts()
    assert isinstance(started(Synthesizer(), heads)["table"], torch.nn.Parameter)
    assert not isinstance(started(Synthesizer(trained=False), heads)["table"], torch.nn.Parameter)


def test_nothing_later_is_seen():
    causal("llama", "kind=synthesizer,length=20,form=dense")


def test_a_model_whose_texts_may_be_of_any_length_is_left_until_one_is_said():
    done = run(
        "substitute-attention{kind=synthesizer}", pooled("modernbert"), calibration=feeds("modernbert")
    )
    assert "nothing says how long its texts may be: give length" in str(done.steps[0].error)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"form": "sparse"}, "form is 'sparse', and there is dense, random"),
        ({"start": "odd"}, "start is 'odd', and there is vanilla, even"),
        ({"rank": 0}, "rank is 0, and 1 at least"),
        ({"form": "dense", "trained": False}, "trained is False, and form 'dense' is one that learns"),
    ],
)
def test_bad_options_are_refused(options, reason):
    with pytest.raises(ValueError, match=reason):
        Synthesizer(**options)

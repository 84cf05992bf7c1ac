"""linformer: fewer keys and values, means over the places of a text."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from graphwright.passes.attend.kinds.linformer import Linformer
from mixing import drawn, full, kept

ATTENTION = SimpleNamespace(head_dim=4, heads=3)


def own(kind, longest=None, seen=None):
    return kind.own(SimpleNamespace(attention=ATTENTION, longest=longest), seen, torch.Generator())


def reference(heads, keys, values):
    """Wang et al., 2020, equation 7, each text by itself: rows of E and F are divided by what they weigh of a
    text, and that weight is how often a row counts."""
    out = np.zeros(heads.v.shape)
    for b in range(len(out)):
        places = np.flatnonzero(heads.keep[b].numpy()) if heads.keep is not None else np.arange(out.shape[2])
        e, f = (table.detach().double().numpy()[: len(places)].T for table in (keys, values))
        weight = np.abs(e).sum(1)
        for h in range(out.shape[1]):
            q, k, v = (x[b, h, places].double().numpy() for x in (heads.q, heads.k, heads.v))
            scores = q @ (e @ k / weight[:, None]).T * heads.scale
            shares = weight * np.exp(scores)
            mixed = shares @ (f @ v / np.abs(f).sum(1)[:, None]) / shares.sum(1, keepdims=True)
            out[b, h, places] = mixed
    return out


@pytest.mark.parametrize("left", [False, True])
def test_is_the_papers_formula_text_by_text(left):
    heads = drawn([13, 9, 4, 1], left=left)
    generator = torch.Generator().manual_seed(1)
    tables = [torch.randn(20, 5, generator=generator) for _ in range(2)]
    found = Linformer(rank=5, length=20).mix(heads, dict(zip(("keys", "values"), tables, strict=True)))
    wanted = kept(heads, reference(heads, *tables))
    np.testing.assert_allclose(kept(heads, found), wanted, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("left", [False, True])
def test_a_rank_of_all_tokens_is_full_attention(left):
    heads = drawn([13, 9, 4, 1], left=left)
    for kind in (Linformer(rank=13, length=13), Linformer(rank=40, length=20)):
        found = kind.mix(heads, own(kind))
        np.testing.assert_allclose(kept(heads, found), kept(heads, full(heads)), rtol=0, atol=1e-5)


def test_segments_are_means_that_count_as_often_as_they_have_tokens():
    heads = drawn([6, 3])
    heads.k[:, :, 1::2] = heads.k[:, :, ::2]  # pairs of like keys lose nothing
    heads.v[:, :, 1::2] = heads.v[:, :, ::2]
    heads.v[1, :, 3] = 9.0
    kind = Linformer(rank=3, length=6)
    found = kind.mix(heads, own(kind))
    np.testing.assert_allclose(kept(heads, found), kept(heads, full(heads)), rtol=0, atol=1e-5)


def test_where_texts_are_short_their_places_get_most_rows():
    heads = drawn([20, 15, 9])
    kind = Linformer(rank=48, length=512)
    found = own(kind, seen=lambda: iter([heads]))
    table = found["keys"].detach()
    assert (table.sum(0) >= 1).all()
    assert (table.argmax(1).diff() >= 0).all()
    assert table.argmax(1)[:20].tolist() == list(range(20))
    np.testing.assert_allclose(kept(heads, kind.mix(heads, found)), kept(heads, full(heads)), atol=1e-5)
    assert own(kind)["keys"].detach().argmax(1)[:20].max() == 1


def test_tokens_beyond_the_longest_share_the_last_column():
    heads = drawn([9])
    kind = Linformer(rank=3, length=3)
    k, v = (torch.cat([x[:, :, :2], x[:, :, 2:].mean(2, True)], 2) for x in (heads.k, heads.v))
    scores = (heads.q @ k.transpose(2, 3)) * heads.scale + torch.tensor([1.0, 1.0, 7.0]).log()
    torch.testing.assert_close(kind.mix(heads, own(kind)), scores.softmax(-1) @ v, rtol=0, atol=1e-5)


def test_every_weight_of_a_table_learns():
    heads = drawn([6, 3])
    kind = Linformer(rank=3, length=6)
    tables = own(kind)
    kind.mix(heads, tables).square().sum().backward()
    for table in tables.values():
        assert table.grad.isfinite().all()
        assert (table != 0).all()
    assert (tables["keys"].grad.abs() > 1e-6).sum() > 12


@pytest.mark.parametrize("option", ["rank", "length"])
def test_there_is_one_at_least(option):
    with pytest.raises(ValueError, match=f"{option} is 0, and 1 at least"):
        Linformer(**{option: 0})

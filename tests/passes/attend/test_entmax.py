"""entmax: probabilities that may be zero, with the derivatives that they have."""

import numpy as np
import pytest
import torch
import zoo
from graphwright.passes.attend.kinds.entmax import Entmax, _bisected, _half, _sparsemax
from mixing import by_loops, drawn, full, kept
from pruning import run
from substituted import causal, lowered_alike, trained
from tokens import pooled


def entmax(scores, alpha):
    """Correia et al., 2019, equation 5, tau by 200 halvings in float64."""
    z = (alpha - 1) * scores
    low, high = z.max() - 1, z.max()
    for _ in range(200):
        tau = (low + high) / 2
        total = (np.maximum(z - tau, 0) ** (1 / (alpha - 1))).sum()
        low, high = (tau, high) if total >= 1 else (low, tau)
    return np.maximum(z - low, 0) ** (1 / (alpha - 1))


def reference(heads, alpha):
    q, k, v = (x.double().numpy() for x in (heads.q, heads.k, heads.v))
    out = np.zeros(v.shape)
    for b, h, i in np.ndindex(*q.shape[:3]):
        seen = [j for j in range(q.shape[2]) if heads.keep[b, j] and (j <= i or not heads.causal)]
        if heads.keep[b, i] and seen:
            each = alpha[h] if np.ndim(alpha) else alpha
            out[b, h, i] = entmax(k[b, h, seen] @ q[b, h, i] * heads.scale, each) @ v[b, h, seen]
    return out


@pytest.mark.parametrize("looks_back", [False, True])
@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("alpha", [1.2, 1.5, 1.7, 2.0])
def test_is_the_papers_formula_row_by_row(alpha, left, looks_back):
    heads = drawn([9, 6, 2, 1], left=left, causal=looks_back, spread=2.0)
    found = Entmax(alpha=alpha).mix(heads, {})
    assert torch.isfinite(found).all()
    np.testing.assert_allclose(kept(heads, found), kept(heads, reference(heads, alpha)), rtol=0, atol=2e-5)


def test_each_head_has_its_own_alpha():
    heads = drawn([9, 6, 2], spread=2.0)
    alphas = np.array([1.1, 1.4, 1.9])
    own = {"alpha": torch.tensor(alphas - 1).logit().float()}
    found = Entmax(learned=True).mix(heads, own)
    np.testing.assert_allclose(kept(heads, found), kept(heads, reference(heads, alphas)), rtol=0, atol=2e-5)


def test_an_alpha_of_one_is_full_attention_and_one_near_it_nearly():
    heads = drawn([9, 6, 2])
    wanted = kept(heads, full(heads))
    np.testing.assert_allclose(kept(heads, Entmax(alpha=1).mix(heads, {})), wanted, rtol=0, atol=1e-5)
    np.testing.assert_allclose(kept(heads, Entmax(alpha=1.001).mix(heads, {})), wanted, rtol=0, atol=5e-2)
    assert by_loops(heads, lambda q, k: 1.0).shape == heads.v.shape


@pytest.mark.parametrize("exact", [_half, _sparsemax])
def test_derivatives_of_sorting_are_those_of_finite_differences(exact):
    torch.manual_seed(0)
    z = torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: exact(x - x.detach().amax(-1, keepdim=True)), (z,))


def test_derivatives_of_halving_are_those_of_finite_differences_alpha_included():
    torch.manual_seed(0)
    z = torch.randn(4, 6, dtype=torch.float64)
    z = (z - z.amax(-1, keepdim=True)).requires_grad_()
    power = torch.tensor([[0.3], [0.5], [0.7], [0.9]], dtype=torch.float64, requires_grad=True)
    # The largest is left as it is: halving looks for tau below it.
    fixed = torch.zeros(4, 6, dtype=torch.bool).scatter(1, z.argmax(-1, keepdim=True), True)

    def found(z, power):
        return _bisected(torch.where(fixed, 0.0, z) * power, power, 45)

    assert torch.autograd.gradcheck(found, (z, power))


def test_of_one_key_all_is_taken():
    heads = drawn([1])
    for kind in (Entmax(), Entmax(alpha=2), Entmax(alpha=1.3)):
        np.testing.assert_allclose(kind.mix(heads, {}), heads.v, rtol=0, atol=1e-6)


@pytest.mark.parametrize("options", ["", ",learned=true"])
def test_runtimes_agree_and_it_learns(options):
    program = lowered_alike("bert", f"kind=entmax{options}")
    trained(program, "alpha" if options else "query")


def test_nothing_later_is_seen():
    causal("gpt2", "kind=entmax")


def test_images_are_taken_and_scores_with_a_position_bias_are_left():
    assert run("substitute-attention{kind=entmax}", zoo.fx_program("vit")).ok
    done = run("substitute-attention{kind=entmax}", pooled("t5"))
    assert "a position bias is added to its scores" in str(done.steps[0].error)
    done = run("substitute-attention{kind=entmax}", pooled("modernbert"))
    assert done.steps[0].statistics["attentions substituted"] == "1 of 2"
    assert "it looks at a window of keys already" in done.steps[0].notes[0]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"alpha": 2.5}, r"alpha is 2.5, and 1 \(softmax\) to 2"),
        ({"alpha": 2, "learned": True}, "what is learned starts between 1 and 2"),
        ({"iterations": 0}, "iterations is 0, and 1 at least"),
    ],
)
def test_bad_options_are_refused(options, reason):
    with pytest.raises(ValueError, match=reason):
        Entmax(**options)

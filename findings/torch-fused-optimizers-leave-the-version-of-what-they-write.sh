#!/usr/bin/env bash
# optimizer.step() with fused=True writes into parameters and leaves their version counter (`_version`) as it was;
# the other implementations of the same optimizer raise it. Autograd's check that a saved tensor is still what it
# was reads that counter: a backward pass through a graph from before the step ends in an error after a plain step,
# and after a fused one gives the gradient at the new weights without a word. Whatever caches by version (digests of
# weights, quantized copies) is stale in the same way. Seen: torch 2.13.0 on a CPU, AdamW, Adam, SGD and Adagrad;
# gradient of (w^2 x) with w = 1, x = 3: 6.0 before the step, 5.4 after a fused step of 0.1.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m pip install --quiet --disable-pip-version-check --no-input --target "$folder" torch==2.13.0 numpy==2.4.6
PYTHONPATH=$folder python3 - <<'PY'
import torch

def stepped(kind, **options):
    """(how far the version rose, the gradient through a graph from before the step, or None for an error)"""
    w = torch.nn.Parameter(torch.tensor([1.0]))
    optimizer = kind([w], lr=0.1, **options)
    loss = (w * w * 3.0).sum()  # saves w
    (before,) = torch.autograd.grad(loss, w, retain_graph=True)
    assert before.item() == 6.0
    w.grad, version = torch.ones(1), w._version
    optimizer.step()
    assert w.item() != 1.0, "it has written"
    rose = w._version - version
    try:
        (after,) = torch.autograd.grad(loss, w)
    except RuntimeError as error:
        assert "modified by an inplace operation" in str(error)
        return rose, None
    return rose, after.item()

for kind in (torch.optim.AdamW, torch.optim.Adam, torch.optim.SGD, torch.optim.Adagrad):
    more = {"weight_decay": 0.0}
    plain, fused = stepped(kind, foreach=False, **more), stepped(kind, fused=True, **more)
    print(kind.__name__, "plain:", plain, "fused:", fused)
    assert plain[0] > 0 and plain[1] is None
    assert fused[0] == 0 and abs(fused[1] - 5.4) < 1e-3
PY

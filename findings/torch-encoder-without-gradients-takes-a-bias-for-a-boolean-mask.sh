#!/usr/bin/env bash
# nn.TransformerEncoder in evaluation mode with a mask of floats, which is documented to be added to the scores
# (an ALiBi bias, relative positions): under torch.no_grad() its fused kernel hides every key whose bias is not
# zero, as if the mask were boolean; with gradients on, or with the fused kernel switched off, the bias is added.
# nn.MultiheadAttention, given the same mask, adds it in both. Seen: torch 2.13.0 on a CPU; outputs 0.73 apart
# where the largest is 2.6, bit-equal to those of the boolean mask `bias != 0`.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m pip install --quiet --disable-pip-version-check --no-input --target "$folder" torch==2.13.0 numpy==2.4.6
PYTHONPATH=$folder python3 - <<'EOF'
import torch
from torch import nn
torch.manual_seed(0)
layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
encoder = nn.TransformerEncoder(layer, 1).eval()
x, places = torch.randn(3, 5, 8), torch.arange(5)
bias = -(places[:, None] - places).abs().float()
with_gradients = encoder(x, mask=bias).detach()
with torch.no_grad():
    without = encoder(x, mask=bias)
    boolean = encoder(x, mask=bias != 0)
    torch.backends.mha.set_fastpath_enabled(False)
    unfused = encoder(x, mask=bias)
    torch.backends.mha.set_fastpath_enabled(True)
    attention = nn.MultiheadAttention(8, 2, batch_first=True).eval()
    alone = attention(x, x, x, attn_mask=bias, need_weights=False)[0]
again = attention(x, x, x, attn_mask=bias, need_weights=False)[0].detach()
print("without gradients against with:", float((without - with_gradients).abs().max()), "of", float(with_gradients.abs().max()))
print("without gradients against the boolean mask:", float((without - boolean).abs().max()))
print("with the fused kernel off against with gradients:", float((unfused - with_gradients).abs().max()))
assert (without - with_gradients).abs().max() > 0.1
assert torch.equal(without, boolean)
assert torch.allclose(unfused, with_gradients, atol=1e-6)
assert torch.allclose(alone, again, atol=1e-6)
EOF

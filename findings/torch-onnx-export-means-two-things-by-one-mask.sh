#!/usr/bin/env bash
# torch.onnx.export of scaled_dot_product_attention with a boolean mask, for a query that sees no key (a padded
# row under a causal mask): PyTorch gives zeros; exported at opset 20 the file gives the mean of the values, at
# opset 23 zeros. With a mask of 0 and -inf PyTorch gives zeros too; the file of opset 20 gives NaN, which then
# spreads over all tokens in the next layer, and that of opset 23 zeros. Seen: torch 2.13.0, onnxscript 0.7.2,
# onnxruntime 1.31.0.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m pip install --quiet --disable-pip-version-check --no-input --target "$folder" torch==2.13.0 onnxscript==0.7.2 onnxruntime==1.31.0 onnx==1.23.0 numpy==2.4.6
PYTHONPATH=$folder python3 - <<'EOF'
import contextlib, io, logging, warnings
import numpy as np, onnxruntime as ort, torch
warnings.simplefilter("ignore")
logging.disable(logging.CRITICAL)
class Module(torch.nn.Module):
    def forward(self, q, k, v, mask):
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
torch.manual_seed(0)
q, k, v = torch.randn(3, 1, 1, 3, 4)
keep = torch.tensor([[True, False, False], [False, False, False], [True, True, True]])
infinite = torch.zeros(3, 3).masked_fill(~keep, -torch.inf)
seen = {}
for name, mask in (("boolean", keep), ("infinite", infinite)):
    assert not Module()(q, k, v, mask)[0, 0, 1].any()
    for opset in (20, 23):
        with contextlib.redirect_stdout(io.StringIO()):
            program = torch.onnx.export(Module(), (q, k, v, mask), dynamo=True, opset_version=opset, verbose=False)
        session = ort.InferenceSession(program.model_proto.SerializeToString())
        feed = dict(zip([i.name for i in session.get_inputs()], [x.numpy() for x in (q, k, v, mask)]))
        seen[name, opset] = session.run(None, feed)[0][0, 0, 1]
        print(name, "mask at opset", opset, seen[name, opset], "(PyTorch: zeros)")
assert np.allclose(seen["boolean", 20], v[0, 0].mean(0), atol=1e-6)
assert np.isnan(seen["infinite", 20]).all()
assert not seen["boolean", 23].any() and not seen["infinite", 23].any()
EOF

#!/usr/bin/env bash
# T5Gemma given decoder_input_ids without decoder_attention_mask: with use_cache=False its decoder hides every
# token whose id is pad_token_id; with use_cache=True, the default, it hides none, since the cache is made before
# the mask and the mask only where there is no cache. A decoder's input that begins with the padding token, as T5's
# does, therefore has other hidden states in training or export (no cache) than in a default call: 0.45 apart where
# the largest is 2.8. Given the mask, both agree to the last bit. Seen: transformers 5.23.0, torch 2.13.0.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m pip install --quiet --disable-pip-version-check --no-input --target "$folder" transformers==5.23.0 torch==2.13.0 numpy==2.4.6
HF_HUB_OFFLINE=1 PYTHONPATH=$folder python3 - 2>/dev/null <<'EOF'
import torch, transformers
torch.manual_seed(0)
sizes = dict(vocab_size=101, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
             intermediate_size=72, head_dim=8, max_position_embeddings=64, query_pre_attn_scalar=8, pad_token_id=0)
config = transformers.T5GemmaConfig(encoder=sizes, decoder={**sizes, "cross_attention_hidden_size": 32})
model = transformers.T5GemmaModel(config).eval()
ids, plain = (torch.randint(1, 101, (1, 9)) for _ in range(2))
padded = plain.clone()
padded[0, 0] = config.decoder.pad_token_id
def states(decoder, **options):
    with torch.no_grad():
        return model(input_ids=ids, decoder_input_ids=decoder, **options).last_hidden_state[:, 1:]
mask = (padded != 0).long()
print("transformers", transformers.__version__)
print("without a padding token:", float((states(plain) - states(plain, use_cache=False)).abs().max()))
print("with one at the start:", float((states(padded) - states(padded, use_cache=False)).abs().max()))
assert torch.equal(states(plain), states(plain, use_cache=False))
assert torch.equal(states(padded), states(padded, use_cache=True))
assert (states(padded) - states(padded, use_cache=False)).abs().max() > 0.1
assert torch.equal(states(padded, decoder_attention_mask=mask), states(padded, use_cache=False))
EOF

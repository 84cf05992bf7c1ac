#!/usr/bin/env bash
# enable_truncation(n) of the tokenizers library promises at most n tokens. Where n is smaller than the number
# of special tokens that the post-processor adds ([CLS] and [SEP]: two), a text is not cut at all: with n = 1
# seven tokens come out, with n = 2 two. A service that takes its longest length from a configuration gets whole
# texts from a length of one. Seen: tokenizers 0.23.3.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m pip install --quiet --disable-pip-version-check --no-input --target "$folder" tokenizers==0.23.3
PYTHONPATH=$folder python3 - <<'EOF'
from tokenizers import Tokenizer, models, pre_tokenizers, processors
vocabulary = {word: i for i, word in enumerate(["[CLS]", "[SEP]", "[UNK]", "a"])}
counts = {}
for most in (4, 2, 1):
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 1), ("[CLS]", 0))
    tokenizer.enable_truncation(most)
    counts[most] = len(tokenizer.encode("a a a a a").ids)
    print(f"enable_truncation({most}): {counts[most]} tokens")
assert counts == {4: 4, 2: 2, 1: 7}
EOF

#!/usr/bin/env bash
# usearch keeps vectors of dtype "i8" as codes of their direction: each is divided by its own length first, whatever
# the metric. So "ip" finds the nearest direction and not the largest product, "l2sq" says that x and 3x are the same
# point, and both give distances of codes (up to 127^2 = 16129), where f32, f16 and bf16 give them in the vectors'
# own units. What is read back are the codes. Whoever saves memory in an index of raw inner products (MIPS, keys of
# a kNN language model) or of Euclidean distances gets another order, without a word. Seen: usearch 2.26.6.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m pip install --quiet --disable-pip-version-check --no-input --target "$folder" usearch==2.26.6 numpy==2.4.6 \
  2>/dev/null
PYTHONPATH=$folder python3 - <<'PY'
import numpy as np
import usearch
from usearch.index import Index

rng = np.random.default_rng(0)
query = rng.normal(size=64).astype(np.float32)
aside = rng.normal(size=64).astype(np.float32)
aside -= query * (aside @ query) / (query @ query)
stored = np.stack([query, 3 * query + aside]).astype(np.float32)  # the second: a product three times as large
print("usearch", usearch.__version__, "| products", (stored @ query).round(1),
      "| squared distances", ((stored - query) ** 2).sum(1).round(1))
first, apart = {}, {}
for dtype in ("f32", "bf16", "i8"):
    found = Index(ndim=64, metric="ip", dtype=dtype)
    found.add(np.arange(2), stored)
    match = found.search(query, 2, exact=True)
    first[dtype] = int(match.keys[0])
    print(f"ip   {dtype:5} order {match.keys.tolist()} distances {match.distances.round(1).tolist()}")
    found = Index(ndim=64, metric="l2sq", dtype=dtype)
    found.add(np.arange(1), 3 * query[None])
    apart[dtype] = float(found.search(query, 1, exact=True).distances[0])
    print(f"l2sq {dtype:5} between x and 3x: {apart[dtype]:.1f}")
assert first == {"f32": 1, "bf16": 1, "i8": 0}, first
assert apart["f32"] > 100 and apart["bf16"] > 100 and apart["i8"] == 0, apart
PY

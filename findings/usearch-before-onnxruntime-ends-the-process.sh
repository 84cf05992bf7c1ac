#!/usr/bin/env bash
# Whoever imports usearch and then onnxruntime loses the process: a segmentation fault while onnxruntime's module is
# loaded, with no Python error. The other way round both work, and so does usearch's kernel package numkong before
# onnxruntime. A server that opens an index before the model that asks it dies at its first question.
# Seen: usearch 2.26.6, numkong 7.8.6, onnxruntime 1.31.0, Python 3.11, Linux x86-64.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m pip install --quiet --disable-pip-version-check --no-input --target "$folder" \
  usearch==2.26.6 numkong==7.8.6 onnxruntime==1.31.0 numpy==2.4.6
export PYTHONPATH=$folder
run() {
  local status=0
  (python3 -c "$1") 2>/dev/null || status=$?
  echo "$1: exit status $status"
  [ "$status" = "$2" ]
}
run "import onnxruntime; import usearch.index" 0
run "import numkong; import onnxruntime" 0
run "import usearch.index; import onnxruntime" 139

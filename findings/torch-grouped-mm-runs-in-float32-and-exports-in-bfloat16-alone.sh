#!/usr/bin/env bash
# torch.nn.functional.grouped_mm on a CPU multiplies float32, float16 and bfloat16 in eager mode, and float32 exactly
# as one product a group does. Its shape function (the "meta" kernel, which torch.export, torch.compile and fake
# tensors ask) takes bfloat16 alone. So a mixture of experts in float32 that runs, and trains, ends in an error where
# it is traced, and the message asks for a type that the model does not have. Seen: torch 2.13.0, CPU.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m pip install --quiet --disable-pip-version-check --no-input --target "$folder" torch==2.13.0 numpy==2.4.6
PYTHONPATH=$folder python3 - 2>/dev/null <<'PY'
import torch

rows, experts = torch.randn(6, 8), torch.randn(2, 8, 8)
ends = torch.tensor([2, 6], dtype=torch.int32)


class Experts(torch.nn.Module):
    def forward(self, rows, experts, ends):
        return torch.nn.functional.grouped_mm(rows, experts, offs=ends)


for dtype in (torch.float32, torch.float16, torch.bfloat16):
    given = rows.to(dtype), experts.to(dtype), ends
    found = Experts()(*given)
    wanted = torch.cat([given[0][:2] @ given[1][0], given[0][2:] @ given[1][1]])
    far = (found.float() - wanted.float()).abs().max().item()
    assert found.dtype == dtype and far <= (0 if dtype == torch.float32 else 0.1), far
    try:
        torch.export.export(Experts(), given)
        said = "exported"
    except RuntimeError as error:
        said = str(error).splitlines()[0]
    print(dtype, "eager: right; torch.export:", said)
    if dtype == torch.bfloat16:
        assert said == "exported"
    else:
        assert "Expected inputs of BF16 type" in said
PY

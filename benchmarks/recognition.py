"""Blocks found over the zoo of architectures, against what reading each model's code says there is.

    python benchmarks/recognition.py [--json FILE]

Every architecture is captured in both spellings of attention that it offers (eager and SDPA) and looked at in
both dialects. A cell reads found/expected; the last column gives the first reason for anything missed.
"""

import argparse
import json
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

from graphwright.ir.blocks import recognise
from graphwright.ir.view import view
from zoo import ARCHITECTURES, fx_program, onnx_program

KINDS = ("attention", "feed_forward", "norm", "embedding")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    table, record, short = Table("architecture", "spelling", "dialect", *KINDS, "first reason"), [], 0
    for name, case in ARCHITECTURES.items():
        for attn in case.attns:
            for dialect, program in (("fx", fx_program), ("onnx", onnx_program)):
                blocks = recognise(view(program(name, attn)))
                found = {kind: len(getattr(blocks, kind)) for kind in KINDS}
                complete = all(found[kind] == case.expected[kind] for kind in KINDS)
                short += not complete
                reason = "" if complete or not blocks.missed else blocks.missed[0].reason
                record.append({"name": name, "attn": attn, "dialect": dialect, **found, "reason": reason})
                cells = (f"{found[kind]}/{case.expected[kind]}" for kind in KINDS)
                table.add_row(name, attn, dialect, *cells, reason)
    Console(width=150).print(table)
    print(f"{len(record) - short} of {len(record)} complete")
    if args.json:
        args.json.write_text(json.dumps(record, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())

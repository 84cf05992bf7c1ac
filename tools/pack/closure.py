"""The part of graphwright that runs bundles, found by following its imports: a wheel carries that alone."""

from __future__ import annotations

import ast
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).parents[2]
_START = "backends/running/runner.py"


def running() -> dict[str, Path]:
    """Place below the package -> file, of every module that `load` and a bundle's calls can reach, and of the
    packages that they lie in. All of their imports of one another are relative, so they run under any name.
    """
    found: dict[str, Path] = {}
    left = [_START]
    while left:
        place = left.pop()
        if place in found:
            continue
        found[place] = ROOT / place
        tree = ast.parse(found[place].read_text("utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.level:
                left += _imported(PurePosixPath(place), node)
    folders = {str(folder) for place in found for folder in PurePosixPath(place).parents} - {"."}
    packages = {f"{folder}/__init__.py" for folder in folders}
    return dict(sorted({**found, **{place: ROOT / place for place in packages}}.items()))


def _imported(place: PurePosixPath, node: ast.ImportFrom) -> list[str]:
    base = place.parents[node.level - 1]
    module = base.joinpath(*(node.module or "").split("."))
    return [
        str(path)
        for path in (
            module.with_name(f"{module.name}.py"),
            *(module / f"{alias.name}.py" for alias in node.names),
        )
        if module != PurePosixPath(".") and (ROOT / path).is_file()
    ]

"""The house: what stands where, which room may import which, and that nothing goes round in circles."""

import ast
from functools import cache
from itertools import pairwise
from pathlib import Path

import networkx
import pytest
from graphwright.passes.manager.registry import FAMILIES, PASSES

ROOT = Path(__file__).parents[1]
FLOORS = ("ir", "passes", "backends", "tools")  # each imports those before it, and none behind it


@cache
def modules() -> dict[str, Path]:
    """Dotted name -> file, of every module of the package."""
    files = [file for floor in FLOORS for file in (ROOT / floor).rglob("*.py")]
    return {".".join(f.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): f for f in files}


@cache
def imports() -> set[tuple[str, str]]:
    """(importer, imported), of modules: at the top, inside functions and for types alike."""
    found = set()
    for name, file in modules().items():
        here = name.split(".") if file.name == "__init__.py" else name.split(".")[:-1]
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level:
                base = [*here[: len(here) - node.level + 1], *([node.module] if node.module else [])]
                for alias in node.names:
                    whole = ".".join([*base, alias.name])
                    found.add((name, whole if whole in modules() else ".".join(base)))
    return {(importer, imported) for importer, imported in found if importer != imported}


def room(name: str) -> str:
    """The folder that a module stands in; a module right under a floor is a room of its own."""
    return name if name.count(".") < 2 or modules()[name].name == "__init__.py" else name.rpartition(".")[0]


def circles(edges: set[tuple[str, str]]) -> list[list[str]]:
    graph = networkx.DiGraph([(a, b) for a, b in edges if a != b])
    return [sorted(part) for part in networkx.strongly_connected_components(graph) if len(part) > 1]


def test_imports_are_seen():
    assert ("passes.manager.pipeline", "passes.manager.contract") in imports()
    assert {imported for _, imported in imports()} <= set(modules())


def test_floors_import_those_below_alone():
    above = [
        f"{importer} -> {imported}"
        for importer, imported in sorted(imports())
        if FLOORS.index(importer.partition(".")[0]) < FLOORS.index(imported.partition(".")[0])
    ]
    assert above == []


def test_no_modules_import_each_other():
    assert circles(imports()) == []


def test_no_rooms_import_each_other():
    assert circles({(room(a), room(b)) for a, b in imports()}) == []


def test_bundles_run_without_what_made_them():
    """What answers a bundle's calls reaches no pass and no kernel, whatever it imports."""
    graph = networkx.DiGraph(sorted(imports()))
    reached = networkx.descendants(graph, "backends.running.runner")
    assert [name for name in sorted(reached) if name.startswith(("passes", "backends.tvm.build"))] == []


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_holds_passes_and_what_they_share_in_rooms(family):
    standing = {file.stem for file in (ROOT / "passes" / family).glob("*.py")} - {"__init__"}
    assert standing == {name.replace("-", "_") for name in FAMILIES[family]}


@pytest.mark.parametrize("name", PASSES)
def test_a_pass_has_a_test_of_its_name(name):
    family = next(family for family, names in FAMILIES.items() if name in names)
    assert (ROOT / "tests" / "passes" / family / f"test_{name.replace('-', '_')}.py").exists()


def test_rooms_of_tests_are_rooms_of_the_house():
    folders = {file.parent.relative_to(ROOT / "tests") for file in (ROOT / "tests").rglob("test_*.py")}
    standing = {file.parent.relative_to(ROOT) for file in modules().values()}
    assert folders - standing == {Path()}


def test_the_order_of_floors_is_a_chain():
    graph = networkx.DiGraph([(a.partition(".")[0], b.partition(".")[0]) for a, b in imports()])
    assert all(networkx.has_path(graph, upper, lower) for lower, upper in pairwise(FLOORS))


def test_the_page_on_passes_shows_the_pass_as_it_stands():
    page = (ROOT / "docs" / "adding-a-pass.md").read_text("utf-8")
    for block, file in zip(
        page.split("```python\n")[1:],
        ("passes/fuse/keep_residual_sum.py", "tests/passes/fuse/test_keep_residual_sum.py"),
        strict=True,
    ):
        assert block.partition("```")[0] in (ROOT / file).read_text("utf-8")

"""What is installed is what stands here."""

import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROOMS = ("ir", "passes", "backends", "tools")


def test_every_package_is_listed():
    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    standing = {
        ".".join(["graphwright", *file.parent.relative_to(ROOT).parts])
        for room in ROOMS
        for file in (ROOT / room).rglob("*.py")
    }
    assert listed == standing | {"graphwright"}


def test_every_package_has_its_init():
    folders = {file.parent for room in ROOMS for file in (ROOT / room).rglob("*.py")}
    assert [folder for folder in sorted(folders) if not (folder / "__init__.py").exists()] == []


def test_what_the_runner_is_built_from_is_installed():
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    patterns = tool["package-data"]["graphwright.backends.runners"]
    files = [
        file for file in (ROOT / "backends" / "runners").iterdir() if file.is_file() and file.suffix != ".py"
    ]
    assert [file.name for file in files if not any(file.match(pattern) for pattern in patterns)] == []
    assert len(files) > 10


def test_pins_cover_every_dependency():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = [
        *project["dependencies"],
        *(name for names in project["optional-dependencies"].values() for name in names),
    ]
    pinned = {
        line.split("==")[0].lower().replace("_", "-")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line
    }
    wanted = {
        name.split(">")[0].split("=")[0].lower().replace("_", "-")
        for name in named
        if "graphwright[" not in name
    }
    assert wanted - pinned == set()


def test_the_public_face_loads_without_the_heavy_libraries():
    code = (
        "import sys\n"
        "for name in ('torch', 'transformers', 'tvm', 'onnx', 'onnxscript'): sys.modules[name] = None\n"
        "import graphwright as gw\n"
        "gw.load\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd="/")

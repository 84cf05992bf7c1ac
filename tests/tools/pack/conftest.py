"""A bundle of three tiny graphs, and a folder of site-packages that has nothing but what runs it."""

import importlib.util
import shutil
from importlib import metadata
from pathlib import Path

import pytest
from graphwright.backends.bundles.bundle import Route, Variant, write
from graphwright.backends.runners.build import LIBRARY, ONNXRUNTIME, PROGRAM

_SPEC = importlib.util.spec_from_file_location(
    "tiny_encoder", Path(__file__).parents[2] / "backends" / "conftest.py"
)
tiny_encoder = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(tiny_encoder)

ROUTES = [
    Route("1x8", 1, 8, 0.0, "default"),
    Route("16x8", 16, 8, 0.0, "wide"),
    Route("mixed:16", 16, 8, 0.5, "packed"),
]


@pytest.fixture(scope="session")
def tiny_feed():
    return tiny_encoder.a_feed


@pytest.fixture(scope="session")
def tiny_program():
    return tiny_encoder.encoder()


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory):
    """Its directory is called tiny-model."""
    variants = [
        Variant(route.graph, tiny_encoder.encoder(tiny_encoder.weights(i))) for i, route in enumerate(ROUTES)
    ]
    return write(
        tmp_path_factory.mktemp("bundles") / "tiny-model", variants, ROUTES, threads=1, report="# tiny\n"
    )


@pytest.fixture(scope="session")
def only(tmp_path_factory):
    """only(*distributions): a folder in which nothing but these can be imported."""

    def linked(*names):
        folder = tmp_path_factory.mktemp("site")
        for name in names:
            distribution = metadata.distribution(name)
            for top in {Path(str(path)).parts[0] for path in distribution.files}:
                if top != "..":
                    (folder / top).symlink_to(Path(str(distribution.locate_file(top))))
        return folder

    return linked


@pytest.fixture(scope="session")
def any_runner(tmp_path_factory):
    """What looks like a runner to whoever packs one: any program in the place of each of its files."""
    folder = tmp_path_factory.mktemp("runner")
    for name in (PROGRAM, LIBRARY, ONNXRUNTIME):
        shutil.copy(shutil.which("true"), folder / name)
    return folder

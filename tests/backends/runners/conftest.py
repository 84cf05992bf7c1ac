"""The runner, built once."""

import c_runner
import pytest


@pytest.fixture(scope="session")
def runner(tmp_path_factory):
    return c_runner.built(tmp_path_factory)

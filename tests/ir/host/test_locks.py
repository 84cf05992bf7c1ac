"""A directory for one process alone: whoever else wants it is told so."""

import pytest
from graphwright.ir.errors import ConfigError
from graphwright.ir.host.locks import alone


def test_a_second_one_is_told_and_the_first_one_goes_on(tmp_path):
    with alone(tmp_path, ConfigError, "busy"):
        with pytest.raises(ConfigError, match=r"^busy$"), alone(tmp_path, ConfigError, "busy"):
            pass
        with pytest.raises(ConfigError, match=r"^busy$"), alone(tmp_path, ConfigError, "busy"):
            pass
    with alone(tmp_path, ConfigError, "busy"):
        pass


def test_what_is_not_there_is_not_busy(tmp_path):
    with (
        pytest.raises(ConfigError, match="none can't be opened: "),
        alone(tmp_path / "none", ConfigError, "busy"),
    ):
        pass

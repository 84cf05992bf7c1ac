"""What says that there is no Ray to join, at once and in a sentence."""

import pytest
from graphwright.ir.errors import ConfigError
from graphwright.tools.search.cluster.joined import RESOURCE, joined

NOWHERE = "127.0.0.2:9"


@pytest.mark.parametrize(
    ("named", "sentence"),
    [
        (NOWHERE, f"no Ray answers at {NOWHERE}: start one with `ray start --head --resources="),
        ("ray://127.0.0.2:10001", "RAY_ADDRESS is 'ray://127.0.0.2:10001': name the head as host:port"),
        ("127.0.0.2", "RAY_ADDRESS is '127.0.0.2': name the head as host:port"),
    ],
)
def test_an_address_where_none_is(monkeypatch, named, sentence):
    monkeypatch.setenv("RAY_ADDRESS", named)
    with pytest.raises(ConfigError) as caught, joined():
        pass
    assert sentence in str(caught.value)


def test_a_machine_without_one(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    from ray._private import services

    monkeypatch.setattr(services, "find_gcs_addresses", lambda: set())
    monkeypatch.setattr(services, "find_bootstrap_address", lambda folder: None)
    with pytest.raises(ConfigError, match="no Ray is running on this machine") as caught, joined():
        pass
    assert RESOURCE in str(caught.value)


def test_without_the_package(monkeypatch):
    monkeypatch.setattr("graphwright.tools.search.cluster.joined.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'graphwright\[cluster\]'"), joined():
        pass

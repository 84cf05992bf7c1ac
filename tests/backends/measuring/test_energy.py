import threading
import time

import pytest
from graphwright.backends.measuring import energy


@pytest.fixture
def rapl(tmp_path):
    """Two packages and a core domain, as the kernel lays them out."""
    for name in ("intel-rapl:0", "intel-rapl:1", "intel-rapl:0:0"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "energy_uj").write_text("900\n")
        (tmp_path / name / "max_energy_range_uj").write_text("1000\n")
    return tmp_path


def test_packages_are_added_up_and_their_cores_not_again(rapl):
    zones = energy.domains(rapl)
    assert [zone.name for zone in zones] == ["intel-rapl:0", "intel-rapl:1"]
    before = energy.read(zones)
    (rapl / "intel-rapl:1" / "energy_uj").write_text("950\n")
    assert energy.joules(zones, before, energy.read(zones)) == pytest.approx(50e-6)


def test_a_counter_that_wraps_around_goes_on(rapl):
    zones = energy.domains(rapl)
    before = energy.read(zones)
    (rapl / "intel-rapl:0" / "energy_uj").write_text("100\n")
    assert energy.joules(zones, before, energy.read(zones)) == pytest.approx(200e-6)


def test_a_machine_that_does_not_tell_has_no_domains(tmp_path, rapl):
    for path in rapl.rglob("energy_uj"):
        path.write_text("denied")
    assert energy.domains(rapl) == []
    assert energy.domains(tmp_path / "nowhere") == []


def test_a_meter_adds_up_over_many_wraps(rapl):
    meter = energy.Meter(rapl)
    assert meter.joules() == 0
    for value in (100, 950, 100, 950):  # 200, 850, 150 and 850 of 1000
        (rapl / "intel-rapl:0" / "energy_uj").write_text(f"{value}\n")
        meter.joules()
    assert meter.joules() == pytest.approx((200 + 850 + 150 + 850) * 1e-6)


def test_a_meter_reads_by_itself_and_ends_with_whoever_has_it(rapl):
    before = set(threading.enumerate())
    meter = energy.Meter(rapl, every=0.01)
    (watching,) = set(threading.enumerate()) - before
    (rapl / "intel-rapl:0" / "energy_uj").write_text("950\n")
    while meter._last[0] != 950:
        time.sleep(0.01)
    del meter
    watching.join(10)
    assert not watching.is_alive()


def test_a_machine_that_does_not_tell_is_not_guessed_at(tmp_path):
    assert energy.Meter(tmp_path).joules() is None

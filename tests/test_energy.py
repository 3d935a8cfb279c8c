"""Energy as the machine's own counters tell it: no guess where they do not."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from stillhouse import latency


def counters(folder: Path, values: dict[str, int]) -> Path:
    """As Linux has them: microjoules, packages beside their parts."""
    for name, value in values.items():
        (folder / name).mkdir(parents=True)
        (folder / name / "energy_uj").write_text(f"{value}\n")
    return folder


def test_packages_are_added_up_and_their_parts_are_not_counted_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = {"intel-rapl:0": 2_000_000, "intel-rapl:0:0": 900_000, "intel-rapl:1": 500_000}
    monkeypatch.setattr(latency, "RAPL", counters(tmp_path, values))
    assert latency.joules() == pytest.approx(2.5)


def test_a_machine_that_does_not_tell_has_no_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "RAPL", tmp_path)
    assert latency.joules() is None
    monkeypatch.setattr(latency, "device", lambda: torch.device("cuda"))
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert latency.joules() is None


def test_an_accelerators_millijoules_are_added_to_the_processors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The counter of NVML is in millijoules, that of RAPL in microjoules."""
    library = SimpleNamespace(
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByUUID=lambda uuid: uuid,
        nvmlDeviceGetTotalEnergyConsumption=lambda handle: 3_000 if handle == "GPU-7" else 0,
    )
    monkeypatch.setitem(sys.modules, "pynvml", library)
    monkeypatch.setattr(latency, "device", lambda: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda place: SimpleNamespace(uuid="7"))
    monkeypatch.setattr(latency, "RAPL", counters(tmp_path, {"intel-rapl:0": 1_000_000}))
    assert latency.joules() == pytest.approx(4.0)

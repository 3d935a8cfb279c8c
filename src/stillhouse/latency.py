"""How long one user waits: percentiles at batch size 1, and the energy of the work where the machine tells it.

Models are measured in turn, one request each, after a warm-up; every request is a row of its own, so that percentiles
are over rows as well as over the machine's moods.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from .data.encode import Example
from .models.machine import device, synchronise
from .tasks import Task, on_device

REQUESTS, WARM_UP = 12, 2
PERCENTILES = (50, 90, 95, 99)
RAPL = Path("/sys/class/powercap")


def latencies(
    models: dict[str, PreTrainedModel], task: Task, examples: list[Example]
) -> dict[str, dict[str, Any]]:
    """Model -> {"what", "batch", "requests", "p50", "p90", "p95", "p99"}, in seconds.

    A language model's is the time to the first token of its answer; a classifier's, to its label.
    """
    rows = [examples[number % len(examples)] for number in range(REQUESTS)]
    times: dict[str, list[float]] = {name: [] for name in models}
    work = {name: _request(model, task) for name, model in models.items()}
    for number, row in enumerate([*rows[:WARM_UP], *rows]):
        for name, answer in work.items():
            start = time.perf_counter()
            answer(row)
            synchronise()
            if number >= WARM_UP:
                times[name].append(time.perf_counter() - start)
    return {name: percentiles(some, task) for name, some in times.items()}


def percentiles(times: list[float], task: Task) -> dict[str, Any]:
    """Seconds that so many of 100 requests stay within."""
    values = np.percentile(times, PERCENTILES)
    return {
        "what": "answer" if task.name == "classification" else "first token",
        "batch": 1,
        "requests": len(times),
        **{f"p{share}": float(value) for share, value in zip(PERCENTILES, values, strict=True)},
    }


def _request(model: PreTrainedModel, task: Task) -> Callable[[Example], Any]:
    """What one request asks of a model: its label, or the prompt read and the first token known."""
    model.eval()

    def answer(row: Example) -> None:
        with torch.inference_mode():
            if task.name == "classification":
                task.scores(model, on_device(task.collate([row]))).hidden.argmax(-1).item()
                return
            first = next((at for at, label in enumerate(row.labels) if label >= 0), 1)
            ids = torch.tensor([row.input_ids[: first if first > 1 else len(row.input_ids) // 2 + 1]])
            model(input_ids=ids.to(device()), use_cache=True, logits_to_keep=1).logits[0, -1].argmax().item()

    return answer


def joules() -> float | None:
    """Energy used since some moment by the processors (RAPL) and by the accelerator (NVML), if the work is there, in joules;
    None where the machine does not tell."""
    if device().type == "cuda":
        accelerator = _nvml()
        return None if accelerator is None else accelerator + (_rapl() or 0.0)
    return _rapl()


def _nvml() -> float | None:
    """Of the accelerator in use, by the package nvidia-ml-py, if it is there."""
    try:
        import pynvml

        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device()).uuid}")
        return float(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1e3
    except (
        Exception
    ):  # no such package, no driver, or a machine that may not be asked: then there is no number
        return None


def _rapl() -> float | None:
    try:
        counters = sorted(RAPL.glob("intel-rapl:*/energy_uj"))
        packages = [path for path in counters if path.parent.name.count(":") == 1]
        return sum(int(path.read_text()) for path in packages) / 1e6 if packages else None
    except (OSError, ValueError):
        return None

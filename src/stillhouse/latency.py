"""How long work takes: requests of one user, and batches; and the energy of it where the machine tells.

Models are measured in turn, after a warm-up, so that a machine that slows down slows all of them; each for as long as its
numbers spread, and not longer.  A request of a language model is one call of `generate`: its first token says how long one
user waits, the tokens after it how fast the text goes on.
"""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel
from transformers.generation.streamers import BaseStreamer

from .data.encode import Example
from .measure import Interval, median_interval, quantile_interval
from .models.machine import device, synchronise
from .progress import Silent, Watch
from .tasks import Task, on_device
from .tasks.panel import Panel
from .tasks.writing import generate

REQUESTS, WARM_UP = 12, 2
NEW_TOKENS = 9
"""Of a request that goes on after its first token."""
FEWEST, MOST = 3, 6
"""Measurements of a thing before and after which its spread decides nothing."""
SPREAD = 0.04
"""A thing is known when the middle half of its measurements lies within this share of their median."""
MOMENT = 0.05
"""Seconds that one measurement of a batch takes at least: shorter ones are made several at a time."""
PERCENTILES = (50, 90, 95, 99)
RAPL = Path("/sys/class/powercap")

Action = Callable[[], Any]
NOBODY = Silent()
"""Who is told of the progress where a caller names nobody."""


@dataclass
class Requests:
    """What requests of one model took."""

    waits: list[float] = field(default_factory=list)
    """Seconds to the first token, or to the label; one a request."""
    steps: list[float] = field(default_factory=list)
    """Seconds a token after the first; one a request that went on."""
    joules: list[float] = field(default_factory=list)
    """A token after the first; one a request that went on, where the machine tells."""

    def percentiles(self, task: Task) -> dict[str, Any]:
        """{"what", "batch", "requests", "p50", …, "intervals"}: seconds that so many of 100 requests stay within."""
        found = {f"p{share}": quantile_interval(self.waits, share / 100) for share in PERCENTILES}
        return {
            "what": "first token" if task.writes else "answer",
            "batch": 1,
            "requests": len(self.waits),
            **{name: each.value for name, each in found.items()},
            "intervals": {name: each.as_json() for name, each in found.items()},
        }


@dataclass(frozen=True)
class Took:
    """What one call of some work took, between the limits of its measurements."""

    seconds: Interval
    joules: Interval | None
    """None where the machine does not tell."""


class Clock(BaseStreamer):
    """Notes when each token of an answer was there, and the energy used by the first."""

    def __init__(self) -> None:
        self.at: list[float] = []
        self.joules: float | None = None
        self._prompt = True

    def put(self, value: torch.Tensor) -> None:
        """A token; `generate` hands over the prompt first."""
        if not self._prompt:
            self.at.append(time.perf_counter())
            if len(self.at) == 1:
                self.joules = joules()
        self._prompt = False

    def end(self) -> None:
        """Nothing is left to be said."""


def settled(times: list[float]) -> bool:
    """Whether more measurements would change little, or there are as many as there are to be."""
    if len(times) < FEWEST:
        return False
    if len(times) >= MOST:
        return True
    low, high = np.percentile(times, (25, 75))
    return bool(high - low <= SPREAD * median(times))


def requests(
    models: Mapping[str, PreTrainedModel],
    tasks: Mapping[str, Task],
    rows: Mapping[str, list[Example]],
    watch: Watch = NOBODY,
) -> dict[str, Requests]:
    """REQUESTS rows, one request each: every model's first tokens, and as many further ones as it takes.

    Args: tasks, rows: by model, for each may read the rows in a tokenizer of its own.
    """
    found = {name: Requests() for name in models}
    for number in range(-WARM_UP, REQUESTS):
        watch.step("timing requests", WARM_UP + number, WARM_UP + REQUESTS)
        for name, model in models.items():
            mine = found[name] if number >= 0 else Requests()
            row = rows[name][max(number, 0) % len(rows[name])]
            # the second warm-up need not go on: what the first token needs is warm, too
            goes_on = number == -WARM_UP or (number >= 0 and not settled(mine.steps))
            request(model, tasks[name], row, goes_on, mine)
    watch.step("timing requests", WARM_UP + REQUESTS, WARM_UP + REQUESTS)
    return found


def request(model: PreTrainedModel, task: Task, row: Example, goes_on: bool, found: Requests) -> None:
    """One request of a model; `goes_on`: after its first token, where it writes any."""
    if task.writes:
        _write(model, task, row, NEW_TOKENS if goes_on else 1, found)
    else:
        _classify(model, task, row, found)


def requests_take(first: float, step: float) -> float:
    """Seconds of one model in `requests` at least, at so many to its first token (or its answer) and for each further one."""
    return (WARM_UP + REQUESTS) * first + (1 + FEWEST) * (NEW_TOKENS - 1) * step


@torch.inference_mode()
def _classify(model: PreTrainedModel, task: Task, row: Example, found: Requests) -> None:
    model.eval()
    start = time.perf_counter()
    task.scores(model, on_device(task.collate([row]))).hidden.cpu()
    found.waits.append(time.perf_counter() - start)


@torch.inference_mode()
def _write(model: PreTrainedModel, task: Task, row: Example, most: int, found: Requests) -> None:
    """The prompt of a conversation, or the first half of a plain text, and `most` tokens after it."""
    longest = model.config.get_text_config().to_dict().get("max_position_embeddings")
    prompt = prompt_of(row) if longest is None else prompt_of(row)[-max(1, longest - most) :]
    clock, ids = Clock(), torch.tensor([prompt], device=device())
    start = time.perf_counter()
    generate(model, task, ids, most, most if most > 1 else 0, clock)
    after = joules()
    found.waits.append(clock.at[0] - start)
    if (more := len(clock.at) - 1) > 0:
        found.steps.append((clock.at[-1] - clock.at[0]) / more)
        if clock.joules is not None and after is not None and after > clock.joules:
            found.joules.append((after - clock.joules) / more)


@torch.inference_mode()
def beside_one_another(
    models: Mapping[str, PreTrainedModel],
    tasks: Mapping[str, Task],
    rows: Mapping[str, list[Example]],
    counts: Mapping[str, int],
    watch: Watch = NOBODY,
) -> dict[str, list[float]]:
    """Seconds in which each language model puts one more token to so many texts at once, after a warm-up.

    The texts go on from the ends of prompts, all as long as the shortest of them, so that none of the work is padding.  A panel
    writes one text at a time, and is left out.

    Args: counts: model -> texts; who is not named is not asked.
    """
    prompts = {
        name: _of_one_length(models[name], rows[name], count)
        for name, count in counts.items()
        if not isinstance(models[name], Panel)
    }
    found: dict[str, list[float]] = {name: [] for name in prompts}
    if prompts:
        watch.note(f"  timing texts written together, {FEWEST} to {MOST} times and once to warm up")
    for number in range(-1, MOST):
        for name, ids in prompts.items():
            clock = Clock()
            generate(models[name], tasks[name], ids, NEW_TOKENS, NEW_TOKENS, clock)
            if number >= 0:
                found[name].append((clock.at[-1] - clock.at[0]) / (len(clock.at) - 1))
        if number >= 0 and all(map(settled, found.values())):
            break
    return found


def together_take(first: float, step: float) -> float:
    """Seconds of one model in `beside_one_another` at least, at so many to the texts' first tokens and for each further ones."""
    return (1 + FEWEST) * (first + (NEW_TOKENS - 1) * step)


def _of_one_length(model: PreTrainedModel, rows: list[Example], count: int) -> torch.Tensor:
    """[count, T] prompts."""
    prompts = [prompt_of(row) for row in filled(rows, count)]
    longest = model.config.get_text_config().to_dict().get("max_position_embeddings")
    room = math.inf if longest is None else max(1, longest - NEW_TOKENS)
    length = int(min(room, *map(len, prompts)))
    return torch.tensor([prompt[-length:] for prompt in prompts], device=device())


def filled(rows: list[Example], count: int) -> list[Example]:
    """So many rows, from the first again where there are fewer."""
    return [rows[number % len(rows)] for number in range(count)]


def prompt_of(row: Example) -> list[int]:
    """What a request hands over: all before the first answer; of a plain text, its first half."""
    return row.asked or row.input_ids[: len(row.input_ids) // 2 + 1]


def batches(work: Mapping[str, Action], watch: Watch = NOBODY) -> dict[str, Took]:
    """Name -> what one call of its work takes, the median of several."""
    watch.note(f"  timing batches, {FEWEST} to {MOST} times after a warm-up")
    calls = {name: _calls(action) for name, action in work.items()}
    times: dict[str, list[float]] = {name: [] for name in work}
    energy: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(MOST):
        for name, action in work.items():
            before, start = joules(), time.perf_counter()
            for _ in range(calls[name]):
                action()
            synchronise()
            times[name].append((time.perf_counter() - start) / calls[name])
            after = joules()
            if before is not None and after is not None and after > before:
                energy[name].append((after - before) / calls[name])
        if all(map(settled, times.values())):
            break
    return {
        name: Took(median_interval(times[name]), median_interval(energy[name]) if energy[name] else None)
        for name in work
    }


def batches_take(once: float) -> float:
    """Seconds of one work in `batches` at least, if a call takes `once`."""
    return (1 if once > MOMENT else 2) * once + FEWEST * max(MOMENT, once)


def _calls(action: Action) -> int:
    """Warm up, and say how many calls fill a moment."""
    took = 0.0
    for _ in range(2):
        start = time.perf_counter()
        action()
        synchronise()
        took = time.perf_counter() - start
        if took > MOMENT:
            break
    return max(1, math.ceil(MOMENT / max(took, 1e-6)))


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

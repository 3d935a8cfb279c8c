"""What a model costs to run: parameters, bytes, speed, memory.

Speeds are those of `latency`: of requests, and of batches.  Peak memory is that of a fresh process that loads the model and
reads a batch.
"""

import json
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from .data.encode import Example, read_examples, write_examples
from .errors import StillhouseError
from .files import folder_bytes
from .latency import NOBODY, Action, Requests, batches, beside_one_another, filled, requests
from .measure import Interval, median_interval
from .models.load import load_tokenizer, parameters
from .models.machine import device
from .pipeline import peak_memory
from .progress import Watch
from .tasks import Task, make_task, on_device
from .tasks.bilingual import as_read_by, voice
from .tasks.panel import members_of
from .tasks.writing import generate, read

CLASSIFY_ROWS, PREFILL_ROWS, WRITE_ROWS = 32, 4, 8
FEWER_ROWS = 2
"""Long rows in a batch on a processor, which reads them as fast as more, token for token."""

Costs = dict[str, Any]


def costs(
    models: Mapping[str, PreTrainedModel],
    folders: Mapping[str, Path],
    task: Task,
    examples: list[Example],
    kept: Path,
    watch: Watch,
    speed: bool = True,
    batch: int | None = None,
) -> dict[str, Costs]:
    """Model name -> parameters, bytes, throughput, latency and peak memory; the last three empty without `speed`.

    Args: models: of different shapes, in memory; `kept`: where `examples` lie; `batch`: rows of one, see `batch_rows`.
    """
    found = {name: size(folders[name], model) for name, model in models.items()}
    if not speed:
        unknown: Costs = {"throughput": {}, "latency": {}, "peak_memory_bytes": None}
        return {name: {**each, **unknown} for name, each in found.items()}
    rows = {name: as_read_by(task, model, examples) for name, model in models.items()}
    voices = {name: voice(task, model) for name, model in models.items()}
    asked = requests(models, voices, rows, watch)
    watch.end()  # a bar that moves by itself would be timed with what follows
    fast = throughputs(models, voices, rows, asked, batch, watch)
    what, peaks = "memory of a process of its own", []
    watch.step(what, 0, len(models))
    with ThreadPoolExecutor() as pool:  # their memory does not depend on how fast they are
        for peak in pool.map(
            lambda name: fresh_peak(folders[name], task, _kept(rows[name], examples, kept), batch), models
        ):
            peaks.append(peak)
            watch.step(what, len(peaks), len(models))
    return {
        name: {
            **found[name],
            "throughput": fast[name],
            "latency": asked[name].percentiles(voices[name]),
            "peak_memory_bytes": peak,
        }
        for name, peak in zip(models, peaks, strict=True)
    }


def shared_by_shape(measured: Mapping[str, Costs], names: list[str]) -> dict[str, Costs]:
    """Of all models: the controls have the student's shape, so they have its speed and memory; measuring them again would
    only add noise."""
    return {name: measured["teacher" if name == "teacher" else "student"] for name in names}


def _kept(rows: list[Example], examples: list[Example], kept: Path) -> Path:
    """Where a new process finds the rows: `kept` holds `examples`, and a teacher may read them in other tokens."""
    if rows is examples:
        return kept
    own = kept.with_name(f"{kept.stem}-teacher.parquet")
    write_examples(own, rows)
    return own


def batch_rows(task: Task, wanted: int | None) -> dict[str, int]:
    """What is timed, as `throughputs` calls it -> rows of a batch: those of the recipe, or as many as tell the speed."""
    if not task.writes:
        return {"rows": wanted or CLASSIFY_ROWS}
    few = FEWER_ROWS if device().type == "cpu" else PREFILL_ROWS
    return {"prefill": wanted or few, "generate": 1, "generate_batch": wanted or WRITE_ROWS}


def throughputs(
    models: Mapping[str, PreTrainedModel],
    tasks: Mapping[str, Task],
    rows: Mapping[str, list[Example]],
    asked: Mapping[str, Requests],
    batch: int | None = None,
    watch: Watch = NOBODY,
) -> dict[str, Costs]:
    """Model name -> {"unit", tokens or rows per second, "batch": the rows of each, joules a token or row
    where the machine tells, "intervals" of these}.

    A classifier has "rows"; a language model has "prefill" (tokens read), "generate" (written one text at a time) and
    "generate_batch" (several texts at a time; no panel can).  Args: batch: see `batch_rows`.
    """
    work = {name: _batch(model, tasks[name], rows[name], batch) for name, model in models.items()}
    took = batches({name: action for name, (_, action) in work.items()}, watch)
    sizes = {name: batch_rows(task, batch) for name, task in tasks.items()}
    writers = {name: sizes[name]["generate_batch"] for name in models if "generate_batch" in sizes[name]}
    paces = beside_one_another(models, tasks, rows, writers, watch)
    found: dict[str, Costs] = {}
    for name, (amount, _) in work.items():
        seconds, energy = took[name].seconds, took[name].joules
        if not tasks[name].writes:
            rates = {"rows": _times(amount, _inverse(seconds))}
            joules = None if energy is None else _times(1 / amount, energy)
        else:
            one = asked[name]
            rates = {
                "prefill": _times(amount, _inverse(seconds)),
                "generate": _inverse(median_interval(one.steps)),
            }
            joules = median_interval(one.joules) if one.joules else None
        if name in paces:
            a_step = median_interval(paces[name])
            rates["generate_batch"] = _times(writers[name], _inverse(a_step))
        if joules is not None:
            rates["joules"] = joules
        found[name] = {
            "unit": tasks[name].unit,
            "batch": {of: size for of, size in sizes[name].items() if of in rates},
            **{key: each.value for key, each in rates.items()},
            "intervals": {key: each.as_json() for key, each in rates.items()},
        }
    return found


def _inverse(seconds: Interval) -> Interval:
    """How often in a second."""
    value, low, high = (
        None if each is None else 1.0 / each for each in (seconds.value, seconds.high, seconds.low)
    )
    return Interval(value, low, high, seconds.note)


def _times(amount: float, one: Interval) -> Interval:
    """So much of something."""
    value, low, high = (None if each is None else amount * each for each in (one.value, one.low, one.high))
    return Interval(value, low, high, one.note)


def _batch(
    model: PreTrainedModel, task: Task, examples: list[Example], wanted: int | None
) -> tuple[int, Action]:
    """(rows or tokens in it, reading them at once)."""
    model.eval()
    sizes = batch_rows(task, wanted)
    if not task.writes:
        some = filled(examples, sizes["rows"])
        batch = on_device(task.collate(some))
        return len(some), _quiet(lambda: task.scores(model, batch))
    longest = sorted(examples, key=lambda example: -len(example.input_ids))
    ids = task.collate(filled(longest, sizes["prefill"]))["input_ids"].to(device())
    return ids.numel(), _quiet(lambda: read(model, ids))


def _quiet(action: Action) -> Action:
    def run() -> None:
        with torch.inference_mode():
            action()

    return run


def size(folder: Path, model: PreTrainedModel) -> dict[str, int]:
    """Parameters, and bytes of the weights on disk."""
    return {
        "parameters": parameters(model),
        "bytes": sum(
            folder_bytes(one, lambda path: path.suffix == ".safetensors") for one in members_of(folder)
        ),
    }


def fresh_peak(folder: Path, task: Task, examples: Path, batch: int | None = None) -> int | None:
    """Peak resident bytes of a new process that loads the model, reads a batch, and writes a little."""
    ask = json.dumps(
        {
            "folder": str(folder),
            "task": task.name,
            "labels": task.labels,
            "examples": str(examples),
            "batch": batch,
        }
    )
    made = subprocess.run(
        [sys.executable, "-P", "-m", "stillhouse.cost", ask], capture_output=True, text=True, check=False
    )
    if made.returncode:
        last = (made.stderr.strip().splitlines() or ["no output"])[-1]
        raise StillhouseError(f"measuring the memory of {folder} failed: {last}")
    peak: int | None = json.loads(made.stdout.strip().splitlines()[-1])["peak_memory_bytes"]
    return peak


def _main(ask: dict[str, Any]) -> None:
    folder = Path(ask["folder"])
    task = make_task(ask["task"], load_tokenizer(folder), labels=ask["labels"])
    model = task.load(folder).to(device())
    examples = read_examples(Path(ask["examples"]))
    _, read = _batch(model, task, examples, ask["batch"])
    read()
    if task.writes:  # the cache of a few tokens adds little, but what makes tokens is loaded
        generate(model, task, torch.tensor([examples[0].input_ids[:32]], device=device()), 2)
    print(json.dumps({"peak_memory_bytes": peak_memory()}))


if __name__ == "__main__":
    _main(json.loads(sys.argv[1]))

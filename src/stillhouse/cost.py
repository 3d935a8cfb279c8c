"""What a model costs to run: parameters, bytes, speed, memory.

Speeds are medians of several repeats after a warm-up, and models are measured in turn, so that a machine that slows down
slows all of them.  Peak memory is that of a fresh process that loads the model and does the same work.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

import torch
from transformers import PreTrainedModel

from .data.encode import Example, read_examples, write_examples
from .errors import StillhouseError
from .files import folder_bytes
from .latency import joules, latencies
from .models.load import load_tokenizer, parameters
from .models.machine import device, synchronise
from .pipeline import peak_memory
from .progress import Watch
from .tasks import Task, make_task, on_device
from .tasks.bilingual import as_read_by, voice
from .tasks.panel import members_of

REPEATS = 3
PREFILL_ROWS, PROMPT_TOKENS, NEW_TOKENS, CLASSIFY_ROWS = 4, 32, 24, 32


def costs(
    folders: dict[str, Path],
    task: Task,
    examples: list[Example],
    kept: Path,
    watch: Watch,
    speed: bool = True,
) -> dict[str, dict[str, Any]]:
    """Model name -> parameters, bytes, throughput and peak memory; the last two empty without `speed`.

    The controls have the student's shape, so they have its speed and memory too; measuring them again would only
    add noise.
    """
    here: list[str] = [name for name in ("teacher", "student") if name in folders]
    measured = {name: task.load(folders[name]).to(device()) for name in here}  # not a teacher behind an API
    found = {name: size(folders[name], model) for name, model in measured.items()}
    if not speed:
        unknown: dict[str, Any] = {"throughput": {}, "latency": {}, "peak_memory_bytes": None}
        return {name: {**found["teacher" if name == "teacher" else "student"], **unknown} for name in folders}
    watch.note("  measuring speed and memory")
    rows = {name: as_read_by(task, model, examples) for name, model in measured.items()}
    fast = speeds(measured, task, rows)
    waits = {
        name: latencies({name: model}, voice(task, model), rows[name])[name]
        for name, model in measured.items()
    }
    with ThreadPoolExecutor() as pool:  # their memory does not depend on how fast they are
        peaks = pool.map(
            lambda name: fresh_peak(folders[name], task, _kept(rows[name], examples, kept)), measured
        )
    most = dict(zip(measured, peaks, strict=True))
    result: dict[str, dict[str, Any]] = {
        name: {
            **found[name],
            "throughput": fast[name],
            "latency": waits[name],
            "peak_memory_bytes": most[name],
        }
        for name in measured
    }
    return {name: result["teacher" if name == "teacher" else "student"] for name in folders}


def _kept(rows: list[Example], examples: list[Example], kept: Path) -> Path:
    """Where a new process finds the rows: `kept` holds `examples`, and a teacher may read them in other tokens."""
    if rows is examples:
        return kept
    own = kept.with_name(f"{kept.stem}-teacher.parquet")
    write_examples(own, rows)
    return own


def speeds(
    models: dict[str, PreTrainedModel], task: Task, rows: dict[str, list[Example]]
) -> dict[str, dict[str, Any]]:
    """Model name -> {"unit", tokens or rows per second, and joules a token or row where the machine tells}."""
    work = {name: _work(model, voice(task, model), rows[name]) for name, model in models.items()}
    times: dict[str, dict[str, list[float]]] = {
        name: {kind: [] for kind in kinds} for name, kinds in work.items()
    }
    energy: dict[str, list[float]] = {name: [] for name in work}
    for repeat in range(REPEATS + 1):
        for name, kinds in work.items():
            for kind, (amount, action) in kinds.items():
                before, start = joules(), time.perf_counter()
                action()
                synchronise()
                took, after = time.perf_counter() - start, joules()
                if not repeat:  # the first is the warm-up
                    continue
                times[name][kind].append(took)
                if before is not None and after is not None and after > before and kind != "prefill":
                    energy[name].append((after - before) / amount)
    return {
        name: {
            "unit": task.unit,
            **{kind: amount / median(times[name][kind]) for kind, (amount, _) in kinds.items()},
            **({"joules": median(energy[name])} if energy[name] else {}),
        }
        for name, kinds in work.items()
    }


def _work(
    model: PreTrainedModel, task: Task, examples: list[Example]
) -> dict[str, tuple[float, Callable[[], Any]]]:
    """Kind of work -> (units in it, the work)."""
    model.eval()
    if task.name == "classification":
        rows = examples[:CLASSIFY_ROWS]
        batch = on_device(task.collate(rows))
        return {"rows": (float(len(rows)), _quiet(lambda: task.scores(model, batch)))}
    longest = sorted(examples, key=lambda example: -len(example.input_ids))[:PREFILL_ROWS]
    ids = task.collate(longest)["input_ids"].to(device())
    prompt = ids[:1, :PROMPT_TOKENS]
    return {
        "prefill": (
            float(ids.numel()),
            _quiet(lambda: model(input_ids=ids, use_cache=False, logits_to_keep=1)),
        ),
        "generate": (
            float(NEW_TOKENS),
            _quiet(lambda: generate(model, task, prompt, NEW_TOKENS, NEW_TOKENS)),
        ),
    }


def generate(
    model: PreTrainedModel, task: Task, prompt: torch.Tensor, most: int, least: int = 0
) -> torch.Tensor:
    """Greedy continuation of one prompt [1, T], with a key-value cache.  Returns: [new tokens]."""
    made: Any = model.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        max_new_tokens=most,
        min_new_tokens=least,
        do_sample=False,
        pad_token_id=task.tokenizer.pad_token_id,
    )
    new: torch.Tensor = made[0, prompt.shape[1] :]
    return new


def _quiet(action: Callable[[], Any]) -> Callable[[], Any]:
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


def fresh_peak(folder: Path, task: Task, examples: Path) -> int | None:
    """Peak resident bytes of a new process that loads the model and does one round of the work."""
    ask = json.dumps(
        {"folder": str(folder), "task": task.name, "labels": task.labels, "examples": str(examples)}
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
    for _, action in _work(model, task, read_examples(Path(ask["examples"]))[:CLASSIFY_ROWS]).values():
        action()
    print(json.dumps({"peak_memory_bytes": peak_memory()}))


if __name__ == "__main__":
    _main(json.loads(sys.argv[1]))

"""Where an evaluation's seconds go: SmolLM2 and three students with half of its layers, on windows of a book.

Processor seconds, so that a machine that others use too tells the same (with OMP_NUM_THREADS=1 they are what a quiet machine with
one core takes).  `quickstart` reads 32 windows of 256 tokens.
"""

import resource
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from common import arguments
from transformers import AutoConfig, AutoModelForCausalLM

from models import book, smollm2
from stillhouse import cost
from stillhouse.data.encode import write_examples
from stillhouse.evaluate import Evaluation
from stillhouse.kept import RowIndex
from stillhouse.latency import requests
from stillhouse.models.load import load_tokenizer
from stillhouse.progress import Silent
from stillhouse.samples import Writing
from stillhouse.tasks import Task, make_task

STUDENTS = ("student", "initial", "hard_only")


def seconds(action: Callable[[], Any]) -> float:
    """Of all processors, those of processes that it starts included."""

    def used() -> float:
        spent = resource.getrusage(resource.RUSAGE_CHILDREN)
        return time.process_time() + spent.ru_utime + spent.ru_stime

    start = used()
    action()
    return used() - start


def half(folder: Path) -> Path:
    """A random student with every second layer's shape."""
    config = AutoConfig.from_pretrained(str(smollm2()))
    config.num_hidden_layers //= 2
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    load_tokenizer(smollm2()).save_pretrained(folder)
    return folder


def _open(models: dict[str, Any], name: str, task: Task, folder: Path) -> None:
    models[name] = task.load(folder)


def main() -> None:
    asked = arguments(__doc__ or "", windows=4, length=256, of=32, samples=3)
    with tempfile.TemporaryDirectory() as place:
        folders = {"teacher": smollm2(), **dict.fromkeys(STUDENTS, half(Path(place) / "student"))}
        task = make_task("causal_lm", load_tokenizer(folders["teacher"]), asked.length)
        examples = task.encode([{"id": "", "where": "", "text": book()}])[0][: asked.windows]
        kept = Path(place) / "eval.parquet"
        write_examples(kept, examples)
        keys = [example.key for example in examples]
        index = RowIndex(keys, keys, keys, [len(one.input_ids) for one in examples], [None] * len(keys))
        evaluation = Evaluation(task, {"eval": examples}, {"eval": index}, Path(place), 16, Silent())
        writing = Writing(task, examples, asked.samples, Silent())
        scale, found = asked.of / len(examples), dict.fromkeys(("open", "read", "write samples"), 0.0)
        models: dict[str, Any] = {}
        for name, folder in folders.items():
            found["open"] += seconds(partial(_open, models, name, task, folder))
            found["read"] += scale * seconds(partial(evaluation.listen, name, models[name]))
            found["write samples"] += seconds(partial(writing.add, name, models[name]))
        found["measure side by side"] = scale * seconds(evaluation.measure)
        hidden = torch.randn(sum(one.counted for one in examples), models["teacher"].config.hidden_size)
        head = models["teacher"].get_output_embeddings().weight
        with torch.inference_mode():
            found["of it four bare products"] = 4 * scale * seconds(lambda: hidden @ head.T)
        timed = {name: models[name] for name in ("teacher", "student")}
        shared = (dict.fromkeys(timed, task), dict.fromkeys(timed, examples))
        asking: dict[str, Any] = {}
        found["requests"] = seconds(lambda: asking.update(requests(timed, *shared)))
        found["reading speed"] = seconds(lambda: cost.throughputs(timed, *shared, asking))
        found["peak memory"] = seconds(lambda: [cost.fresh_peak(folders[name], task, kept) for name in timed])
    for name, value in found.items():
        print(f"  {name:<28} {value:7.1f} s")
    print(f"  {'all':<28} {sum(found.values()) - found['of it four bare products']:7.1f} s")


if __name__ == "__main__":
    main()

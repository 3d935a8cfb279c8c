"""What evaluate measures of speed, beside a loop written by hand: both in turn, on a tiny model and on SmolLM2.

Ratios should lie within 5 % of 1.  On a machine that others use too, --processor 1 lets both sides count processor time instead
of what a clock on the wall says (with OMP_NUM_THREADS=1 that is the same thing, without the waiting).
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from common import arguments
from transformers import LlamaConfig, LlamaForCausalLM

from models import book, smollm2
from stillhouse import latency
from stillhouse.cost import FEWER_ROWS, throughputs
from stillhouse.data.encode import Example
from stillhouse.models.load import load_tokenizer
from stillhouse.tasks import Task, make_task

Clock = Callable[[], float]


def by_hand(model: Any, examples: list[Example], repeats: int, clock: Clock) -> dict[str, float]:
    """Seconds to the first token, tokens a second after it, and tokens read a second: as anyone would measure them."""
    firsts, paces, reads = [], [], []
    longest = torch.tensor([example.input_ids for example in examples[:FEWER_ROWS]])
    with torch.inference_mode():
        for number in range(repeats + 1):
            ids = torch.tensor([examples[number % len(examples)].input_ids[: len(longest[0]) // 2 + 1]])
            settings = {"attention_mask": torch.ones_like(ids), "do_sample": False, "pad_token_id": 0}
            at = clock()
            model.generate(ids, max_new_tokens=1, **settings)
            first = clock() - at
            at = clock()
            model.generate(ids, max_new_tokens=9, min_new_tokens=9, **settings)
            whole = clock() - at
            at = clock()
            model(input_ids=longest, use_cache=False, logits_to_keep=1)
            read = clock() - at
            if number:
                firsts.append(first)
                paces.append(8 / (whole - first))
                reads.append(longest.numel() / read)
    found = {"first token, s": firsts, "generation, tokens/s": paces, "reading, tokens/s": reads}
    return {name: statistics.median(values) for name, values in found.items()}


def ours(model: Any, task: Task, examples: list[Example]) -> dict[str, float]:
    """The same by what evaluate calls."""
    models, tasks, rows = {"model": model}, {"model": task}, {"model": examples}
    asked = latency.requests(models, tasks, rows)
    fast = throughputs(models, tasks, rows, asked)["model"]
    first = asked["model"].percentiles(task)["p50"]
    return {
        "first token, s": first,
        "generation, tokens/s": fast["generate"],
        "reading, tokens/s": fast["prefill"],
    }


def compare(title: str, folder: Path, asked: Any, clock: Clock) -> None:
    """Both in turn, and the ratio of their medians."""
    task = make_task("causal_lm", load_tokenizer(folder), asked.length)
    examples = task.encode([{"id": "", "where": "", "text": book()}])[0][:12]
    model = task.load(folder)
    mine, theirs = [], []
    for _ in range(asked.rounds):
        mine.append(ours(model, task, examples))
        theirs.append(by_hand(model, examples, asked.repeats, clock))
    print(f"\n{title}")
    for name in mine[0]:
        one, other = (statistics.median(each[name] for each in side) for side in (mine, theirs))
        print(f"  {name:<24} {one:10.4g}   by hand {other:10.4g}   ratio {one / other:.3f}")


def tiny(folder: Path) -> Path:
    """A random Llama of 2 layers, with SmolLM2's tokenizer."""
    tokenizer = load_tokenizer(smollm2())
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def main() -> None:
    asked = arguments(__doc__ or "", rounds=3, repeats=9, length=256, processor=0, large=1)
    clock = time.process_time if asked.processor else time.perf_counter
    latency.__dict__["time"] = SimpleNamespace(perf_counter=clock)
    with tempfile.TemporaryDirectory() as folder:
        compare("tiny, 2 layers", tiny(Path(folder)), asked, clock)
    if asked.large:
        compare("SmolLM2-135M", smollm2(), asked, clock)


if __name__ == "__main__":
    main()

"""Answers to prompts of mixed length: our continuous batches, beside one `generate` a prompt and fixed batches of `generate`.

All three are greedy and end at the same tokens; what they write is compared.  Answers are of mixed length because prompts ask
for a number, a sentence or a story; --new caps them.
"""

import time
from collections.abc import Callable

import torch
from common import arguments, in_turn, report

from models import smollm2, stories
from stillhouse.models.continuous import Sampling, write_all
from stillhouse.models.generate import end_tokens
from stillhouse.models.load import load_tokenizer
from stillhouse.tasks import make_task

ASKED = (
    "Is this text about a city? Answer yes or no.", "Name one person in this text. Answer with the name only.",
    "Say in one sentence what happens.", "Tell the story in your own words.",
)  # fmt: skip


def main() -> None:
    asked = arguments(__doc__ or "", prompts=32, slots=8, new=96, rounds=1, dtype="float32")
    folder = smollm2()
    tokenizer = load_tokenizer(folder)
    task = make_task("causal_lm", tokenizer)
    model = task.load(folder, getattr(torch, asked.dtype))
    prompts = stories(tokenizer, asked.prompts, ASKED)
    ends = end_tokens(model, tokenizer)
    texts: dict[str, dict[int, list[int]]] = {}
    busy: dict[str, list[float]] = {}

    def ours() -> None:
        sampling = Sampling(asked.new)
        some = write_all(
            model,
            prompts,
            sampling,
            ends=ends,
            vocabulary=task.outcomes,
            seeds=[0] * len(prompts),
            slots=asked.slots,
        )
        texts["continuous"] = dict(some)

    @torch.inference_mode()
    def in_batches(size: int, name: str) -> None:
        found = texts[name] = {}
        for start in range(0, len(prompts), size):
            batch = prompts[start : start + size]
            width = max(map(len, batch))
            ids = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt in batch])
            mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in batch])
            made = model.generate(
                input_ids=ids, attention_mask=mask, do_sample=False, max_new_tokens=asked.new, eos_token_id=ends, pad_token_id=0,
            )  # fmt: skip
            for number, row in enumerate(made[:, width:].tolist(), start):
                stop = next((at + 1 for at, token in enumerate(row) if token in ends), len(row))
                found[number] = row[:stop]

    sides = {
        "one at a time": lambda: in_batches(1, "one at a time"),
        "fixed batches": lambda: in_batches(asked.slots, "fixed batches"),
        "continuous": ours,
    }
    found = in_turn(
        {name: _timed(side, busy.setdefault(name, [])) for name, side in sides.items()},
        asked.rounds,
        warm_up=0,
    )
    made = {name: sum(map(len, some.values())) for name, some in texts.items()}
    alone = texts["one at a time"]
    facts = {f"{name}: tokens/s": f"{made[name] / min(times):,.1f}" for name, times in found.items()}
    facts |= {
        f"{name}: same text as one at a time": f"{sum(some[n] == alone[n] for n in alone)}/{len(alone)}"
        for name, some in texts.items()
    }
    lengths = sorted(map(len, alone.values()))
    facts["answers"] = f"{lengths[0]} to {lengths[-1]} tokens, median {lengths[len(lengths) // 2]}"
    facts |= {
        f"{name}: tokens/s of processor time": f"{made[name] / min(times):,.1f}"
        for name, times in busy.items()
    }
    report(f"{len(prompts)} prompts, {asked.dtype}", found, "one at a time", **facts)


def _timed(side: Callable[[], None], spent: list[float]) -> Callable[[], None]:
    """`side`, which also notes its processor time: what a busy machine does not change much."""

    def run() -> None:
        start = time.process_time()
        side()
        spent.append(time.process_time() - start)

    return run


if __name__ == "__main__":
    main()

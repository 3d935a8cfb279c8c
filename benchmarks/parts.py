"""Texts of several processes beside those of one: how many are the same to the last character.

Each prompt draws by its own seed, so only the last bits of a batch's arithmetic can make a text another one.  Says how many
texts differ, for greedy and for drawn ones, when the same prompts are written in so many parts.
"""

import torch
from common import arguments

from models import smollm2, stories
from stillhouse.models.continuous import Sampling, write_all
from stillhouse.models.generate import end_tokens
from stillhouse.models.load import load_tokenizer
from stillhouse.seeds import draw_seed
from stillhouse.tasks import make_task
from stillhouse.teachers.parts import share_of


def main() -> None:
    asked = arguments(__doc__ or "", prompts=32, slots=8, new=48, parts=2, dtype="float32")
    folder = smollm2()
    tokenizer = load_tokenizer(folder)
    task = make_task("causal_lm", tokenizer)
    model = task.load(folder, getattr(torch, asked.dtype))
    prompts = stories(tokenizer, asked.prompts, ["Tell the story in your own words."])
    ends = end_tokens(model, tokenizer)

    def written(numbers: list[int], temperature: float) -> dict[int, list[int]]:
        made = write_all(
            model,
            [prompts[number] for number in numbers],
            Sampling(asked.new, temperature),
            ends=ends,
            vocabulary=task.outcomes,
            seeds=[draw_seed(0, number) for number in numbers],
            slots=asked.slots,
        )
        return {numbers[place]: tokens for place, tokens in made}

    for temperature in (0.0, 0.8):
        whole = written(list(range(len(prompts))), temperature)
        shared: dict[int, list[int]] = {}
        for part in range(1, asked.parts + 1):
            mine = [number for number in whole if share_of(str(number), asked.parts) == part]
            shared |= written(sorted(mine), temperature)
        assert set(shared) == set(whole)
        other = sum(shared[number] != whole[number] for number in whole)
        tokens = sum(map(len, whole.values()))
        print(
            f"{asked.dtype}, temperature {temperature}: {other} of {len(whole)} texts differ ({tokens:,} tokens in all, {asked.parts} parts)",
            flush=True,
        )


if __name__ == "__main__":
    main()

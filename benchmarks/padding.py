"""Ragged rows: batches of like length, as the Distiller makes them, beside batches in random order, padded.

Lengths are log-uniform between 16 and 512, as a chat data set's are.  What counts is real tokens a second, padding left
out, in a whole training step of the same student.
"""

import math
import tempfile
from typing import Any

import torch
from common import arguments, in_turn, report
from transformers import TrainingArguments

from models import smollm2
from stillhouse import Distiller
from stillhouse import objectives as kd
from stillhouse.data.encode import IGNORED, Example, remade
from stillhouse.models.load import load_tokenizer
from stillhouse.models.shrink.cut import every_nth, keep_layers
from stillhouse.tasks import make_task
from stillhouse.train.order import SeededOrder


def main() -> None:
    asked = arguments(__doc__ or "", rows=8, batches=24, layers=4, rounds=1, least=16, most=512)
    folder = smollm2()
    tokenizer = load_tokenizer(folder)
    task = make_task("causal_lm", tokenizer, asked.most)
    generator = torch.Generator().manual_seed(0)
    examples = []
    for number in range(asked.rows * asked.batches):
        draw = float(torch.rand((), generator=generator))
        length = round(math.exp(math.log(asked.least) + draw * math.log(asked.most / asked.least)))
        ids = torch.randint(1000, 40_000, (length,), generator=generator).tolist()
        empty = Example("", str(number), [], [], [0], 0)
        examples.append(remade(empty, ids, [IGNORED, *ids[1:]], str(number)))
    student = keep_layers(task.load(folder), every_nth(30, asked.layers))
    real = sum(len(example.input_ids) for example in examples)

    class AnyOrder(Distiller):
        """The rows in a drawn order, whatever their lengths."""

        def _get_train_sampler(self, train_dataset: Any = None) -> Any:
            order = SeededOrder([1] * len(examples), asked.rows, 0)
            return order

    def trained(kind: type[Distiller]) -> int:
        with tempfile.TemporaryDirectory() as place:
            args = TrainingArguments(
                output_dir=place, num_train_epochs=1, per_device_train_batch_size=asked.rows, learning_rate=1e-6,
                report_to=[], save_strategy="no", logging_strategy="no", disable_tqdm=True,
                use_cpu=not torch.cuda.is_available(),
            )  # fmt: skip
            made = kind(
                model=student, objective=[kd.hard()], args=args, train_dataset=examples, processing_class=tokenizer,
                task=task,
            )  # fmt: skip
            made.train()
        return real

    sides = {
        "padded, in random order": lambda: trained(AnyOrder),
        "ours: like lengths together": lambda: trained(Distiller),
    }
    found = in_turn(sides, asked.rounds)
    rates = {f"{name}: tokens/s": f"{real / min(times):,.0f}" for name, times in found.items()}
    title = f"ragged rows of {asked.least} to {asked.most} tokens, {asked.rows} a batch, {asked.layers} layers of SmolLM2"
    report(title, found, "ours: like lengths together", **rates)


if __name__ == "__main__":
    main()

"""Ragged rows: packed side by side as the Distiller does, beside padded batches of the same rows in the same order, by the
Distiller without packing and by a plain Trainer.

Lengths are log-uniform between 16 and 512, as a chat data set's are.  What counts is real tokens a second, padding left
out, in a whole training step of the same student.
"""

import math
import tempfile
from typing import Any

import torch
from common import arguments, in_turn, report
from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments

from models import smollm2
from stillhouse import Distiller
from stillhouse import objectives as kd
from stillhouse.data.encode import IGNORED, Example, remade
from stillhouse.models.load import load_tokenizer
from stillhouse.models.shrink.cut import every_nth, keep_layers
from stillhouse.tasks import make_task
from stillhouse.train.order import SeededOrder


def main() -> None:
    asked = arguments(__doc__ or "", rows=8, batches=6, layers=15, rounds=1, least=16, most=512)
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

    class Padded(Distiller):
        """The same rows in the same order, one a sequence."""

        def get_train_dataloader(self) -> Any:
            self.data_collator: Any = task.collate
            return super().get_train_dataloader()

        def _get_train_sampler(self, train_dataset: Any = None) -> Any:
            return SeededOrder([1] * len(examples), asked.rows, 0)

    class Plain(Trainer):
        """What one has without this package."""

        def _get_train_sampler(self, train_dataset: Any = None) -> Any:
            return SeededOrder([1] * len(examples), asked.rows, 0)

    def arguments_at(place: str) -> TrainingArguments:
        return TrainingArguments(
            output_dir=place, num_train_epochs=1, per_device_train_batch_size=asked.rows, learning_rate=1e-6,
            report_to=[], save_strategy="no", logging_strategy="no", disable_tqdm=True, remove_unused_columns=False,
            use_cpu=not torch.cuda.is_available(),
        )  # fmt: skip

    def distilled(kind: type[Distiller]) -> None:
        with tempfile.TemporaryDirectory() as place:
            kind(
                model=student, objective=[kd.hard()], args=arguments_at(place), train_dataset=examples,
                processing_class=tokenizer, task=task,
            ).train()  # fmt: skip

    def plain() -> None:
        rows = [{"input_ids": e.input_ids, "labels": e.labels} for e in examples]
        collate = DataCollatorForSeq2Seq(tokenizer)
        with tempfile.TemporaryDirectory() as place:
            Plain(model=student, args=arguments_at(place), train_dataset=rows, data_collator=collate).train()

    sides = {
        "plain Trainer, padded": plain,
        "Distiller, padded": lambda: distilled(Padded),
        "ours: packed": lambda: distilled(Distiller),
    }
    found = in_turn(sides, asked.rounds, warm_up=0)
    rates = {f"{name}: tokens/s": f"{real / min(times):,.0f}" for name, times in found.items()}
    title = f"ragged rows of {asked.least} to {asked.most} tokens, {asked.rows} a batch, {asked.layers} layers of SmolLM2"
    report(title, found, "ours: packed", **rates)


if __name__ == "__main__":
    main()

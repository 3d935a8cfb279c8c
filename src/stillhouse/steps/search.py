"""`student.search`: several shapes that meet the target learn a little, and the better half learns on, until one is left.

Successive halving (Jamieson & Talwalkar 2015, arXiv:1502.07943): each round has twice the steps of the one before, so all
rounds cost about the same.  The shapes learn from the teacher beside them (0.8 forward KL + 0.2 hard targets) and are
compared by their loss on training rows that they did not learn from; the held-out rows stay unseen.
"""

from typing import Any

import torch
from torch.optim import AdamW
from transformers import PreTrainedModel

from ..data.encode import Example
from ..errors import DataError
from ..models.load import parameters
from ..models.machine import device
from ..models.shrink.skeleton import Shape
from ..recipe import ForwardKL, Hard, Search
from ..seeds import draw_seed
from ..tasks import Task, on_device
from ..teachers.local import LocalTeacher
from ..train.objective import Objective
from ..train.order import SeededOrder
from .shrinking import Shrinking


def found_shape(made: Shrinking, wanted: Search, seed: int) -> Shape:
    """The best of `wanted.candidates` shapes that meet the target.  What was tried is written into `made.how`."""
    shapes: list[Shape] = made.shapes(wanted.candidates)
    if len(made.examples) <= wanted.rows + wanted.batch_size:
        raise DataError(
            f"student.search.rows: {wanted.rows} rows kept aside leave {len(made.examples) - wanted.rows} of "
            f"{len(made.examples)} to learn from; keep fewer aside, or give it more data."
        )
    rows = made.examples[wanted.rows :]
    held = made.examples[: wanted.rows]
    students = {number: made.student(shape)[0].to(device()) for number, shape in enumerate(shapes)}
    trial = _Trial(made.task, LocalTeacher(made.model, made.task), rows, held, wanted, seed)  # freezes it
    tried: list[dict[str, Any]] = [
        {**shape.said(), "parameters": parameters(students[number]), "losses": []}
        for number, shape in enumerate(shapes)
    ]
    learners = {number: AdamW(one.parameters(), lr=wanted.learning_rate) for number, one in students.items()}
    begin, steps = 0, wanted.steps
    while len(students) > 1:
        losses = {}
        for number, student in students.items():
            made.watch.note(f"  shape {number + 1} of {len(shapes)}: {steps} steps")
            trial.learn(student, learners[number], begin, begin + steps)
            losses[number] = trial.loss(student)
            tried[number]["losses"].append(round(losses[number], 4))
        ranked = sorted(losses, key=lambda number: (losses[number], number))
        for number in ranked[(len(ranked) + 1) // 2 :]:
            del students[number], learners[number]
        begin, steps = begin + steps, 2 * steps
    made.how["search"] = tried
    made.model.requires_grad_(True)
    best: Shape = shapes[next(iter(students))]
    return best


class _Trial:
    """Every shape learns from the same rows in the same order, and is judged by the same others."""

    def __init__(
        self,
        task: Task,
        teacher: LocalTeacher,
        rows: list[Example],
        held: list[Example],
        wanted: Search,
        seed: int,
    ) -> None:
        self.task, self.teacher, self.rows, self.held, self.wanted, self.seed = (
            task,
            teacher,
            rows,
            held,
            wanted,
            seed,
        )
        self.objective = Objective([ForwardKL(weight=0.8), Hard(weight=0.2)])
        self.lengths = [len(row.input_ids) for row in rows]

    def learn(self, student: PreTrainedModel, optimizer: AdamW, begin: int, end: int) -> None:
        """Steps `begin` to `end` of one long run."""
        student.train()
        for step in range(begin, end):
            torch.manual_seed(draw_seed(self.seed, "search", step))
            torch.autograd.backward(self._nats(student, self._batch(step)))
            torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()

    @torch.no_grad()
    def loss(self, student: PreTrainedModel) -> float:
        """On the rows that nobody learned from."""
        student.eval()
        size = self.wanted.batch_size
        batches = [self.held[start : start + size] for start in range(0, len(self.held), size)]
        return sum(float(self._nats(student, some)) for some in batches) / len(batches)

    def _batch(self, step: int) -> list[Example]:
        """The rows of a step: a function of (seed, step)."""
        size = self.wanted.batch_size
        order = SeededOrder(self.lengths, size, self.seed)
        in_epoch = len(self.rows) // size
        order.epoch = step // in_epoch
        picked = list(order)[(step % in_epoch) * size : (step % in_epoch + 1) * size]
        return [self.rows[number] for number in picked]

    def _nats(self, student: PreTrainedModel, some: list[Example]) -> torch.Tensor:
        batch = on_device(self.task.collate(some))
        targets, scores = self.teacher.signal(batch), self.task.scores(student, batch)
        loss: torch.Tensor = self.objective(scores, targets, max(1, len(scores.labels)))[0]
        return loss

"""`student.search`: several shapes that meet the target learn a little, and the better half learns on, until one is left.

Successive halving (Jamieson & Talwalkar 2015, arXiv:1502.07943): each round has twice the steps of the one before, so all
rounds cost about the same.  The shapes learn from the teacher beside them (0.8 forward KL + 0.2 hard targets) and are
compared by their loss on training rows that they did not learn from; the held-out rows stay unseen.
"""

import math
from pathlib import Path
from typing import Any

import torch
from torch.optim import AdamW
from transformers import PreTrainedModel

from ..data.encode import Example
from ..errors import DataError, RecipeError
from ..files import atomic_folder, read_json, sweep_parts, write_json
from ..models.load import parameters
from ..models.machine import device
from ..models.shrink.skeleton import Shape
from ..recipe import ForwardKL, Hard, Search
from ..seeds import draw_seed
from ..tasks import Task, on_device
from ..teachers.local import LocalTeacher
from ..train import checkpoints
from ..train.objective import Objective
from ..train.order import SeededOrder
from .shrinking import Shrinking


def found_shape(made: Shrinking, wanted: Search, seed: int, place: Path) -> Shape:
    """The best of `wanted.candidates` shapes that meet the target.  What was tried is written into `made.how`.

    Each shape is saved in `place` after each of its rounds: a search that was cut off goes on from there to the same end.
    """
    shapes: list[Shape] = made.shapes(wanted.candidates)
    if len(made.examples) <= wanted.rows + wanted.batch_size:
        raise DataError(
            f"student.search.rows: {wanted.rows} rows kept aside leave {len(made.examples) - wanted.rows} of "
            f"{len(made.examples)} to learn from; keep fewer aside, or give it more data."
        )
    learners = _Learners(made, shapes, place)
    rows, held = made.examples[wanted.rows :], made.examples[: wanted.rows]
    trial = _Trial(made.task, LocalTeacher(made.model, made.task), rows, held, wanted, seed)  # freezes it
    alive, begin, steps, turn = list(range(len(shapes))), 0, wanted.steps, 0
    while len(alive) > 1:
        for number in alive:
            if len(learners.losses[number]) > turn:
                continue
            student, optimizer, at = learners.take(number, wanted.learning_rate)
            if at == begin:
                made.watch.note(f"  shape {number + 1} of {len(shapes)}: {steps} steps")
                trial.learn(student, optimizer, begin, begin + steps)
                learners.keep(number, student, optimizer, begin + steps)
            learners.judged(number, trial.loss(student))
        if all(learners.losses[number][turn] is None for number in alive):
            raise RecipeError(
                "student.search.learning_rate: no shape that was tried learned anything (their losses are not finite); lower it."
            )
        ranked = sorted(alive, key=lambda number: (_last_of_all(learners.losses[number][turn]), number))
        alive = sorted(ranked[: (len(ranked) + 1) // 2])
        begin, steps, turn = begin + steps, 2 * steps, turn + 1
    made.how["search"] = learners.tried()
    made.model.requires_grad_(True)
    return shapes[alive[0]]


class _Learners:
    """The students of a search on disk: `tried.json` says what is known of each, `shape-N` is how far it has come."""

    def __init__(self, made: Shrinking, shapes: list[Shape], place: Path) -> None:
        self.made, self.shapes, self.place = made, shapes, place
        place.mkdir(parents=True, exist_ok=True)
        sweep_parts(place)
        known = place / "tried.json"
        self.losses: list[list[float | None]] = (
            read_json(known)["losses"] if known.exists() else [[] for _ in shapes]
        )
        self.sizes: list[int] = read_json(known)["parameters"] if known.exists() else []
        if not self.sizes:  # all are cut before the teacher is frozen: importance may want its gradients
            self.sizes = [self._begin(number) for number in range(len(shapes))]
            self._write()

    def take(self, number: int, learning_rate: float) -> tuple[PreTrainedModel, AdamW, int]:
        """(the student of that shape, its optimiser, after how many steps)."""
        folder = self._folder(number)
        student: PreTrainedModel = self.made.task.load(folder).to(device())
        optimizer = AdamW(student.parameters(), lr=learning_rate)
        if (folder / "optimizer.json").exists():
            checkpoints.load_optimizer(folder, optimizer)
        return student, optimizer, int(read_json(folder / "at.json")["steps"])

    def keep(self, number: int, student: PreTrainedModel, optimizer: AdamW | None, steps: int) -> None:
        """Save it whole."""
        with atomic_folder(self._folder(number)) as part:
            student.save_pretrained(part)
            self.made.task.tokenizer.save_pretrained(part)
            if optimizer is not None:
                checkpoints.save_optimizer(part, checkpoints.optimizer_state(optimizer))
            write_json(part / "at.json", {"steps": steps})

    def judged(self, number: int, loss: float) -> None:
        """Write down what it came to; None is a loss that is no number any more."""
        self.losses[number].append(round(loss, 4) if math.isfinite(loss) else None)
        self._write()

    def tried(self) -> list[dict[str, Any]]:
        """What a report shows of each."""
        rows = zip(self.shapes, self.sizes, self.losses, strict=True)
        return [{**shape.said(), "parameters": size, "losses": losses} for shape, size, losses in rows]

    def _begin(self, number: int) -> int:
        if not self._folder(number).exists():
            self.keep(number, self.made.student(self.shapes[number])[0], None, 0)
        return parameters(self.made.task.load(self._folder(number)))

    def _folder(self, number: int) -> Path:
        return self.place / f"shape-{number}"

    def _write(self) -> None:
        write_json(self.place / "tried.json", {"parameters": self.sizes, "losses": self.losses})


def _last_of_all(loss: float | None) -> float:
    """What a candidate is ranked by."""
    return math.inf if loss is None else loss


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
        counted = sum(example.counted for example in self.held)
        return sum(float(self._nats(student, some, counted)) for some in batches)

    def _batch(self, step: int) -> list[Example]:
        """The rows of a step: a function of (seed, step)."""
        size = self.wanted.batch_size
        order = SeededOrder(self.lengths, size, self.seed)
        in_epoch = len(self.rows) // size
        order.epoch = step // in_epoch
        picked = list(order)[(step % in_epoch) * size : (step % in_epoch + 1) * size]
        return [self.rows[number] for number in picked]

    def _nats(self, student: PreTrainedModel, some: list[Example], total: int | None = None) -> torch.Tensor:
        batch = on_device(self.task.collate(some))
        targets, scores = self.teacher.signal(batch), self.task.scores(student, batch)
        loss: torch.Tensor = self.objective(scores, targets, total or max(1, len(scores.labels)))[0]
        return loss

"""The student as a part of its teacher: the shape, what matters, the cut."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from ..data.encode import Example
from ..models.load import parameters
from ..models.machine import device
from ..models.shrink.cut import cut, every_nth, keep_layers, known_family, skeleton_of
from ..models.shrink.depth import least_loss, most_alike_run, most_influential, stack_layers
from ..models.shrink.factorise import factorise_embeddings
from ..models.shrink.importance import Importance, Probe, choose, measure_importance, unmeasured
from ..models.shrink.pace import shape_by_measure
from ..models.shrink.requests import check_layers, fixed_sizes, shapes_within
from ..models.shrink.shapes import CLOSE
from ..models.shrink.skeleton import FIELDS, Shape, Skeleton
from ..models.taps import layers_of
from ..progress import Watch
from ..recipe import FromTeacher, Hard, Student
from ..tasks import Task, on_device
from ..train.objective import Objective
from .speed import Ratio, Speed

ROWS_AT_ONCE = 8


class Shrinking:
    """A loaded teacher, and students of several shapes made from it; each thing is measured once.

    Args:
        wanted: `student:` of the recipe.
        examples: training rows, of which the first `rows` are read.
        head_seed: of a head that a teacher does not have yet, because it is fine-tuned later; without it that is refused.
    """

    def __init__(
        self,
        wanted: Student,
        task: Task,
        teacher: Path,
        examples: Sequence[Example],
        watch: Watch,
        head_seed: int | None = None,
    ) -> None:
        assert wanted.cut is not None
        self.wanted: FromTeacher = wanted.cut
        self.target, self.search, self.task, self.watch = wanted.target, wanted.search, task, watch
        self.examples = list(examples)
        self.model = task.load(teacher, head_seed=head_seed).to(device())
        self.how: dict[str, Any] = {}
        self._importance: Importance | None = None
        self._order: dict[str, list[int]] = {}

    @property
    def layers_alone(self) -> bool:
        """Whether nothing but whole layers is cut, which any family with one list of layers allows."""
        cut_too = [getattr(self.wanted, name) for name in (*FIELDS, "decoder_layers")]
        return not known_family(self.model) and self.target is None and not any(cut_too)

    def shapes(self, count: int = 1) -> list[Shape]:
        """What the recipe asks for; `count` different shapes that meet its target, the most even one first."""
        skeleton = skeleton_of(self.model)
        fixed = fixed_sizes(self.wanted, skeleton)
        if self.target is None:
            return [skeleton.wanted(**fixed)]
        kind, amount = self.target.named
        if kind == "tokens_per_second":
            return [self._as_fast(skeleton, amount, fixed)]
        context = getattr(self.task, "max_length", 256)
        return shapes_within(skeleton, self.target, fixed, context, count)

    def _as_fast(self, skeleton: Skeleton, factor: float, fixed: dict[str, Any]) -> Shape:
        """A shape that reads `factor` times as fast as the teacher."""
        speed = Speed(self.model, self.task, self.examples)
        head = self.task.name != "classification"

        found = {skeleton.shape: Ratio(1.0, 1.0, 1.0)}

        def measure(shape: Shape) -> float:
            if shape not in found:
                found[shape] = speed.times_as_fast(self.unmeasured(shape))
            return found[shape].value

        shape, _ = shape_by_measure(
            skeleton,
            factor,
            lambda one: float(skeleton.work(one, head)),
            measure,
            fixed,
            f"{factor:g} times the speed",
            at_most=lambda one: found[one].high,
        )
        reached = found[shape]
        self.how["times_as_fast"] = {name: round(value, 3) for name, value in asdict(reached).items()}
        said = f"{reached.value:.2f} [{reached.low:.2f}, {reached.high:.2f}] times as fast as the teacher"
        missed = not factor * 0.999 <= reached.value <= factor / CLOSE
        tail = f", the nearest to {factor:g} of {len(found)} shapes; this machine or this teacher allows no nearer"
        self.watch.note(f"  measured {said}{tail if missed else ''}")
        return shape

    def unmeasured(self, shape: Shape) -> PreTrainedModel:
        """A student of that shape with the first of everything: enough to know its size and speed."""
        skeleton = skeleton_of(self.model)
        layers = {
            stack.name: every_nth(have, keep)
            for stack, have, keep in zip(
                skeleton.family.stacks, skeleton.shape.layers, shape.layers, strict=True
            )
        }
        return self._cut(skeleton, unmeasured(self.model, skeleton), shape, layers)

    def student(self, shape: Shape) -> tuple[PreTrainedModel, dict[str, Any]]:
        """Returns: (the student of that shape, how it was made)."""
        skeleton = skeleton_of(self.model)
        layers = {
            stack.name: self._kept(stack.name, stack.path, have, keep)
            for stack, have, keep in zip(
                skeleton.family.stacks, skeleton.shape.layers, shape.layers, strict=True
            )
        }
        narrower = replace(shape, layers=skeleton.shape.layers) != skeleton.shape
        importance = self.importance() if narrower else unmeasured(self.model, skeleton)
        made = self._cut(skeleton, importance, shape, layers)
        how = {
            **self.how,
            **shape.said(),
            "of": {**skeleton.shape.said(), "parameters": parameters(self.model)},
        }
        how["layers"] = next(iter(layers.values())) if len(layers) == 1 else layers
        return made, how

    def layers_student(self) -> tuple[PreTrainedModel, dict[str, Any]]:
        """The same for families of which nothing is known but their layers."""
        have = len(layers_of(self.model)[1])
        wanted = have if self.wanted.layers is None else self.wanted.layers
        check_layers(wanted, have)
        count = wanted if isinstance(wanted, int) else len(wanted)
        keep = self._kept("layers", layers_of(self.model)[0], have, count)
        return keep_layers(self.model, keep).cpu(), {**self.how, "layers": keep, "of": {"layers": have}}

    def importance(self) -> Importance:
        """Of heads, neurons, channels and layers: one pass."""
        if self._importance is None:
            self._importance = measure_importance(
                self.model, skeleton_of(self.model), self._probes("importance"), self.wanted.importance
            )
        return self._importance

    def _cut(
        self, skeleton: Skeleton, importance: Importance, shape: Shape, layers: dict[str, list[int]]
    ) -> PreTrainedModel:
        whole = _with_own_embeddings(skeleton, shape)
        made = cut(self.model, choose(importance, skeleton, whole, layers))
        if shape.embedding_size != whole.embedding_size:
            made = factorise_embeddings(made, shape.embedding_size)
        return made

    def _kept(self, stack: str, path: str, have: int, keep: int) -> list[int]:
        """Which layers of a stack."""
        if isinstance(self.wanted.layers, list):
            return self.wanted.layers
        if keep == have:
            return list(range(have))
        if self.wanted.by == "every_nth":
            return every_nth(have, keep)
        if self.wanted.by == "block_influence":
            influence = self._influence(stack)
            self.how["block_influence"] = [round(value, 6) for value in influence.tolist()]
            return most_influential(influence, keep)
        layers, probes = stack_layers(self.model, path), list(self._probes("layers"))
        if self.wanted.by == "similarity":
            kept, angles = most_alike_run(layers, probes, keep, path)
            self.how["angles"] = [round(value, 6) for value in angles]
            return kept
        gone = self._order.get(stack, [])
        if len(gone) < have - keep:
            gone, losses = least_loss(layers, probes, keep, lambda *at: self.watch.step("layers", *at))
            self._order[stack] = gone
            self.how["loss_after_each_removal"] = [round(value, 4) for value in losses]
        return [number for number in range(have) if number not in gone[: have - keep]]

    def _influence(self, stack: str) -> Tensor:
        if known_family(self.model):
            return self.importance().layers[stack]
        from ..models.taps import block_influence

        return block_influence(self.model, _read(self.task, self._rows(), self.watch))

    def _rows(self) -> list[Example]:
        return self.examples[: self.wanted.rows]

    def _probes(self, what: str) -> Iterator[Probe]:
        """The rows, batch by batch, each with the loss of its hard targets."""
        objective = Objective([Hard(weight=1.0)])
        rows = self._rows()
        for start in range(0, len(rows), ROWS_AT_ONCE):
            some = rows[start : start + ROWS_AT_ONCE]
            batch, masks = _batch(self.task, some)
            self.watch.step(what, start + len(some), len(rows))
            yield _loss_of(self.task, self.model, objective, batch), masks


def _with_own_embeddings(skeleton: Skeleton, shape: Shape) -> Shape:
    """The shape before its embeddings are made narrower."""
    return replace(
        shape, embedding_size=shape.hidden_size if skeleton.follows else skeleton.shape.embedding_size
    )


def _batch(task: Task, some: list[Example]) -> tuple[dict[str, Any], tuple[Tensor, ...]]:
    """(a batch where the model is, masks of its real positions, see `Task.real`)."""
    batch = on_device(task.collate(some))
    return batch, task.real(batch)


def _loss_of(
    task: Task, model: PreTrainedModel, objective: Objective, batch: dict[str, Any]
) -> Callable[[], Tensor]:
    def run() -> Tensor:
        scores = task.scores(model, batch)
        return objective(scores, None, max(1, int((scores.labels >= 0).sum())))[0]

    return run


def _read(task: Task, examples: list[Example], watch: Watch) -> Iterator[tuple[dict[str, Any], Tensor]]:
    """(what the model reads, mask of the real positions) batch by batch."""
    names = ("input_ids", "attention_mask", "token_type_ids", "position_ids")
    for start in range(0, len(examples), ROWS_AT_ONCE):
        some = examples[start : start + ROWS_AT_ONCE]
        batch, masks = _batch(task, some)
        watch.step("block influence", start + len(some), len(examples))
        yield {name: batch[name] for name in names if name in batch}, masks[0]

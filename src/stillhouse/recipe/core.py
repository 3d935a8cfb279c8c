"""The recipe: one strict file that says everything about a run."""

from typing import Any, Literal, Self

from pydantic import Field, NonNegativeInt, model_validator

from .. import reference
from .agreement import faults
from .api import Api, tell_apart
from .data import Also, Data
from .filter import Filter
from .objective import TEACHERLESS, ForwardKL, Hard, PolicyGradient, Schedule, SoftTerm, Term, living
from .outputs import Evaluate, Gate, Report
from .plan import Plan, Tune
from .rollouts import Rollouts
from .section import Section
from .student import Student
from .teacher import Label, Teacher
from .train import Train


class Recipe(Section):
    """Teacher, student, data and how the one learns from the other."""

    name: str = Field(pattern="^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=64)
    """The run folder is runs/<name>."""
    description: str = ""
    """One line, shown by `stillhouse ls` and in the report."""
    seed: NonNegativeInt = 0
    """Order, splits and every random draw follow from it."""
    task: Literal["causal_lm", "masked_lm", "seq2seq", "classification"]
    """What the models do: go on with a text or answer; say which words of a text were hidden, as encoders do; write a target from
    a source, as encoder–decoders do (translation, summarisation); or choose a label."""
    licence: str | None = None
    """Licence of the student (SPDX id), for its model card."""
    teacher: Teacher
    """Who knows."""
    student: Student
    """Who learns."""
    data: Data
    """From what."""
    label: Label = Label()
    """How the teacher's soft targets are kept."""
    objective: list[Term] = Field(default=[Hard(weight=0.2), ForwardKL(weight=0.8)], min_length=1)
    """What the student is asked to match."""
    rollouts: Rollouts | None = None
    """Let the student write some of its training rows itself."""
    train: Train = Train()
    """How it is trained."""
    evaluate: Evaluate = Evaluate()
    """How it is measured."""
    report: Report = Report()
    """What the report shows."""
    gate: Gate = Gate()
    """What is demanded of it."""
    sweep: dict[str, list[Any]] = {}
    """section.field: values; a run for each combination.  `train.seed` and `seed` are repeats, and are averaged over."""
    plan: Plan | None = Field(default=None, discriminator="kind")
    """Several runs that build on one another."""
    tune: Tune | None = None
    """What `stillhouse tune` tries; `stillhouse run` takes the recipe as it stands."""

    @property
    def is_plan(self) -> bool:
        """Whether it becomes several runs."""
        return bool(self.sweep) or self.plan is not None

    @property
    def terms(self) -> list[Term]:
        """The objective's terms that take part; see `living`."""
        return living(self.objective)

    @property
    def listed_terms(self) -> list[Term]:
        """`terms`, and those of weight 0 too where two that take part are of one kind, for their place in the list names them."""
        kinds = [term.kind for term in self.terms]
        return self.terms if len(set(kinds)) == len(kinds) else self.objective

    @property
    def has_teacher(self) -> bool:
        """Whether the student learns from a teacher: by a term of the objective that compares with one, or by its texts."""
        if self.teacher.api is not None and self.task in ("causal_lm", "seq2seq"):
            return True  # its texts are the hard targets
        return any(not isinstance(term, TEACHERLESS) for term in self.terms)

    @property
    def names_teacher(self) -> bool:
        """Whether a term compares with the teacher, if only with weight 0: a control that is measured beside it."""
        return any(not isinstance(term, TEACHERLESS) for term in self.objective)

    @property
    def has_control(self) -> bool:
        """Whether the student learns anything that its control, which has the hard targets alone, does not."""
        return self.has_teacher or any(not isinstance(term, Hard) for term in self.terms)

    @property
    def temperature(self) -> float | None:
        """The temperature of the soft targets that are kept on disk; None if none are."""
        if self.label.online:
            return None
        found = (term.temperature for term in self.terms if isinstance(term, SoftTerm))
        return next((value for value in found if not isinstance(value, Schedule)), None)

    @property
    def compares_layers_alone(self) -> bool:
        """Whether a masked language model's teacher is asked for its layers, and never for what it says."""
        says = any(isinstance(term, (SoftTerm, PolicyGradient)) for term in self.terms)
        return self.task == "masked_lm" and self.has_teacher and not says

    @property
    def redraws(self) -> bool:
        """Whether tokens are hidden anew in each epoch: not where soft targets are kept, for these belong to one masked text."""
        return self.task == "masked_lm" and self.temperature is None

    @property
    def other_domains(self) -> list[Also]:
        """The sets of `evaluate.also`.  Where it is not given, the language reference that comes with Python, for whoever reads plain
        text: a language model whose teacher is on this machine and sees nothing before a row, and which does not learn from it."""
        if self.evaluate.also is not None:
            return self.evaluate.also
        apart = self.teacher.asked or self.teacher.context is not None
        used = any(one.source == reference.SOURCE for one in self.data.sets.values())
        if self.task not in ("causal_lm", "masked_lm") or apart or used or not reference.is_here():
            return []
        limit = None if self.evaluate.rows is not None else reference.ROWS
        return [Also(name=reference.NAME, source=reference.SOURCE, limit=limit)]

    @property
    def writing_api(self) -> Api | None:
        """The API that writes what `data.generate` asks for; None if a model on this machine does, or nothing is to be written."""
        writer = self.data.writer
        if not self.data.generate or (writer is not None and writer.model is not None):
            return None
        return writer.api if writer is not None and writer.api is not None else self.teacher.api

    @property
    def looked_for(self) -> list[str] | None:
        """Tasks of the harness whose documents are looked for in the rows to learn from; None if nothing is."""
        asked = Filter() if self.data.filter is None and self.data.generate else self.data.filter
        if asked is None or asked.contamination is None or self.evaluate.harness is None:
            return None
        return self.evaluate.harness.tasks

    @model_validator(mode="after")
    def _sections_agree(self) -> Self:
        if fault := next(faults(self), None):
            raise ValueError(fault)
        tell_apart(self.asked)
        return self

    @property
    def asked(self) -> list[Api]:
        """The APIs whose answers lie in the run's ledger; the judge of answers has one of its own."""
        return [*self.teacher.apis.values(), *self.data.apis.values()]

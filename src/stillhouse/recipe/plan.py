"""`sweep:`, `plan:` and `tune:`: one recipe that becomes several runs.

A run of a plan is an ordinary recipe.  Where it needs what another run made, it says `run:NAME` in the place of a model:
the student of that run.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from .data import DataSet
from .generate import Answers, BackTranslation, More, Paraphrase, most_of
from .section import Section
from .student import Student

RUN = "run:"
"""Before a run's name: the student that it made."""

Name = Annotated[str, Field(pattern="^[A-Za-z0-9][A-Za-z0-9_-]*$", max_length=32)]


class Step(Section):
    """One run of a plan: the recipe with some fields changed."""

    name: Name
    """Of its folder, and for `run:NAME` in later runs."""
    set: dict[str, Any] = {}
    """section.field: value, as with --set; a whole section replaces the recipe's."""


class Chain(Section):
    """Runs that build on one another as you say."""

    kind: Literal["chain"] = "chain"
    runs: list[Step] = Field(min_length=1)
    """`run:NAME` in teacher.model or student.model is the student of another of them."""
    compare: dict[Name, Name] = {}
    """Run: the run that it is compared with, on the same held-out rows."""


class Assistants(Section):
    """Teacher assistants: the teacher teaches a middle model, and that one the student, Mirzadeh et al. 2019
    (arXiv:1902.03393).  The recipe's steps are shared out evenly; the control is taught directly for all of them."""

    kind: Literal["assistants"] = "assistants"
    sizes: Annotated[int, Field(ge=1, le=8)] | Annotated[list[Student], Field(min_length=1)] = 1
    """The assistants, largest first, each written as in `student:`; or how many, and their sizes are chosen evenly
    (geometrically) between teacher and student."""


class Generations(Section):
    """Born-again: each student teaches the next one of the same shape, Furlanello et al. 2018 (arXiv:1805.04770)."""

    kind: Literal["generations"] = "generations"
    count: Annotated[int, Field(ge=2, le=20)] = 3
    """Students, the first of which learns from the teacher.  All of them together are measured as an ensemble."""


class Phases(Section):
    """One student in several phases, such as layers first and predictions then, or short rows first and long ones then.

    Each phase goes on with the student of the one before.  The control learns as in the last phase from the beginning,
    for as many steps as all phases together.
    """

    kind: Literal["phases"] = "phases"
    phases: list[Step] = Field(min_length=2)
    """In this order."""


class Tasks(Section):
    """Distil once without a task, then for several: the recipe makes the general student, each task goes on from it.

    The control of each task starts where the general student started.
    """

    kind: Literal["tasks"] = "tasks"
    tasks: list[Step] = Field(min_length=1)
    """Each with at least its own data."""


class Budget(Section):
    """What rounds may take; no round is begun that would probably go beyond it."""

    seconds: PositiveInt | None = None
    """Of the runs' stages and of choosing rows, all in all.  The control on hard targets alone, trained after the last round, is not
    counted."""
    dollars: PositiveFloat | None = None
    """Of all that is paid to APIs with a `price`."""

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if self.seconds is None and self.dollars is None:
            raise ValueError("seconds: is required and not there; add it (or dollars)")
        return self


class Rounds(Section):
    """Train, find where the student fails on fresh rows, let the teacher label or answer these, train on; data aggregation
    as in Ross et al. 2011 (arXiv:1011.0686).

    Ends when a round's gain is not beyond chance, or with the budget.  The control takes as many rows at random.  Each round has a
    whole `train.schedule` of its own, so that the student of each is one that was annealed.
    """

    kind: Literal["rounds"] = "rounds"
    pool: DataSet
    """Fresh rows; a classifier's need no labels, and with `answers` a language model's no answers."""
    answers: Answers | None = None
    """Language models: the teacher (or `data.writer`) writes the answers of the chosen rows, whatever the pool has; where the
    student fails is seen in answers of its own."""
    rows: PositiveInt = 500
    """Taken from the pool in each round."""
    write: list[More] = []
    """As in `data.generate`: new rows that `data.writer` (or the teacher) writes in each round like those chosen in it, and that are learned
    with them, as in Lion (Jiang et al. 2023, arXiv:2305.12870) and LLM2LLM (Lee et al. 2024, arXiv:2403.15042).  The control has as many
    that are like its own rows; `rows` of self_instruct is of each round."""
    most: Annotated[int, Field(ge=1, le=50)] = 3
    """Rounds after the first training, at most."""
    budget: Budget | None = None
    """Ends the rounds before `most`."""
    by: Literal["divergence", "uncertainty", "errors", "checker"] = "divergence"
    """What failing on a row means: far from the teacher (KL, summed over the row), unsure (a classifier's doubt in its
    own choice, a language model's negative log-likelihood), first choices that are not the teacher's (most first), or an
    answer that the checker of `evaluate.answers` calls wrong (then no other row is chosen)."""
    judge: Literal["headline", "answers"] = "headline"
    """What a round's gain is measured in: the task's first metric, or the answers that `evaluate.answers` asks for: those
    that pass its checker, or without one those that match exactly."""

    @property
    def writes(self) -> bool:
        """Whether somebody writes for the chosen rows."""
        return bool(self.write) or self.answers is not None

    @property
    def new_rows(self) -> int:
        """Rows that a round adds at most: the chosen ones, and those like them."""
        return self.rows + sum(most_of(one, self.rows) for one in self.write)

    @property
    def unanswered_rows(self) -> int:
        """Those of them of which nobody but the teacher says what it is asked: whoever writes new tasks answers them too."""
        return self.rows + sum(
            most_of(one, self.rows) for one in self.write if isinstance(one, (Paraphrase, BackTranslation))
        )

    @model_validator(mode="after")
    def _writes_of_chosen_rows(self) -> Self:
        for one in self.write:
            if one.of is not None:
                raise ValueError("write: the rows that it goes on from are those of each round; remove `of`")
            if isinstance(one, (Paraphrase, BackTranslation)) and one.keep_label:
                raise ValueError("write: the chosen rows have no label to keep; remove keep_label")
        return self


Plan = Annotated[
    Chain | Assistants | Generations | Phases | Tasks | Rounds,
    Field(discriminator="kind"),
]


TEACH_ON = (Chain, Assistants, Generations, Phases, Tasks, Rounds)
"""Plans whose later runs go on from, or learn from, an earlier student."""


OF_TEACHER = ("divergence", "errors")
"""Of `Rounds.by`: what is not seen without what the teacher says of each row of the pool."""
OF_STUDENTS = (Assistants, Generations)
"""Plans whose later teachers are the students of earlier runs."""


def asked_fault(recipe: Any, where: str) -> str | None:
    """What of a plan does not go with a teacher that is asked in words, called `where` in the recipe, in a sentence; None if
    nothing."""
    plan = recipe.plan
    if isinstance(plan, Rounds) and plan.by in OF_TEACHER:
        return (
            f"plan.by: {plan.by} compares with the teacher on the whole pool, and {where} would have to be asked about all of it; use "
            "uncertainty, which looks at the student alone"
            + ("" if recipe.task == "classification" else ", or checker")
        )
    if isinstance(plan, OF_STUDENTS) and recipe.task != "classification":
        return (
            f"plan: the later teachers of {plan.kind} are students of this recipe, and what {where} wrote would not be theirs; write "
            "the answers first (data.generate), and give them to a recipe with a teacher on this machine"
        )
    return None


class Range(Section):
    """Numbers to be tried."""

    low: float | int
    """The least."""
    high: float | int
    """The greatest; whole numbers are tried if both are whole."""
    log: bool = False
    """Try magnitudes evenly instead of values: for learning rates, temperatures and sizes."""

    @model_validator(mode="after")
    def _is_a_range(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"low must be below high, not {self.low} and {self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"log: low must be above 0, not {self.low}")
        return self


class Tune(Section):
    """What `stillhouse tune` tries."""

    space: dict[str, Range | Annotated[list[Any], Field(min_length=2)]] = {}
    """section.field: {low, high, log} or a list of choices; empty = learning rate, batch size, temperature, the weight
    of each term but the first that is not `hard`, the layer maps that have a name, and label.samples if the recipe has it."""
    trials: PositiveInt = 20
    """Settings tried; the recipe's own is the first."""
    validation: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Share of the training rows on which trials are judged; nobody trains on them, and they are never the eval rows."""
    prune: bool = True
    """End trials early that are worse than the median of the earlier ones at the same step."""
    against: Literal["parameters", "latency"] | None = None
    """Besides quality, make this small: what nobody beats in both is the Pareto front.  Then nothing is pruned."""
    seed: NonNegativeInt = 0
    """Of what is tried."""

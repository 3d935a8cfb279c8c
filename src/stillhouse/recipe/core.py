"""The recipe: one strict file that says everything about a run."""

from typing import Any, Literal, Self

from pydantic import Field, NonNegativeInt, model_validator

from .api import api_fault
from .crossing import apart_fault
from .data import Data
from .objective import (
    TEACHERLESS,
    AdaptiveKL,
    AlphaBeta,
    CrossTokenizer,
    Custom,
    ForwardKL,
    Hard,
    PolicyGradient,
    Schedule,
    SoftTerm,
    Term,
)
from .outputs import SIMPLE, Evaluate, Gate, Report, memorisation_fault
from .panel import alone_fault, context_fault, panel_fault
from .plan import TEACH_ON, Plan, Tune
from .rollouts import Adaptive, Rollouts, rollouts_fault
from .section import Section
from .student import Student
from .teacher import Label, Teacher
from .train import Train
from .written import written_fault
from .zero_shot import zero_shot_fault


class Recipe(Section):
    """Teacher, student, data and how the one learns from the other."""

    name: str = Field(pattern="^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=64)
    """The run folder is runs/<name>."""
    description: str = ""
    """One line, shown by `stillhouse ls` and in the report."""
    seed: NonNegativeInt = 0
    """Order, splits and every random draw follow from it."""
    task: Literal["causal_lm", "classification"]
    """What the models do."""
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
    def has_teacher(self) -> bool:
        """Whether the student learns from a teacher: by a term of the objective that compares with one, or by its texts."""
        if self.teacher.api is not None and self.task == "causal_lm":
            return True  # its texts are the hard targets
        return any(not isinstance(term, TEACHERLESS) for term in self.objective)

    @property
    def has_control(self) -> bool:
        """Whether the student learns anything that its control, which has the hard targets alone, does not."""
        return self.has_teacher or any(not isinstance(term, Hard) for term in self.objective)

    @property
    def temperature(self) -> float | None:
        """The temperature of the soft targets that are kept on disk; None if none are."""
        if self.label.online:
            return None
        found = (term.temperature for term in self.objective if isinstance(term, SoftTerm))
        return next((value for value in found if not isinstance(value, Schedule)), None)

    @model_validator(mode="after")
    def _sections_agree(self) -> Self:
        if fault := api_fault(self) or zero_shot_fault(self):
            raise ValueError(fault)
        settings = self.teacher
        if fault := panel_fault(
            self.task, settings.panel, settings.pool, settings.finetune is not None, settings.ema is not None
        ):
            raise ValueError(fault)
        if settings.context is not None and (
            fault := context_fault(self.task, settings.finetune is not None, settings.ema is not None)
        ):
            raise ValueError(fault)
        if fault := alone_fault(settings, self.data, self.student.vocabulary is not None):
            raise ValueError(fault)
        if self.student.vocabulary is not None and isinstance(self.plan, TEACH_ON):
            raise ValueError(
                f"student.vocabulary: the later runs of plan: {self.plan.kind} have a student of fewer tokens than their "
                "teacher; trim in a run of its own"
            )
        if self.student.vocabulary is not None and (fault := apart_fault(self.task, self.objective)):
            raise ValueError(fault)
        self._one_model_has_layers()
        if self.teacher.ema is not None and not self.label.online:
            raise ValueError(
                "teacher.ema: what the student itself says cannot be kept beforehand; set label.online: true"
            )
        self._rollouts_fit()
        if not self.label.online:
            self._targets_can_be_kept()
        if self.task != "classification" and self.teacher.finetune is not None:
            raise ValueError("teacher.finetune: only for task: classification")
        if self.evaluate.answers is not None and self.task != "causal_lm":
            raise ValueError("evaluate.answers: only a language model writes; remove it")
        if self.evaluate.judge is not None and self.evaluate.answers is None:
            raise ValueError("evaluate.judge: there are no answers to judge; add evaluate.answers")
        if self.gate.min_win_rate is not None and (
            self.evaluate.judge is None or "teacher" not in self.evaluate.judge.against
        ):
            raise ValueError("gate.min_win_rate: nobody judges; add evaluate.judge, against: [teacher]")
        if self.evaluate.harness is not None and self.task != "causal_lm":
            raise ValueError("evaluate.harness: its tasks are for language models; remove it")
        self._baselines_fit()
        if self.train.early_stopping is not None and self.student.sparsity is not None:
            raise ValueError(
                "train.early_stopping: the best student may be one that is not sparse yet; remove it, or student.sparsity"
            )
        if fault := memorisation_fault(self.evaluate, self.gate, self.task, self.teacher.is_local):
            raise ValueError(fault)
        if self.evaluate.swap and self.task != "classification":
            raise ValueError("evaluate.swap: only a classifier's answers can be paired; remove it")
        if self.data.augment is not None and (self.task != "classification" or not self.has_teacher):
            raise ValueError(
                "data.augment: only a classifier with a teacher can use rows without labels; remove it, or add a forward_kl "
                "term to a recipe with task: classification"
            )
        if fault := written_fault(self.data, self.task, self.has_teacher):
            raise ValueError(fault)
        if self.task == "classification" and self.data.unlabelled is not None and not self.has_teacher:
            raise ValueError(
                "data.unlabelled: no term of the objective uses the teacher; add a forward_kl term"
            )
        if (
            self.data.filter is not None
            and self.data.filter.min_confidence
            and self.teacher.finetune is not None
        ):
            raise ValueError(
                "data.filter.min_confidence: rows are filtered before teacher.finetune has trained the teacher; remove one of them"
            )
        if self.gate.min_gain is not None and not self.evaluate.hard_only:
            raise ValueError("gate.min_gain: needs the control; set evaluate.hard_only: true")
        if self.gate.min_gain is not None and not self.has_control:
            raise ValueError(
                "gate.min_gain: no term of the objective uses the teacher, so the student is its own control; "
                "remove the gate, or add a forward_kl term"
            )
        self._formats_fit()
        return self

    def _baselines_fit(self) -> None:
        """A gate asks for what is measured, and words are counted where texts have labels."""
        names = self.evaluate.baseline_names
        if self.task != "classification" and (words := [name for name in names if name in SIMPLE]):
            raise ValueError(
                f"evaluate.baselines: {words[0]} chooses labels, and a language model has none; name a model"
            )
        if unknown := sorted(set(self.gate.better_than) - set(names)):
            raise ValueError(
                f"gate.better_than: {unknown[0]} is not among evaluate.baselines ({', '.join(names) or 'none'}); add it there"
            )

    def _one_model_has_layers(self) -> None:
        """Layers are those of one model that reads what the student reads."""
        settings = self.teacher
        if settings.panel is None and settings.context is None and settings.zero_shot is None:
            return
        for term in self.objective:
            if not isinstance(term, (*TEACHERLESS, SoftTerm, PolicyGradient)):
                raise ValueError(
                    f"objective: {term.kind} compares layers, and a teacher with a panel, a context or zero_shot has none like the "
                    "student's; use forward_kl"
                )
            if isinstance(term, CrossTokenizer):
                raise ValueError(
                    "objective: cross_tokenizer needs one teacher without a context; remove the other"
                )

    def _rollouts_fit(self) -> None:
        """The student's own rows need a teacher that answers at once, and estimates from them unbiased draws."""
        if fault := rollouts_fault(self.objective, self.rollouts):
            raise ValueError(fault)
        if self.rollouts is None:
            return
        if self.task != "causal_lm":
            raise ValueError("rollouts: only a language model writes; remove them")
        if not self.label.online or not self.has_teacher:
            raise ValueError("rollouts: nobody has labelled what the student writes; set label.online: true")
        if isinstance(self.rollouts.share, Adaptive) and self.data.validation is None:
            raise ValueError(
                "rollouts.share: grows when the loss on the validation rows stops falling, and there are none; set "
                "data.validation: 0.1"
            )

    def _targets_can_be_kept(self) -> None:
        """What the terms compare with must be something that lies on disk."""
        soft = [term for term in self.objective if isinstance(term, SoftTerm)]
        for term in self.objective:
            if not isinstance(term, (*TEACHERLESS, SoftTerm)):
                raise ValueError(
                    f"objective: {term.kind} compares layers, which are not kept on disk; set label.online: true"
                )
        for term in soft:
            if isinstance(term, CrossTokenizer):
                raise ValueError(
                    "objective: cross_tokenizer compares what both models say at once; set label.online: true"
                )
            if isinstance(term.temperature, Schedule):
                raise ValueError(
                    f"objective: {term.kind} changes its temperature, but soft targets kept on disk have one; "
                    "set label.online: true"
                )
            if self.label.samples is not None and not isinstance(term, ForwardKL):
                raise ValueError(
                    f"objective: {term.kind} cannot be estimated from sampled targets; use forward_kl, label.top_k, or "
                    "label.online: true"
                )
            whole = self.label.top_k == "all" or self.task == "classification"
            if isinstance(term, (AdaptiveKL, AlphaBeta, Custom)) and not whole:
                raise ValueError(
                    f"objective: {term.kind} needs every outcome's probability, and label.top_k keeps "
                    f"{self.label.top_k}; set label.online: true"
                )
        temperatures = sorted(
            {term.temperature for term in soft if not isinstance(term.temperature, Schedule)}
        )
        if len(temperatures) > 1:
            raise ValueError(
                f"objective: terms ask for temperatures {temperatures}, but soft targets kept on disk have one; "
                "use one temperature, or label.online: true"
            )

    def _formats_fit(self) -> None:
        """A classifier reads labelled rows, and only a classifier does."""
        named = {"data.train": self.data.train, "data.eval": self.data.eval, "data.extra": self.data.extra}
        named |= {f"evaluate.also[{number}]": also for number, also in enumerate(self.evaluate.also)}
        for name, one in named.items():
            if one is None or one.format == "auto":
                continue
            if (self.task == "classification") != (one.format == "labelled"):
                raise ValueError(
                    f"{name}.format: {one.format} does not fit task: {self.task}; set it to auto"
                )

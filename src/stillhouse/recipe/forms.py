"""`student.adapter`, `student.quantize` and `student.sparsity`: in what form the student learns."""

from typing import Annotated, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from .section import Section

LOW_RANK = ("lora", "rslora", "dora")
"""Kinds of adapters that multiply their input with two small matrices."""


class Adapter(Section):
    """Small matrices beside the weights, which stay as they are; needs the extra `peft`.  The student that is handed over has
    them added in, and they lie beside it in PEFT's own format."""

    kind: Literal["lora", "rslora", "dora", "loha", "lokr", "ia3"] = "lora"
    """LoRA (arXiv:2106.09685); rsLoRA, with alpha ÷ √rank (arXiv:2312.03732); DoRA, which learns each column's length too
    (arXiv:2402.09353); LoHa, the entrywise product of two low ranks (arXiv:2108.06098); LoKr, a Kronecker product
    (arXiv:2212.10650); IA³, one factor for each output (arXiv:2205.05638)."""
    rank: PositiveInt = 16
    """Columns of each small matrix; IA³ has none."""
    alpha: PositiveFloat = 32.0
    """Their product is multiplied by alpha ÷ rank; that of rsLoRA by alpha ÷ √rank."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of their input that is dropped, by LoRA, rsLoRA and DoRA."""
    target_modules: list[str] | Literal["all-linear"] = "all-linear"
    """Ends of the names of the products that get one; all of them but the head."""

    @model_validator(mode="after")
    def _the_kind_has_such_a_knob(self) -> Self:
        missing = () if self.kind in LOW_RANK else ("dropout",)
        missing = ("rank", "alpha", *missing) if self.kind == "ia3" else missing
        for name in missing:
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name}: {self.kind} has none; remove it")
        return self


class Quantize(Section):
    """Quantisation-aware training (arXiv:1712.05877): each product sees its weights rounded, and the gradient passes through;
    needs the extra `quant`.  The head and the embeddings stay whole."""

    weights: Literal["int8", "int4"] = "int8"
    """int8: one scale for each row of a matrix.  int4: one scale for each `group_size` numbers of a row."""
    group_size: PositiveInt = 32
    """Of int4."""
    activations: Literal["none", "int8"] = "none"
    """Round the products' inputs too, with one scale for each token."""


class Sparsity(Section):
    """Weights of the products are set to zero, the smallest first, more and more of them by a cubic schedule (Zhu & Gupta 2017,
    arXiv:1710.01878).  The head and the embeddings stay whole."""

    pattern: Literal["unstructured", "2:4"] = "unstructured"
    """Anywhere in a matrix, or two of each four neighbours, which hardware knows how to use."""
    amount: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Share of zeros in each matrix in the end."""
    until: Annotated[float, Field(gt=0, le=1)] = 0.6
    """Share of the steps after which that is reached; the rest is for recovering."""

    @model_validator(mode="after")
    def _two_of_four_is_a_half(self) -> Self:
        if self.pattern == "2:4" and self.amount != 0.5:
            raise ValueError(f"amount: 2:4 is a half, not {self.amount}; leave it out")
        return self

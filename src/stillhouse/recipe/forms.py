"""`student.adapter`, `student.quantize` and `student.sparsity`: in what form the student learns."""

from typing import Annotated, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from .section import Section


class Adapter(Section):
    """Small matrices beside the weights, which stay as they are; needs the extra `peft`.  The student that is handed over has
    them added in, and they lie beside it in PEFT's own format."""

    kind: Literal["lora", "dora"] = "lora"
    """LoRA (arXiv:2106.09685), or DoRA, which learns each column's length too (arXiv:2402.09353)."""
    rank: PositiveInt = 16
    """Columns of each small matrix."""
    alpha: PositiveFloat = 32.0
    """Their product is multiplied by alpha ÷ rank."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of their input that is dropped."""
    target_modules: list[str] | Literal["all-linear"] = "all-linear"
    """Ends of the names of the products that get one; all of them but the head."""


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

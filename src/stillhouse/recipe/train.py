"""`train:`: how long, how fast, how careful.  What the Trainer knows and nobody sets here keeps the Trainer's default."""

from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from .objective import Schedule
from .section import Section


class EarlyStopping(Section):
    """End when the task's metric on validation rows gets no better, and take the student from where it was best."""

    every: PositiveInt
    """Optimiser steps between looks; the last step is always looked at."""
    patience: PositiveInt = 3
    """Looks in a row that bring nothing better, after which training ends."""
    rows: PositiveInt = 512
    """Rows that are looked at, at most: of `data.validation`, or else set aside from the training rows, half of them at most; never of
    the held-out ones."""


class Train(Section):
    """The optimiser's settings, the same for the student and for its hard-targets control."""

    steps: PositiveInt | None = None
    """Optimiser steps; instead of `epochs`."""
    epochs: PositiveFloat | None = None
    """Passes over the training rows; 1 if `steps` is not given either."""
    batch_size: PositiveInt = 8
    """Rows in a forward pass, per device."""
    accumulate: PositiveInt = 1
    """Forward passes in an optimiser step."""
    learning_rate: PositiveFloat = 2e-4
    """Peak, after the warm-up."""
    schedule: Literal["cosine", "linear", "constant_with_warmup", "warmup_stable_decay"] = "cosine"
    """How the learning rate falls after the warm-up: warmup_stable_decay leaves it at the peak until the last fifth of the steps."""
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of the steps over which the learning rate rises."""
    weight_decay: NonNegativeFloat = 0.01
    """AdamW's decay, on matrices only."""
    rationale_weight: NonNegativeFloat | Schedule = 1.0
    """Factor, or a schedule for it, on what every term asks of a rationale's tokens (rows with a `rationale`, or `data.generate: rationale`); they count
    as one position each, whatever they weigh."""
    max_grad_norm: PositiveFloat = 1.0
    """Gradients longer than this are scaled down to it."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic of the matrix products; weights stay float32.  `auto` is bfloat16 where this machine is faster with it."""
    checkpoint_every: PositiveInt = 50
    """Optimiser steps between checkpoints."""
    keep_checkpoints: PositiveInt = 2
    """Verified checkpoints kept; 2 means that one may be damaged and the run still goes on."""
    log_every: PositiveInt = 5
    """Optimiser steps between lines of metrics.jsonl."""
    report_to: list[Literal["tensorboard", "wandb", "mlflow", "trackio"]] = []
    """Where the Trainer sends its curves, besides metrics.jsonl."""
    early_stopping: EarlyStopping | None = None
    """When to end before `steps`, for the student and for its control alike."""
    seed: NonNegativeInt | None = None
    """Of the student's new weights, the order of its rows, and its dropout; the recipe's `seed` if not given.  Runs that
    differ only here share their data, their split and their teacher."""

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if self.steps is not None and self.epochs is not None:
            raise ValueError("give steps or epochs, not both")
        return self

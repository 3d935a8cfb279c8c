"""`evaluate:`, `report:` and `gate:`: what is measured, shown and demanded."""

from typing import Annotated, Self

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from .data import Also
from .section import Section


class Evaluate(Section):
    """What the teacher, the student and the controls are measured on."""

    rows: PositiveInt | None = None
    """Held-out rows used, at most; all of them if not given."""
    also: list[Also] = []
    """Further data sets, which nobody trained on."""
    hard_only: bool = True
    """Train the control: same student, data, steps and learning rate, but hard targets alone."""
    speed: bool = True
    """Measure speed and memory of teacher and student, which takes half a minute; a plan does so once for each shape."""
    resamples: Annotated[int, Field(ge=200, le=100_000)] = 2000
    """Bootstrap resamples and permutations behind each interval and p-value."""

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        names = [also.name for also in self.also]
        if {"train", "eval", "unlabelled", "validation", "extra"} & set(names) or len(set(names)) != len(
            names
        ):
            raise ValueError(
                f"also: names must differ from each other and from train, eval, validation, extra and unlabelled, not {', '.join(names)}"
            )
        return self


class Report(Section):
    """What report.html shows besides numbers."""

    samples: NonNegativeInt = 6
    """Held-out rows shown side by side."""


class Gate(Section):
    """The run ends with exit code 6 if one of these is missed; nothing is deleted."""

    min_retention: float | None = None
    """Lowest retention, by its value (not its interval)."""
    min_gain: float | None = None
    """Lowest gain over the hard-targets control, in the metric's unit."""

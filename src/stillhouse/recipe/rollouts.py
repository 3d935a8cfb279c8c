"""`rollouts:`: the student writes, and the teacher says what it should have written."""

from collections.abc import Iterable
from typing import Annotated, Any, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from .objective import PolicyGradient, Schedule
from .section import Section

Share = Annotated[float, Field(ge=0, le=1)]


class Adaptive(Section):
    """The student writes more once its loss on the validation rows stops falling, Ko et al. 2024 (DistiLLM, arXiv:2402.03898)."""

    start: Share = 0.0
    """Share at the first step."""
    step: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Added to the share at each look that finds the loss no lower than the look before did."""
    most: Share = 1.0
    """The share never exceeds this."""
    tolerance: NonNegativeFloat = 0.0
    """The objective's value may rise by this much before the share does."""
    every: PositiveInt = 50
    """Optimiser steps between two looks."""

    @model_validator(mode="after")
    def _rises(self) -> Self:
        if self.start > self.most:
            raise ValueError(f"start: {self.start} is above most: {self.most}")
        return self


class Rollouts(Section):
    """On-policy distillation, Agarwal et al. 2023 (GKD, arXiv:2306.13649)."""

    share: Share | Schedule | Adaptive = 0.5
    """Share of the batches that the student writes itself (λ), a schedule for it, or {start, step, every, …} to let it grow when
    the loss on the rows of `data.validation` stops falling; the others are the data's."""
    temperature: PositiveFloat = 1.0
    """Of sampling; the temperature of the loss is each term's own."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Sample from the fewest tokens that together have this probability.  Below 1 it biases estimates from sampled
    tokens, so policy_gradient refuses it."""
    max_new_tokens: PositiveInt = 64
    """Tokens that the student writes, at most."""
    prompt_tokens: PositiveInt = 32
    """Tokens of a plain text that the student goes on from; chats and completions have their own prompts, and an encoder–decoder its
    sources."""
    replay: Share = 0.0
    """Share of the student's batches that are taken from what it wrote before (Ko et al. 2024, arXiv:2402.03898)."""
    buffer: PositiveInt = 1024
    """Rows kept for that; the oldest go first."""

    @model_validator(mode="after")
    def _share_is_a_share(self) -> Self:
        if isinstance(self.share, Schedule) and max(self.share.start, self.share.end) > 1:
            raise ValueError("share: a schedule must stay between 0 and 1")
        return self


def rollouts_fault(
    terms: Iterable[Any], rollouts: Rollouts | None, rationale_weight: float | Schedule = 1.0
) -> str | None:
    """Why the terms could not learn so from what the student writes; None if they can."""
    terms = list(terms)
    adaptive = rollouts is not None and isinstance(rollouts.share, Adaptive)
    if adaptive and (fault := _adaptive_fault(terms, rationale_weight)):
        return fault
    if not any(isinstance(term, PolicyGradient) for term in terms):
        return None
    if rollouts is None:
        return "objective: policy_gradient learns from what the student writes; add rollouts"
    if rollouts.top_p < 1 or rollouts.temperature != 1 or rollouts.replay:
        return (
            "objective: policy_gradient is biased by rollouts.top_p below 1, rollouts.temperature other than 1 and "
            "rollouts.replay; leave them out"
        )
    return None


def _adaptive_fault(terms: list[Any], rationale_weight: float | Schedule) -> str | None:
    """Why two looks at the validation rows would not tell whether the student got better."""
    if isinstance(rationale_weight, Schedule):
        return (
            "rollouts.share: follows the objective's value on the validation rows, which the schedule of train.rationale_weight "
            "changes by itself; use a fixed weight, or a schedule for the share"
        )
    for term in terms:
        if isinstance(term.weight, Schedule) or isinstance(getattr(term, "temperature", None), Schedule):
            return (
                f"rollouts.share: follows the objective's value on the validation rows, which the schedule of {term.kind} changes "
                "by itself; use fixed weights and temperatures, or a schedule for the share"
            )
    if all(isinstance(term, PolicyGradient) for term in terms):
        return (
            "rollouts.share: follows the objective's value on the validation rows, and policy_gradient says nothing about rows "
            "that the student did not write; add another term"
        )
    return None

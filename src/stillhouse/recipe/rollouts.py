"""`rollouts:`: the student writes, and the teacher says what it should have written."""

from collections.abc import Iterable
from typing import Annotated, Any, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from .objective import PolicyGradient, Schedule
from .section import Section

Share = Annotated[float, Field(ge=0, le=1)]


class Rollouts(Section):
    """On-policy distillation, Agarwal et al. 2023 (GKD, arXiv:2306.13649)."""

    share: Share | Schedule = 0.5
    """Share of the batches that the student writes itself (λ), or a schedule for it; the others are the data's."""
    temperature: PositiveFloat = 1.0
    """Of sampling; the temperature of the loss is each term's own."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Sample from the fewest tokens that together have this probability.  Below 1 it biases estimates from sampled
    tokens, so policy_gradient refuses it."""
    max_new_tokens: PositiveInt = 64
    """Tokens that the student writes, at most."""
    prompt_tokens: PositiveInt = 32
    """Tokens of a plain text that the student goes on from; chats and completions have their own prompts."""
    replay: Share = 0.0
    """Share of the student's batches that are taken from what it wrote before (Ko et al. 2024, arXiv:2402.03898)."""
    buffer: PositiveInt = 1024
    """Rows kept for that; the oldest go first."""

    @model_validator(mode="after")
    def _share_is_a_share(self) -> Self:
        if isinstance(self.share, Schedule) and max(self.share.start, self.share.end) > 1:
            raise ValueError("share: a schedule must stay between 0 and 1")
        return self


def rollouts_fault(terms: Iterable[Any], rollouts: Rollouts | None) -> str | None:
    """Why `policy_gradient` could not be estimated from what the student writes; None if it can, or is not asked for."""
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

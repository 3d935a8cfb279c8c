"""`rollouts:`: the student writes, and the teacher says what it should have written."""

from typing import Annotated

from pydantic import Field, PositiveFloat, PositiveInt

from .objective import Schedule
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

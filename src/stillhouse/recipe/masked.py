"""What `task: masked_lm` cannot do, and what it does not need."""

from collections.abc import Iterator
from typing import Any

from .objective import CrossTokenizer, DeeperLayers, Hard, PolicyGradient
from .plan import Assistants, Generations, Rounds


def masked_faults(recipe: Any) -> Iterator[str]:
    """Why a masked language model cannot learn so, one sentence each; nothing for other tasks."""
    if recipe.task != "masked_lm":
        return
    teacher, data, evaluate = recipe.teacher, recipe.data, recipe.evaluate
    if teacher.api is not None:
        yield "teacher.api: says nothing about hidden tokens; name a masked language model in teacher.model"
    for term in recipe.terms:
        if isinstance(term, (CrossTokenizer, DeeperLayers, PolicyGradient)):
            yield (
                f"objective: {term.kind} is for what is read from left to right, and task: masked_lm is not; use forward_kl, or "
                "terms about layers such as relations"
            )
    if teacher.pool is not None and teacher.pool.by == "column" and recipe.redraws:
        yield (
            "teacher.pool: by: column knows a row by its hidden tokens, which are others in each epoch here; set label.online: false"
        )
    if isinstance(recipe.plan, Rounds) and recipe.plan.writes:
        yield "plan: rounds of task: masked_lm read plain text as it is; remove write and answers, or give a larger pool"
    if recipe.student.vocabulary is not None:
        yield "student.vocabulary: is not for task: masked_lm, which says any token at random; trim in a later run"
    if recipe.compares_layers_alone:
        yield from _headless_faults(recipe)
    for name in ("unlabelled", "generate", "writer", "judge", "augment"):
        if getattr(data, name):
            yield f"data.{name}: task: masked_lm reads plain text as it is; remove it, or put more text into data.extra"
    for name in ("perturb", "swap"):
        if getattr(evaluate, name):
            yield f"evaluate.{name}: other tokens are hidden in a changed text, so nothing can be compared; remove it"


def _headless_faults(recipe: Any) -> Iterator[str]:
    """What needs somebody's head for hidden tokens, where terms about layers train none and the teacher may have none."""
    wanted = recipe.plan
    if recipe.data.filter is not None and recipe.data.filter.min_confidence is not None:
        yield (
            "data.filter.min_confidence: an objective about layers alone does not ask what the teacher says; remove it, or add a "
            "forward_kl term"
        )
    if isinstance(wanted, Rounds) and wanted.by != "uncertainty":
        yield (
            f"plan.by: {wanted.by} looks at what the teacher says, and an objective about layers alone does not ask it; add a "
            "forward_kl term"
        )
    if any(isinstance(term, Hard) for term in recipe.terms):
        return
    if isinstance(wanted, (Assistants, Generations, Rounds)):
        yield (
            f"plan.kind: {wanted.kind} go on from students, whose heads an objective about layers alone does not train; add a hard "
            "term"
        )
    if recipe.train.early_stopping is not None:
        yield (
            "train.early_stopping: goes by what the student says of hidden tokens, which an objective about layers alone does not "
            "train; remove it, or add a hard term"
        )

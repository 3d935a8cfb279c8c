"""Which rows somebody can be asked about."""

from collections.abc import Mapping, Sequence
from typing import Any

from ..data.formats import Row
from ..errors import DataError, RecipeError
from ..recipe import generate as kinds

TRAINED_BY = ("train", "validation")
"""Sets that settings or weights are chosen on, and that nothing is reported on."""
NEED_QUESTIONS = (kinds.Answers, kinds.SelfInstruct, kinds.EvolInstruct, kinds.Rationale)


def refuse_unaskable(task: str, sets: Mapping[str, Sequence[Row]]) -> None:
    """Raises: DataError for plain text, which asks nothing, and for held-out rows of a classifier that nobody labelled."""
    for name, rows in sets.items():
        for row in rows:
            if task == "causal_lm" and "text" in row:
                raise DataError(
                    f"{row['where']}: plain text asks nothing of a teacher behind an API; give rows with prompt, messages or "
                    "instruction."
                )
            if task == "classification" and name not in TRAINED_BY and row.get("label") is None:
                raise DataError(
                    f"{row['where']}: has no label, and {name} is what the models are measured on; name labelled rows in "
                    f"{'data.eval' if name == 'eval' else 'evaluate.also'}."
                )


def refuse_plain_text(wanted: Any, rows: Sequence[Row], field: str = "data.generate") -> None:
    """Raises: RecipeError if a kind of `data.generate`, or of another `field`, needs questions, and the rows are texts."""
    if isinstance(wanted, NEED_QUESTIONS) and rows and "text" in rows[0]:
        prompts = ", or name prompts in data.unlabelled" if field == "data.generate" else ""
        raise RecipeError(
            f"{field}: {wanted.kind} needs questions, and the rows are plain text; give prompt or messages columns{prompts}."
        )

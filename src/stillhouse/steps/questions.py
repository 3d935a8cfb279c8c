"""Which rows somebody can be asked about, and what they say of their labels."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from ..data.formats import Row
from ..errors import DataError
from ..models.load import load_config

TRAINED_BY = ("train", "validation")
"""Sets that settings or weights are chosen on, and that nothing is reported on."""


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


def named_labels(found: list[str], named: Mapping[str, str], student: Path | None, key: str) -> list[str]:
    """The labels in the order of the outputs: that of the student's own head if it has these labels, else sorted.

    Args: found: in the training rows; named: by the recipe, in its field `key`.
    """
    if found and named and (strange := sorted(set(found) - set(named))):
        raise DataError(
            f"data.train: has the label {strange[0]!r}, which {key} does not name ({', '.join(named)}); add it there."
        )
    labels = sorted(named) or found
    if len(labels) < 2:
        raise DataError(
            f"data.train: has {len(labels)} labels, and a classifier needs at least two; name them in {key}."
        )
    if student is not None:
        own = load_config(student).id2label or {}
        names = [str(own[number]) for number in sorted(own, key=int)]
        if sorted(names) == sorted(labels):
            return names
    return labels

"""The labels of a classifier, in the order of its outputs, and who must have them in that order."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..data.split import Prepared
from ..errors import DataError, RecipeError
from ..models.load import label_names, load_config
from ..tasks.classification import label_order
from .fetching import OWN_TOKENS, lenders


def labels_of(recipe: Any, rows: Prepared, models: dict[str, Any]) -> list[str]:
    """A classifier's labels in the order of its outputs; none for other tasks.

    Raises: DataError if the training rows have other labels, or too few; RecipeError for a student, or a member of the panel, that
    has them in another order.
    """
    labels = _labels(recipe, rows, models) if recipe.task == "classification" else []
    if labels and models["student"]:
        _check_order("student.model", Path(models["student"]["folder"]), labels)
    for settings, member in zip(recipe.teacher.panel or [], models["panel"] or [], strict=True):
        who = f"teacher.panel: {member['name']}"
        if OWN_TOKENS in member:  # what it says is put into the student's order
            label_order(Path(member["folder"]), labels, who)
        elif settings.lends:
            _check_order(who, Path(member["folder"]), labels)
    return labels


def _labels(recipe: Any, rows: Prepared, models: dict[str, Any]) -> list[str]:
    """Those of the training rows, or that the recipe names for them."""
    teacher = Path(models["teacher"]["folder"])
    labels = sorted({row["label"] for row in rows.train if row.get("label") is not None})
    if recipe.teacher.takes_bare_rows:
        lender = teacher if models["student"] else None
        return _named(labels, recipe.teacher.label_words, lender, recipe.teacher.labels_field)
    named = recipe.teacher.label_words
    if named and set(named) != set(labels):
        raise DataError(
            f"{recipe.teacher.labels_field}: names {', '.join(sorted(named))}, and the data's labels are {', '.join(labels)}; "
            "name these."
        )
    if len(labels) < 2:
        raise DataError(
            f"data.train: has only the label {', '.join(labels)!r}; a classifier needs at least two."
        )
    if models["panel"] and not lenders(recipe.teacher.panel, models["panel"]):
        return _named(labels, named, teacher, "data.train")
    return labels if recipe.teacher.finetune else label_order(teacher, labels)


def _named(found: list[str], named: Mapping[str, str], student: Path | None, key: str) -> list[str]:
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
        names = label_names(load_config(student))
        if sorted(names) == sorted(labels):
            return names
    return labels


def _check_order(who: str, folder: Path, labels: list[str]) -> None:
    """Refuse a model that was trained on these labels in another order: it would be read upside down."""
    names = label_names(load_config(folder))
    if sorted(names) == sorted(labels) and names != labels:
        raise RecipeError(
            f"{who}: its labels are in the order {', '.join(names)}, and the teacher's {', '.join(labels)}; "
            "swap them in its config.json and its head, or take a model without a head."
        )

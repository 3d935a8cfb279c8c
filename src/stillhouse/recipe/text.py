"""A Recipe -> YAML text with only what its author set."""

from .core import Recipe
from .yaml import write_yaml


def recipe_text(recipe: Recipe) -> str:
    """The recipe without the fields that have their defaults; `load_recipe` reads it back to an equal one."""
    values = recipe.model_dump(mode="json", exclude_defaults=True)
    if "objective" in values:  # a term's kind is its default, and what tells it from the others
        pairs = zip(recipe.objective, values["objective"], strict=True)
        values["objective"] = [{"kind": term.kind, **knobs} for term, knobs in pairs]
    if recipe.plan is not None:
        values["plan"] = {"kind": recipe.plan.kind, **values["plan"]}
    return write_yaml(values)

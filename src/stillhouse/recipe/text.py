"""A Recipe -> YAML text with only what its author set."""

import yaml

from .core import Recipe


def recipe_text(recipe: Recipe) -> str:
    """The recipe without the fields that have their defaults; `parse_recipe` reads it back to an equal one."""
    return yaml.safe_dump(
        recipe.model_dump(mode="json", exclude_defaults=True), sort_keys=False, allow_unicode=True, width=110
    )

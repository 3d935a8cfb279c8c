"""What every section of a recipe is: closed, frozen, and documented under each field."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

Column = Literal["text", "pair", "label", "messages", "prompt", "completion", "rationale"]
"""What a row may be made of, in our words."""


class Section(BaseModel):
    """A piece of the recipe.  A key it does not know is an error, and it never changes once read."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,  # the YAML reader knows numbers from words; a quoted number is a mistake
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        protected_namespaces=(),
    )

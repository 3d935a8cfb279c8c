"""What can be said of a teacher behind an API without asking it."""

from importlib.util import find_spec
from pathlib import Path

from ..errors import DataError, MissingExtra
from ..recipe import Api
from ..registry import needs
from .endpoint import secret_of


def api_checks(api: Api, field: str = "teacher.api") -> list[str]:
    """Notes for a person; `field` is where the recipe names it.  Raises: MissingExtra, RecipeError or DataError for what would stop the run later."""
    notes, who = [], field.removesuffix(".api")
    if api.answers is not None:
        if not Path(api.answers).is_file():
            raise DataError(
                f"{field}.answers: {api.answers} does not exist; name a .jsonl file of past answers."
            )
        notes.append(f"teacher: answers are taken from {api.answers}")
    if api.base_url is None:
        return notes
    if find_spec("openai") is None:
        raise MissingExtra(needs("openai", field))
    secret_of(api, field)
    key = "no key" if api.api_key_env is None else f"the key in {api.api_key_env}"
    money = "" if api.max_cost is None else f", at most ${api.max_cost:g}"
    return [*notes, f"{who}: {api.model} at {api.base_url}, with {key}{money}; nothing is asked yet"]

"""Name -> "module:attribute", imported only when picked.  The one seam by which kinds of things are added."""

import importlib
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from .errors import MissingExtra, RecipeError

EXTRAS = {
    "gguf": "gguf",
    "jsonschema": "data",
    "lm_eval": "eval",
    "httpx2": "api",
    "openai": "api",
    "optuna": "tune",
    "peft": "peft",
    "rouge_score": "eval",
    "sacrebleu": "eval",
    "sklearn": "eval",
    "torchao": "quant",
}
"""Top-level module -> the extra of this package that installs it; other optional packages are named as they are."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """ " Did you mean 'x'?" or the empty string."""
    near = get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f" Did you mean {near[0]!r}?" if near else ""


def pick(table: dict[str, str], kind: str, what: str) -> Any:
    """The object that `table[kind]` ("module:attribute") points to, imported only now."""
    if kind not in table:
        known = ", ".join(sorted(table))
        raise RecipeError(f"unknown {what} {kind!r}.{did_you_mean(kind, table)} Known: {known}.")
    return load(table[kind])


def load(target: str) -> Any:
    """The object at "module:attribute".

    Raises: MissingExtra if a package that one of our extras installs is not there; RecipeError otherwise.
    """
    module, _, attribute = target.partition(":")
    if not module or not attribute:
        raise RecipeError(f"{target!r} names no object; write it as package.module:function.")
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        missing = (error.name or module).partition(".")[0]
        if missing in EXTRAS:
            raise MissingExtra(needs(missing, target)) from error
        raise RecipeError(f"{target!r} cannot be imported: {error}. Is it on PYTHONPATH?") from error
    if not hasattr(found, attribute):
        raise RecipeError(f"{module} has no {attribute!r}.{did_you_mean(attribute, dir(found))}")
    return getattr(found, attribute)


def source_of(target: str) -> Path:
    """The file that "module:attribute" comes from.  Raises: RecipeError as `load` does."""
    load(target)
    return Path(str(importlib.import_module(target.partition(":")[0]).__file__))


def require(module: str, purpose: str) -> Any:
    """The optional `module`, or MissingExtra with the command that installs it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise MissingExtra(needs(module.partition(".")[0], purpose)) from error


def needs(module: str, purpose: str) -> str:
    """The sentence that says how to install what `purpose` needs."""
    package = f"'stillhouse[{EXTRAS[module]}]'" if module in EXTRAS else module
    return f"{purpose} needs the package {module}: pip install {package}"

"""A file -> a Recipe, or one sentence that says which field is wrong and what was meant."""

import json
import types
import typing
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from ..errors import RecipeError
from ..registry import did_you_mean
from .core import Recipe
from .yaml import parse_yaml


def load_recipe(path: str | Path, changes: Sequence[str] = ()) -> Recipe:
    """The recipe in `path`, with each "a.b=c" of `changes` applied.

    Relative paths of data and models are taken from the recipe's folder when they exist there, else from the
    working directory.

    Raises: RecipeError, which names the file, the field and the remedy.
    """
    return parse_recipe(read_values(Path(path), changes), str(path))


def read_values(path: Path, changes: Sequence[str] = ()) -> dict[str, Any]:
    """The plain values in a file of sections, which need not be a whole recipe.  Otherwise as `load_recipe`."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise RecipeError(f"{path}: no such recipe. `stillhouse ls` shows those that come with it.") from None
    except IsADirectoryError:
        raise RecipeError(f"{path}: is a folder; name the recipe's .yaml file in it.") from None
    except (UnicodeDecodeError, PermissionError) as error:
        raise RecipeError(f"{path}: cannot be read as UTF-8 text: {error}.") from error
    values = parse_yaml(text, str(path))
    if not isinstance(values, dict):
        raise RecipeError(f"{path}: must be a mapping of sections (name:, task:, teacher:, …).")
    for change in changes:
        _set(values, change)
    _anchor(values, path.absolute().parent)
    return values


def parse_recipe(values: dict[str, Any], where: str = "recipe") -> Recipe:
    """Plain values -> a Recipe.  Raises: RecipeError with one line a fault."""
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        faults = _sentences([dict(fault) for fault in error.errors()], values)
        if len(faults) == 1:
            raise RecipeError(f"{where}: {faults[0]}") from None
        raise RecipeError(f"{where} has {len(faults)} faults:\n  " + "\n  ".join(faults)) from None


PATHS = ("source", "model", "tokenizer", "answers", "json_schema", "prompt", "prompts")
"""Fields that name a file or a folder."""


def _anchor(values: Any, folder: Path) -> None:
    """Make paths that exist beside the recipe absolute, in every one of PATHS."""
    if isinstance(values, dict):
        for key, value in values.items():
            if str(key).rpartition(".")[2] in PATHS and isinstance(value, (str, list)):
                values[key] = _beside(value, folder)
            else:
                _anchor(value, folder)
    elif isinstance(values, list):
        for value in values:
            _anchor(value, folder)


def _beside(value: Any, folder: Path) -> Any:
    """A path that exists in `folder`, absolute, or each of a list of them; anything else as it is."""
    if isinstance(value, list):
        return [_beside(one, folder) for one in value]
    if isinstance(value, str) and value and (folder / value).exists():
        return str(folder / value)
    _anchor(value, folder)
    return value


def _set(values: dict[str, Any], change: str) -> None:
    """Apply one "a.b=c" of the command line."""
    key, equals, text = change.partition("=")
    if not equals or not all(key.strip().split(".")):
        raise RecipeError(
            f"--set {change!r}: write it as section.field=value, such as train.learning_rate=1e-4."
        )
    value = parse_yaml(text, f"--set {key}") if text.strip() else None
    set_field(values, key.strip(), value, f"--set {change!r}")


def set_field(values: dict[str, Any], key: str, value: Any, where: str) -> None:
    """Put `value` at "section.field" (list entries by their number, from 0).  Raises: RecipeError, beginning with `where`."""
    steps = key.split(".")
    place: Any = values
    for number, step in enumerate(steps):
        if isinstance(place, list) and step.isdecimal() and int(step) < len(place):
            at: Any = int(step)
        elif isinstance(place, dict):
            at = step
        else:
            above = ".".join(steps[:number])
            what = f"a list of {len(place)} (0 is the first)" if isinstance(place, list) else "no section"
            raise RecipeError(f"{where}: {above} is {what}, so it has no {step!r} to set.")
        if number == len(steps) - 1:
            place[at] = value
            return
        if isinstance(place, dict) and place.get(at) is None:
            place[at] = {}
        place = place[at]


_WANTED = {
    "int": "a whole number",
    "float": "a number",
    "finite": "a finite number",
    "string": "text",
    "bool": "true or false",
    "list": "a list",
    "dict": "a mapping (key: value)",
    "model": "a section (key: value)",
}
"""The first word of pydantic's name for a wrong type -> what was wanted."""


def _sentences(faults: list[dict[str, Any]], values: dict[str, Any]) -> list[str]:
    """One sentence a field: what a field may be instead is joined, and a wrong type is said only if nothing nearer is."""
    places = [_place(fault["loc"], values) for fault in faults]
    types_wanted: dict[str, list[str]] = {}
    others: dict[str, str] = {}
    shown: dict[str, str] = {}
    for fault, place in zip(faults, places, strict=True):
        if fault["type"] == "literal_error" and isinstance(fault.get("input"), dict):
            continue  # a section where a word may stand too: what is wrong inside it is said
        if wanted := _wanted_type(fault["type"]):
            if wanted not in types_wanted.setdefault(place, []):
                types_wanted[place].append(wanted)
            shown[place] = _shown(fault.get("input"))
        else:
            others.setdefault(place, _sentence(fault, place))
    said = dict(others)
    for place, wanted_types in types_wanted.items():
        if not any(other == place or other.startswith((f"{place}[", f"{place}.")) for other in others):
            said[place] = f"{place}: must be {' or '.join(wanted_types)}, not {shown[place]}."
    return [said[place] for place in dict.fromkeys(places) if place in said]


def _wanted_type(kind: str) -> str | None:
    first, _, rest = kind.partition("_")
    return (
        _WANTED.get(first) if rest in ("type", "parsing", "from_float", "attributes_type", "number") else None
    )


def _shown(given: Any) -> str:
    text = json.dumps(given, default=str, ensure_ascii=False)
    return text if len(text) < 60 else text[:57] + "..."


def _sentence(fault: dict[str, Any], place: str) -> str:
    """One of pydantic's faults in words a recipe's author knows."""
    message, given, more = (
        fault["msg"].removeprefix("Value error, "),
        fault.get("input"),
        fault.get("ctx", {}),
    )
    match fault["type"]:
        case "extra_forbidden":
            known = _known_keys(fault["loc"][:-1])
            word = str(fault["loc"][-1])
            hint = did_you_mean(word, known) or (f" Known here: {', '.join(known)}." if known else "")
            return f"{place}: no such key.{hint}"
        case "missing":
            return f"{place}: is required and not there; add it."
        case "union_tag_invalid":
            kinds = [kind.strip(" '") for kind in more["expected_tags"].split(",")]
            return f"{place}.kind: unknown kind {more['tag']!r}.{did_you_mean(more['tag'], kinds)} Known: {', '.join(kinds)}."
        case "union_tag_not_found":
            return f"{place}.kind: is required; such as `kind: forward_kl`."
        case "literal_error":
            allowed = more["expected"].replace("'", "")
            return f"{place}: must be {allowed}, not {given!r}.{did_you_mean(str(given), allowed.replace(' or ', ', ').split(', '))}"
        case "too_short" if more.get("min_length", 1) > 1:
            return f"{place}: needs at least {more['min_length']} entries, and has {more['actual_length']}."
        case "too_short":
            return f"{place}: must not be empty; add an entry, or remove the key."
        case "string_pattern_mismatch" if place.endswith("sha256"):
            return f"{place}: must be 64 hexadecimal digits in lower case, not {_shown(given)}."
        case "string_pattern_mismatch":
            return f"{place}: must match {more['pattern']}, not {_shown(given)}; letters, digits, '-' and '_' are fine."
        case "value_error":
            inner, colon, _ = message.partition(": ")
            joint = "." if colon and inner.replace("_", "").isalpha() else ": "
            return f"{place}{joint}{message}." if place else f"{message}."
        case _:
            must = (
                message.replace("Input should", "must")
                .replace("String should", "must")
                .replace("must have", "have")
            )
            return f"{place}: {must[0].lower()}{must[1:]}, not {_shown(given)}."


def _place(loc: Iterable[int | str], values: Any) -> str:
    """pydantic's location as the path in the file; the names it adds for union members are left out."""
    out, told = "", False
    for step in loc:
        if isinstance(step, int) and isinstance(values, list):
            out += f"[{step}]"
            values = values[step] if step < len(values) else None
        elif isinstance(values, dict) and step in values:
            out += f".{step}" if out else str(step)
            values, told = values[step], False
        elif isinstance(values, dict) and step == values.get("kind") and not told:
            told = True  # pydantic names the kind of term as well
        elif isinstance(values, dict) and not _is_union_member(str(step)):
            out += f".{step}" if out else str(step)
            values = None
    return out


def _is_union_member(step: str) -> bool:
    kinds = (
        "int",
        "float",
        "str",
        "constrained-str",
        "bool",
        "dict",
        "Schedule",
        "Adaptive",
        "Baseline",
        "FromColumn",
    )
    return step in kinds or "[" in step


def _known_keys(loc: Iterable[int | str]) -> list[str]:
    """The keys of the section at `loc`."""
    kind: Any = Recipe
    for step in loc:
        options = _models(kind)
        if isinstance(step, int):
            continue
        fields = [model.model_fields[step] for model in options if step in model.model_fields]
        if named := [model for model in options if _is_called(model, step, len(options) > 1)]:
            kind = named[0]
        elif fields:
            kind = fields[0].annotation
        else:
            return []
    return [name for model in _models(kind) for name in model.model_fields]


def _is_called(model: type[BaseModel], step: str, by_kind: bool) -> bool:
    """Whether pydantic names a member of a union so: by its class, or `by_kind`, which may also be the name of one of its fields."""
    kind = model.model_fields.get("kind")
    return model.__name__ == step or (by_kind and kind is not None and kind.default == step)


def _models(kind: Any) -> list[type[BaseModel]]:
    """The sections that a field's type can hold."""
    origin = get_origin(kind)
    if origin in (Annotated, Union, types.UnionType, list, typing.Required):
        return [model for arg in get_args(kind) for model in _models(arg)]
    return [kind] if isinstance(kind, type) and issubclass(kind, BaseModel) else []

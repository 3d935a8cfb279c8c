"""Text -> plain values, strictly.

PyYAML alone reads `1e-4` as text, `no` as False, and keeps the last of two equal keys without a word.  This loader
follows YAML 1.2 there, refuses duplicate keys, tags, and documents that are deep or full of aliases.
"""

import re
from typing import Any

import yaml

from ..errors import RecipeError

MAX_DEPTH = 32
MAX_ALIASES = 100
MAX_BYTES = 1_000_000


class _Loader(yaml.SafeLoader):
    """SafeLoader with YAML 1.2's words and numbers."""


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("null", r"(~|null|Null|NULL|)", ["~", "n", "N", ""]),
    ("bool", r"(true|True|TRUE|false|False|FALSE)", list("tTfF")),
    ("int", r"[-+]?[0-9][0-9_]*", list("-+0123456789")),
    ("float", r"[-+]?(\.[0-9]+|[0-9][0-9_]*(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
     list("-+.0123456789")),
):  # fmt: skip
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), _first)


def parse_yaml(text: str, where: str) -> Any:
    """The value that `text` stands for; `where` names it in errors.  Raises: RecipeError."""
    if len(text.encode()) > MAX_BYTES:
        raise RecipeError(f"{where}: is larger than {MAX_BYTES:,} bytes; a recipe is a page of text.")
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            raise RecipeError(f"{where}: is empty; start from one with: stillhouse cp quickstart my.yaml")
        _refuse(node, where, depth=0, path=())
        _count_aliases(text, where)
        return loader.construct_document(node)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise RecipeError(f"{where}{line}: is not valid YAML: {problem}.") from error
    except ValueError as error:
        raise RecipeError(f"{where}: {error}") from error
    finally:
        loader.dispose()


def _count_aliases(text: str, where: str) -> None:
    aliases = sum(isinstance(token, yaml.AliasToken) for token in yaml.scan(text, Loader=yaml.SafeLoader))
    if aliases > MAX_ALIASES:
        raise RecipeError(f"{where}: has {aliases} aliases, more than {MAX_ALIASES}; write the values out.")


def _refuse(node: yaml.Node, where: str, depth: int, path: tuple[int, ...]) -> None:
    """Refuse what is too deep, refers to itself, carries a tag, or names a key twice."""
    line = node.start_mark.line + 1
    if depth > MAX_DEPTH:
        raise RecipeError(f"{where}:{line}: is nested deeper than {MAX_DEPTH} levels.")
    if id(node) in path:
        raise RecipeError(f"{where}:{line}: an alias refers to itself.")
    if not node.tag.startswith("tag:yaml.org,2002:") or node.tag.rpartition(":")[2] in (
        "timestamp",
        "binary",
        "set",
    ):
        raise RecipeError(f"{where}:{line}: the tag {node.tag} is not allowed; write plain values.")
    if isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key, value in node.value:
            at = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise RecipeError(f"{where}:{at}: a key must be a plain word.")
            if key.value in seen:
                raise RecipeError(
                    f"{where}:{at}: the key {key.value!r} was given before, on line {seen[key.value]}."
                )
            seen[key.value] = at
            _refuse(value, where, depth + 1, (*path, id(node)))
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            _refuse(value, where, depth + 1, (*path, id(node)))

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
MAX_VALUES = 20_000
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


class _Dumper(yaml.SafeDumper):
    """SafeDumper that quotes text which this loader, or another one, would take for something else."""


_Dumper.yaml_implicit_resolvers = {
    first: [
        *yaml.SafeDumper.yaml_implicit_resolvers.get(first, []),
        *_Loader.yaml_implicit_resolvers.get(first, []),
    ]
    for first in {*yaml.SafeDumper.yaml_implicit_resolvers, *_Loader.yaml_implicit_resolvers}
}


def write_yaml(values: dict[str, Any]) -> str:
    """Plain values as text that `parse_yaml` reads back as the same values."""
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)


def _whole_number(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    """YAML 1.2 has no octal 012."""
    return int(node.value.replace("_", ""))


_Loader.add_constructor("tag:yaml.org,2002:int", _whole_number)


def parse_yaml(text: str, where: str) -> Any:
    """The value that `text` stands for, no part of it shared; `where` names it in errors.  Raises: RecipeError."""
    if len(text.encode()) > MAX_BYTES:
        raise RecipeError(f"{where}: is larger than {MAX_BYTES:,} bytes; a recipe is a page of text.")
    try:
        _refuse_tokens(text, where)
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            raise RecipeError(f"{where}: is empty; start from one with: stillhouse cp quickstart my.yaml")
        _refuse(node, where, depth=0, path=(), seen=[0])
        return _unshared(loader.construct_document(node))
    except yaml.YAMLError as error:
        raise RecipeError(_not_yaml(error, where)) from error
    except ValueError as error:
        raise RecipeError(f"{where}: {error}; mend the number, or put it in quotes.") from error


def _not_yaml(error: yaml.YAMLError, where: str) -> str:
    """The parser's complaint as one sentence."""
    mark = getattr(error, "problem_mark", None)
    line = f":{mark.line + 1}" if mark else ""
    said = [getattr(error, "context", None), getattr(error, "problem", None)]
    problem = ", ".join(part for part in said if part) or str(error).splitlines()[0]
    return (
        f"{where}{line}: is not valid YAML ({problem}); mend the line (text with ': ', '#' or a leading "
        "special character in it needs quotes)."
    )


def _refuse_tokens(text: str, where: str) -> None:
    """Refuse depth, tags and crowds of aliases before anything recursive or quadratic looks at them."""
    depth = aliases = 0
    for token in yaml.scan(text, Loader=yaml.SafeLoader):
        depth += isinstance(token, _OPENING) - isinstance(token, _CLOSING)
        aliases += isinstance(token, yaml.AliasToken)
        at = f"{where}:{token.start_mark.line + 1}"
        if depth > MAX_DEPTH:
            raise RecipeError(
                f"{at}: is nested deeper than {MAX_DEPTH} levels; a recipe needs no more than five."
            )
        if isinstance(token, yaml.TagToken):
            tag = "".join(part for part in token.value if part)
            raise RecipeError(f"{at}: the tag {tag} is not allowed; write plain values (quotes make text).")
        if aliases > MAX_ALIASES:
            raise RecipeError(f"{at}: has more than {MAX_ALIASES} aliases; write the values out.")


_OPENING = (
    yaml.BlockMappingStartToken,
    yaml.BlockSequenceStartToken,
    yaml.FlowMappingStartToken,
    yaml.FlowSequenceStartToken,
)
_CLOSING = (yaml.BlockEndToken, yaml.FlowMappingEndToken, yaml.FlowSequenceEndToken)


def _unshared(value: Any) -> Any:
    """A copy in which what an alias repeats is there twice, so that changing one leaves the other."""
    if isinstance(value, dict):
        return {key: _unshared(item) for key, item in value.items()}
    return [_unshared(item) for item in value] if isinstance(value, list) else value


def _refuse(node: yaml.Node, where: str, depth: int, path: tuple[int, ...], seen: list[int]) -> None:
    """Refuse what is too deep or too large once its aliases are followed, refers to itself, or names a key twice."""
    line = node.start_mark.line + 1
    seen[0] += 1
    if id(node) in path:
        raise RecipeError(f"{where}:{line}: an alias refers to itself; write the value out.")
    if depth > MAX_DEPTH or seen[0] > MAX_VALUES:
        raise RecipeError(f"{where}:{line}: its aliases unfold to too much; write the values out.")
    if isinstance(node, yaml.MappingNode):
        lines: dict[str, int] = {}
        for key, value in node.value:
            at = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise RecipeError(f"{where}:{at}: a key must be a plain word, such as name.")
            if key.value in lines:
                raise RecipeError(
                    f"{where}:{at}: the key {key.value!r} was given before, on line {lines[key.value]}; "
                    "remove one of them."
                )
            lines[key.value] = at
            _refuse(value, where, depth + 1, (*path, id(node)), seen)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            _refuse(value, where, depth + 1, (*path, id(node)), seen)

"""The files that decide what a task of the lm-evaluation-harness is: its YAML, what that includes, its data and its functions."""

import glob
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

_FUNCTION = re.compile(r"!function\s+[\"']?([\w.]+)\.\w+")
"""`!function utils.process`: a function of the module beside the YAML file."""


class _Loader(yaml.SafeLoader):
    """SafeLoader to which tags of the harness's own are nothing: who asks for files runs no code."""


_Loader.add_multi_constructor("!", lambda loader, tag, node: None)


def files_of(names: Sequence[str]) -> list[str]:
    """Every file behind tasks that lie in YAML files, once: those, what they include, the modules of their `!function`s, and their
    data, of folders all that is in them.

    Not followed: what such a module imports or opens itself.
    """
    found: dict[str, None] = {}
    for name in names:
        if name.endswith((".yaml", ".yml")):
            _follow(os.path.normpath(name), found)
    return list(found)


def _follow(name: str, found: dict[str, None]) -> None:
    """Put a YAML file and what stands behind it into `found`."""
    if name in found or not os.path.isfile(name):
        return
    found[name] = None
    beside, text = os.path.dirname(name), Path(name).read_text(encoding="utf-8")
    modules = [_joined(beside, f"{said.replace('.', '/')}.py") for said in _FUNCTION.findall(text)]
    found.update(dict.fromkeys(filter(os.path.isfile, modules)))
    try:
        said = _Loader(text).get_single_data()
    except yaml.YAMLError:  # the harness says so, once it is asked
        return
    if not isinstance(said, dict):
        return
    for other in _texts(said.get("include")):
        _follow(_joined(beside, other), found)
    found.update(dict.fromkeys(_data(said, beside)))


def _data(said: dict[str, Any], beside: str) -> Iterator[str]:
    """The files whose names stand anywhere in a task, and those in the folders and patterns that its data are read from."""
    kwargs = said.get("dataset_kwargs")
    named = kwargs if isinstance(kwargs, dict) else {}
    folders = [said.get("dataset_path"), named.get("data_dir")]
    bases = ["", beside, *_texts(folders)]
    for text in _texts(said):
        yield from filter(os.path.isfile, (_joined(base, text) for base in bases))
    for text in _texts([folders, named.get("data_files")]):
        for base in bases:
            for place in sorted(glob.glob(_joined(base, text), recursive=True)):
                yield from _inside(place)


def _inside(place: str) -> list[str]:
    """A file, or all in a folder but what is hidden or compiled: reading the task writes such files."""
    if os.path.isfile(place):
        return [place]
    if Path.cwd().is_relative_to(Path(place).resolve()):  # all that is here, runs among it, is nobody's data
        return []
    names = sorted(path.relative_to(place) for path in Path(place).rglob("*") if path.is_file())
    seen = [name for name in names if not any(part.startswith((".", "__")) for part in name.parts)]
    return [os.path.join(place, name) for name in seen]


def _joined(folder: str, name: str) -> str:
    """A path in one spelling, so that files which include each other come to an end."""
    return os.path.normpath(os.path.join(folder, name))


def _texts(value: Any) -> Iterator[str]:
    """All texts in plain values, but empty ones."""
    if isinstance(value, str):
        yield from filter(None, [value])
    elif isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _texts(one)

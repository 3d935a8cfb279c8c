"""The recipes that come with the package."""

import re
from dataclasses import dataclass
from pathlib import Path

from .errors import RecipeError
from .registry import did_you_mean


@dataclass(frozen=True)
class Shipped:
    """One of them."""

    name: str
    path: Path
    description: str
    takes: str
    reached: str


def shipped() -> dict[str, Shipped]:
    """By name; what each takes and reached stands in its README as "**Takes:** …" and "**Reached:** …"."""
    found = {}
    for path in sorted(_folder().glob("*/recipe.yaml")):
        about = path.with_name("README.md")
        text = about.read_text(encoding="utf-8") if about.exists() else ""
        described = re.search(r"^description: (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
        name = path.parent.name
        found[name] = Shipped(
            name, path, described[1] if described else "", _said("Takes", text), _said("Reached", text)
        )
    return found


def copy(name: str, target: Path) -> None:
    """Write the recipe `name` to `target`.  Raises: RecipeError if there is none, or something is there already."""
    known = shipped()
    if name not in known:
        raise RecipeError(
            f"no recipe is called {name!r}.{did_you_mean(name, known)} There are: {', '.join(known)}."
        )
    if target.exists():
        raise RecipeError(f"{target}: is there already; choose another name.")
    if not target.parent.is_dir():
        raise RecipeError(f"{target.parent}: is no folder; make it first.")
    text = known[name].path.read_text(encoding="utf-8")
    target.write_text(
        re.sub(r"^name: .*$", f'name: "{run_name(target)}"', text, count=1, flags=re.MULTILINE),
        encoding="utf-8",
    )


def run_name(target: Path) -> str:
    """A run's name from a file's."""
    return re.sub(r"[^A-Za-z0-9_.-]", "-", target.stem).lstrip("_.-") or "run"


def _folder() -> Path:
    inside = Path(__file__).parent / "shipped_recipes"  # in a wheel
    return inside if inside.is_dir() else Path(__file__).parents[2] / "recipes"  # in a checkout


def _said(what: str, text: str) -> str:
    found = re.search(rf"^\*\*{what}:\*\* (.+)$", text, re.MULTILINE)
    return found[1] if found else ""

"""Every recipe in the repository, found by rglob, so that none can rot unseen."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from stillhouse.recipe import load_recipe
from stillhouse.recipe.text import recipe_text
from stillhouse.shipped import shipped

FOLDER = Path(__file__).parents[1] / "recipes"
RECIPES = sorted(FOLDER.rglob("*.yaml"))


def test_there_are_recipes_and_ls_shows_them_all() -> None:
    assert RECIPES
    assert {one.path for one in shipped().values()} == {
        path for path in RECIPES if path.name == "recipe.yaml"
    }


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.relative_to(FOLDER).as_posix())
def test_the_recipe_is_read_and_written_back(path: Path, tmp_path: Path) -> None:
    recipe = load_recipe(path)
    assert recipe.description and recipe.licence, "shipped recipes say what they are and under which licence"
    (tmp_path / "again.yaml").write_text(recipe_text(recipe), encoding="utf-8")
    assert load_recipe(tmp_path / "again.yaml") == recipe


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.relative_to(FOLDER).as_posix())
def test_its_readme_says_what_it_takes_and_what_it_reached(path: Path) -> None:
    about = path.with_name("README.md")
    assert about.is_file(), f"{path}: has no README.md beside it"
    for what in ("Takes", "Reached"):
        said = re.search(rf"^\*\*{what}:\*\* (.+)$", about.read_text(encoding="utf-8"), re.MULTILINE)
        assert said and re.search(r"\d", said[1]), f"{about}: has no line **{what}:** with a number in it"


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.relative_to(FOLDER).as_posix())
def test_packages_are_pinned_by_their_sum(path: Path) -> None:
    found = list(_sources(load_recipe(path).model_dump(mode="json")))
    assert found
    for source, sha256 in found:
        if source.startswith("pypi:"):
            assert sha256, f"{path}: {source} has no sha256"
        else:
            assert not Path(source).is_absolute(), f"{path}: {source} exists on one machine only"


def _sources(values: object) -> Iterator[tuple[str, str | None]]:
    if isinstance(values, dict):
        for key in ("source", "model"):
            if isinstance(values.get(key), str):
                yield values[key], values.get("sha256")
        for value in values.values():
            yield from _sources(value)
    elif isinstance(values, list):
        for value in values:
            yield from _sources(value)

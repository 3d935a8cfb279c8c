"""One finished run of each task, shared by all tests that only look at it."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import pytest

import tiny
from stillhouse import reference
from stillhouse.steps import fetching
from typed import Said, hurried, stillhouse, write_recipe

IS_HERE = reference.is_here


@pytest.fixture(scope="session", autouse=True)
def own_rows_only() -> Iterator[None]:
    """Language models read no other domain unless a test asks for it: one more set for hundreds of tiny runs takes its time."""
    with mock.patch.object(reference, "is_here", return_value=False):
        yield


@pytest.fixture(scope="session", autouse=True)
def float32_here() -> Iterator[None]:
    """Which of two kinds is faster is measured in 100 ms, and beside other tests it falls now so, now so."""
    with mock.patch.object(fetching, "bfloat16_pays", return_value=False):
        yield


@pytest.fixture
def python_reference() -> Iterator[None]:
    """What a user has: `evaluate.also` that is not given is the language reference."""
    with mock.patch.object(reference, "is_here", IS_HERE):
        yield


@dataclass(frozen=True)
class Finished:
    """A recipe, the folder of its finished run, and what was said while it ran.  Copy it before changing it."""

    inputs: Path
    recipe: Path
    folder: Path
    said: Said


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """The tiny language recipe, run whole by the command line with --format json."""
    inputs = tmp_path_factory.mktemp("language")
    recipe = write_recipe(inputs / "tiny.yaml", tiny.language_recipe(inputs))
    with hurried():
        said = stillhouse("run", recipe, "--folder", inputs / "run", "--format", "json")
    assert said.code == 0, said.err
    return Finished(inputs, recipe, inputs / "run", said)


@pytest.fixture
def hurry() -> Iterator[None]:
    """See `typed.hurried`."""
    with hurried():
        yield

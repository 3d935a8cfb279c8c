"""A run up to one of its stages, without the seconds that measuring its speed takes."""

from pathlib import Path
from typing import Any

from stillhouse.files import read_json, write_json
from stillhouse.pipeline import run_pipeline
from stillhouse.plans.bench import UNPREDICTED
from stillhouse.progress import Silent
from stillhouse.recipe import parse_recipe
from stillhouse.stages import STAGES

SILENT_PLAN = [UNPREDICTED if stage.name == "plan" else stage for stage in STAGES]


def labelled(plain: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The result of the label stage."""
    folder.mkdir(exist_ok=True)
    write_json(folder / "machine.json", {"bfloat16": False})
    run_pipeline(parse_recipe(plain), SILENT_PLAN, folder, Silent(), until="label")
    found: dict[str, Any] = read_json(folder / "label" / "DONE.json")["result"]
    return found

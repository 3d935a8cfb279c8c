"""Several runs' students measured together: their probabilities averaged, on the rows that each was measured on."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors.numpy import load_file, save_file

from ..data.encode import read_examples
from ..files import atomic, hash_json, read_json
from ..measure import Rows
from ..pipeline import DONE
from ..probe import look
from ..progress import Watch
from ..recipe import parse_recipe
from ..steps.prepare import located, task_of


def measured_together(runs: Sequence[Path], kept: Path, watch: Watch) -> Rows:
    """Per-row statistics of the ensemble against the first run's teacher; kept by what its members are."""
    results = {stage: [_result(run, stage) for run in runs] for stage in ("prepare", "train", "teacher")}
    facts = results["prepare"][0]
    members = [found["identity"] for found in results["train"]]
    path = kept / f"{hash_json([members, facts['sets']['eval']['content']])[:16]}.safetensors"
    if not path.exists():
        recipe = parse_recipe(read_json(runs[0] / "recipe.json"), f"run {runs[0].name}")
        folders = [
            located(found["folder"], run / "train") for found, run in zip(results["train"], runs, strict=True)
        ]
        taught = results["teacher"][0]["folder"]
        # one that was asked in words cannot read the rows again, and quality needs no teacher
        teacher = None if taught is None else located(taught, runs[0] / "teacher")
        examples = read_examples(runs[0] / "prepare" / "eval.parquet")
        rows = look(
            folders,
            task_of(recipe, facts, runs[0] / "prepare"),
            examples,
            recipe.label.batch_size,
            watch,
            teacher,
        )
        watch.end()
        with atomic(path) as part:
            save_file(rows, part)
    return load_file(path)


def _result(run: Path, stage: str) -> dict[str, Any]:
    found: dict[str, Any] = read_json(run / stage / DONE)["result"]
    return found

"""What a run folder says of itself.  Imports no torch, so that `status` answers at once."""

from pathlib import Path
from typing import Any

from .errors import RecipeError
from .files import folder_bytes, read_json
from .locks import is_locked
from .pipeline import BEGUN, DONE

ORDER = ("prepare", "plan", "teacher", "initial", "label", "train", "control", "seeds", "evaluate", "report")
"""The names of `stages.STAGES`; a test holds the two together."""
PLAN = "plan.json"
"""In the folder of a plan: which runs it has."""


def run_state(folder: Path) -> dict[str, Any]:
    """Stage by stage: done, begun or waiting; what is next.  Raises: RecipeError if `folder` is no run."""
    if not (folder / "recipe.json").exists():
        raise RecipeError(f"{folder}: is no run folder; stillhouse run makes one in runs/<name>.")
    plan = folder / "plan" / "plan.json"
    predicted = read_json(plan)["seconds"] if plan.exists() else {}
    stages: dict[str, dict[str, Any]] = {}
    for name in ORDER:
        place = folder / name
        row: dict[str, Any] = {
            "state": "waiting",
            "detail": _detail(place),
            "predicted_seconds": predicted.get(name),
        }
        if (place / DONE).exists():
            saved = read_json(place / DONE)
            row |= {"state": "done", "seconds": saved["seconds"], "taken": "taken_from" in saved}
        elif (place / BEGUN).exists():
            row["state"] = "begun"
        stages[name] = row
    return {
        "name": read_json(folder / "recipe.json")["name"],
        "locked": is_locked(folder),
        "stages": stages,
        "next": next((name for name, row in stages.items() if row["state"] != "done"), None),
        "bytes": folder_bytes(folder),
    }


def is_plan(folder: Path) -> bool:
    """Whether the folder is that of several runs."""
    return (folder / PLAN).exists()


def plan_state(folder: Path) -> dict[str, Any]:
    """Run by run: done, begun or waiting, and how far; what is next."""
    plan = read_json(folder / PLAN)
    runs: dict[str, dict[str, Any]] = {}
    for one in plan["runs"]:
        place = folder / "runs" / one["name"]
        row = {
            "state": "waiting",
            "detail": "",
            "seconds": None,
            "needs": one["needs"],
            "about": one["about"],
        }
        if (place / "recipe.json").exists():
            found = run_state(place)
            spent = [
                stage.get("seconds") or 0.0 for stage in found["stages"].values() if not stage.get("taken")
            ]
            done = found["next"] is None or (one.get("until") is not None and _is_done(place, one["until"]))
            detail = "" if done else f"{found['next']} {found['stages'][found['next']]['detail']}".strip()
            row |= {"state": "done" if done else "begun", "detail": detail, "seconds": round(sum(spent), 1)}
        runs[one["name"]] = row
    waiting = plan.get("waiting") if not (folder / "results.json").exists() else None
    following = next((name for name, row in runs.items() if row["state"] != "done"), waiting)
    return {
        "name": plan["name"],
        "plan": plan["plan"],
        "locked": is_locked(folder),
        "runs": runs,
        "next": following,
        "bytes": folder_bytes(folder),
    }


def _is_done(place: Path, stage: str) -> bool:
    return (place / stage / DONE).exists()


def _detail(place: Path) -> str:
    """How far a stage got."""
    saved = sorted(place.glob("checkpoints/checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    if saved:
        return f"checkpoint at step {saved[-1].name.rpartition('-')[2]}"
    for index in place.glob("targets-*/index.json"):
        return f"{sum(shard['rows'] for shard in read_json(index)['shards']):,} examples labelled"
    return ""

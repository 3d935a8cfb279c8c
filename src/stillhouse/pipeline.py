"""Stages that run once, resume, and can't forget an input.

A stage declares the fields of the recipe and the earlier stages it reads, and is handed nothing else; so its fingerprint
(those fields, and those stages' results) covers everything that its result depends on.  DONE.json is written last and
names that fingerprint: a stage whose mark agrees is skipped, one that was cut off goes on in its folder, and one whose
inputs changed starts anew, its old folder being put on a shelf (and taken back from it when the recipe goes back).

Runs of one plan lie beside each other: what one of them finished from the same inputs, the next one takes over.

A stage's result must therefore follow from its inputs: name content by hash, and leave out what a clock says.
"""

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from pydantic import BaseModel

from .errors import RecipeError
from .files import hash_json, link_or_copy, read_json, sweep_parts, write_json
from .locks import locked
from .progress import Silent, Watch
from .ranks import Company, company
from .recipe import Recipe
from .registry import did_you_mean

Results = dict[str, dict[str, Any]]
"""Stage -> what it returned."""

DONE, BEGUN, SHELF = "DONE.json", "BEGUN.json", "previous"
ON_THE_SHELF = 2
"""Old folders kept of each stage."""


@dataclass(frozen=True)
class Stage:
    """One step from recipe to student."""

    name: str
    run: Callable[[Any, Path, Results, Watch], dict[str, Any]]
    """(recipe fields it reads, its folder, earlier results, who to tell) -> a small JSON-able result."""
    reads: tuple[str, ...]
    """Recipe fields that `run` gets to see, such as "train" or "evaluate.rows"."""
    reads_if_set: tuple[str, ...] = ()
    """More of them that a recipe may have: no part of the fingerprint while they are None, so that what was made before stays."""
    after: tuple[str, ...] = ()
    """Earlier stages whose results it gets to see, or parts of them, such as "prepare.labels"."""
    after_if_there: tuple[tuple[str, str | None], ...] = ()
    """(such a part, the recipe's field that must be set for it), which a result may lack: then it is no part of the fingerprint."""
    version: int = 1
    """Raise it when the code changes what is written for the same recipe."""
    stamp: Callable[[Any], Any] | None = None
    """What else its result depends on, beyond the recipe: the state of files that the recipe names."""
    intact: Callable[[Path, dict[str, Any]], str | None] | None = None
    """(its folder, its result) -> what of its output is damaged or gone, or None; looked at before it is skipped."""
    content_keyed: bool = False
    """What lies in its folder is found by content; it stays when the recipe changes."""
    pool: Callable[[Path, Path], None] | None = None
    """(another run's folder of this stage, its own) -> take what is found by content from there."""
    shared: bool = True
    """Another run may take it over; False for what also writes outside its folder."""
    joined: Callable[[Any], bool] | None = None
    """Whether all processes of a run work in it together (see `ranks`), by the recipe as it sees it; None = rank 0 alone does."""


@dataclass
class Uncounted:
    """The time of a command that no stage has counted: start-up, imports, looking at what is done."""

    since: float
    """By `time.perf_counter`: when the command began, or the last stage that ran had ended."""


def run_pipeline(
    recipe: Recipe,
    stages: Sequence[Stage],
    folder: Path,
    watch: Watch,
    until: str | None = None,
    only: str | None = None,
    fresh: bool = False,
    beside: Sequence[Path] = (),
    patient: bool = False,
    began: float | None = None,
) -> Results:
    """Run what is not done yet.

    Args:
        until: stop after this stage.
        only: run this stage alone; the earlier ones must be done.
        fresh: forget everything that was made in `folder`.
        patient: wait while another process works in `folder`.
        beside: run folders whose finished stages are taken over where they were made from the same inputs.
        began: when the command did, by `time.perf_counter`; what passes outside stages is kept with the stage that follows.
    Raises: ResourceError if another process works in `folder`; whatever a stage raises.
    """
    names = [stage.name for stage in stages]
    for asked in (until, only):
        if asked is not None and asked not in names:
            raise RecipeError(
                f"there is no stage {asked!r}.{did_you_mean(asked, names)} Stages: {', '.join(names)}."
            )
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder, watch if patient else None):
        if fresh:  # only what a run makes: somebody's thesis may lie in the folder that was named
            _empty(folder, names)
        write_json(folder / "recipe.json", recipe.model_dump(mode="json"))
        results: Results = {}
        others = company()
        uncounted = Uncounted(time.perf_counter() if began is None else began)
        for stage in stages:
            mark = _fingerprint(stage, recipe, results)
            if (
                only is not None
                and stage.name != only
                and not _is_done(stage, folder / stage.name, mark, watch)
            ):
                raise RecipeError(
                    f"--only {only}: the stage {stage.name!r} before it is not done; run that first."
                )
            results[stage.name] = _run_once(
                stage, recipe, folder / stage.name, mark, results, watch, beside, uncounted
            )
            if others is not None:
                others.tell(stage.name, {"result": results[stage.name]})
            if stage.name in (until, only):
                break
        return results


def follow_pipeline(
    recipe: Recipe,
    stages: Sequence[Stage],
    folder: Path,
    others: Company,
    until: str | None,
    only: str | None,
) -> None:
    """What `run_pipeline` of rank 0 is to the other ranks: wait for each stage, and work in those that are joined.

    Raises: ResourceError if rank 0 failed; whatever a stage raises.
    """
    results: Results = {}
    for stage in stages:
        said = others.heard(stage.name)
        if said == "join":
            view = _view(recipe, stage)
            try:
                stage.run(view, folder / stage.name, _results_view(results, stage, recipe), Silent())
            except RuntimeError:  # whom it worked with may be gone: then rank 0 says so
                others.heard(stage.name, before="join")
                raise
            said = others.heard(stage.name, before="join")
        results[stage.name] = said["result"]
        if stage.name in (until, only):
            break


def _fingerprint(stage: Stage, recipe: Recipe, results: Results) -> str:
    settings = settings_of(stage, recipe)
    stamp = stage.stamp(_view(recipe, stage)) if stage.stamp else None
    seen = _without_places(_results_view(results, stage, recipe))
    return hash_json([stage.name, stage.version, settings, stamp, seen])


def is_current(stage: Stage, recipe: Recipe, folder: Path) -> bool:
    """Whether a stage that needs no other is done in the run folder, and from this recipe."""
    done = folder / stage.name / DONE
    return done.exists() and read_json(done)["fingerprint"] == _fingerprint(stage, recipe, {})


def settings_of(stage: Stage, recipe: Recipe) -> dict[str, Any]:
    """The fields of the recipe that a stage declares, as plain values."""
    optional = [field for field in stage.reads_if_set if _field(recipe, field) is not None]
    return {field: _plain(_field(recipe, field)) for field in (*stage.reads, *optional)}


def _results_view(results: Results, stage: Stage, recipe: Recipe) -> Results:
    """The earlier results as a stage sees them: what it did not declare is a KeyError."""
    view: Results = {}
    more = [
        path
        for path, field in stage.after_if_there
        if _is_there(results, path) and (field is None or _field(recipe, field) is not None)
    ]
    for path in (*stage.after, *more):
        name, *steps = path.split(".")
        place: Any = view.setdefault(name, {})
        value: Any = results[name]
        for step in steps[:-1]:
            place, value = place.setdefault(step, {}), value[step]
        if steps:
            place[steps[-1]] = value[steps[-1]]
        else:
            view[name] = value
    return view


def _is_there(value: Any, path: str) -> bool:
    """Whether a result has this part."""
    for step in path.split("."):
        if step not in value:
            return False
        value = value[step]
    return True


def _without_places(value: Any) -> Any:
    """A result without its `folder` entries: where a thing lies changes nothing, and its identity stands beside it."""
    if isinstance(value, dict):
        return {key: _without_places(inner) for key, inner in value.items() if key != "folder"}
    return value


def _run_once(
    stage: Stage,
    recipe: Recipe,
    place: Path,
    mark: str,
    results: Results,
    watch: Watch,
    beside: Sequence[Path],
    uncounted: Uncounted,
) -> dict[str, Any]:
    if _is_done(stage, place, mark, watch):
        done: dict[str, Any] = read_json(place / DONE)["result"]
        return done
    _make_room(stage, place, mark, watch)
    if _is_done(stage, place, mark, watch):
        watch.note(f"{stage.name}: taken back from an earlier run of the same recipe")
        done = read_json(place / DONE)["result"]
        return done
    if whose := _take_over(stage, place, mark, beside):
        watch.note(f"{stage.name}: the same as in {whose}, taken from there")
        done = read_json(place / DONE)["result"]
        return done
    place.mkdir(parents=True, exist_ok=True)
    sweep_parts(place)
    watch.note(f"{stage.name}{': goes on' if (place / BEGUN).exists() else ''}")
    (place / DONE).unlink(missing_ok=True)
    write_json(place / BEGUN, {"fingerprint": mark})
    reset_peak()
    start = time.perf_counter()
    view = _view(recipe, stage)
    if (others := company()) is not None and stage.joined is not None and stage.joined(view):
        others.tell(stage.name, "join")
    try:
        result = stage.run(view, place, _results_view(results, stage, recipe), watch)
    finally:
        watch.end()
    seconds = round(time.perf_counter() - start, 3)
    write_json(
        place / DONE,
        {
            "fingerprint": mark,
            "seconds": seconds,
            "seconds_before": round(start - uncounted.since, 3),
            "peak_memory_bytes": peak_memory(),
            "result": result,
        },
    )
    uncounted.since = start + seconds
    return result


def _is_done(stage: Stage, place: Path, mark: str, watch: Watch) -> bool:
    """Whether it was done from the same inputs, and its output is still what it was."""
    if not (place / DONE).exists():
        return False
    saved = read_json(place / DONE)
    if saved.get("fingerprint") != mark:
        return False
    fault = stage.intact(place, saved["result"]) if stage.intact else None
    if fault:
        watch.note(f"{stage.name}: {fault}; what is missing is made again")
        (place / DONE).unlink()
    return fault is None


def _take_over(stage: Stage, place: Path, mark: str, beside: Sequence[Path]) -> str | None:
    """Take from another run what it made from the same inputs.  Returns: the other run's name, if all is done by that."""
    for other in (run / stage.name for run in beside):
        if stage.content_keyed:
            if stage.pool is not None and other.is_dir():
                place.mkdir(parents=True, exist_ok=True)
                stage.pool(other, place)
            continue
        if not stage.shared or not (other / DONE).exists():
            continue
        saved = read_json(other / DONE)
        if saved.get("fingerprint") != mark or (stage.intact and stage.intact(other, saved["result"])):
            continue
        part = place.with_name(f".{place.name}.{mark[:8]}.part")
        shutil.rmtree(part, ignore_errors=True)
        shutil.copytree(other, part, copy_function=link_or_copy, ignore=_not_taken)
        saved["seconds_before"] = 0.0  # the other run's start-up is none of this one's
        write_json(part / DONE, {**saved, "taken_from": saved.get("taken_from", other.parent.name)})
        shutil.rmtree(place, ignore_errors=True)
        part.rename(place)
        return other.parent.name
    return None


_not_taken = shutil.ignore_patterns("checkpoints", "best", ".*.part", ".*.old")
"""What a finished stage needs no more."""


def _make_room(stage: Stage, place: Path, mark: str, watch: Watch) -> None:
    """Shelve what was made from other inputs, and take back what was made from these."""
    if not (place / BEGUN).exists() or read_json(place / BEGUN)["fingerprint"] == mark:
        return
    if stage.content_keyed:
        (place / BEGUN).unlink()
        return
    shelf = place.parent / SHELF
    shelf.mkdir(exist_ok=True)
    old = shelf / f"{stage.name}-{read_json(place / BEGUN)['fingerprint'][:12]}"
    shutil.rmtree(old, ignore_errors=True)
    place.rename(old)
    again = shelf / f"{stage.name}-{mark[:12]}"
    if again.exists():
        again.rename(place)
    kept = sorted(shelf.glob(f"{stage.name}-*"), key=lambda path: path.stat().st_mtime)
    for path in kept[:-ON_THE_SHELF]:
        shutil.rmtree(path)
    if not again.exists() and not (place / DONE).exists():
        watch.note(
            f"{stage.name}: its inputs changed, so it runs anew (the old one is in {SHELF}/{old.name})"
        )


def _field(recipe: Recipe, path: str) -> Any:
    value: Any = recipe
    for step in path.split("."):
        value = getattr(value, step)
    return value


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    return [_plain(item) for item in value] if isinstance(value, list) else value


def _view(recipe: Recipe, stage: Stage) -> SimpleNamespace:
    """The recipe as a stage sees it: a field that was not declared is an AttributeError."""
    view = SimpleNamespace()
    for path in (*stage.reads, *stage.reads_if_set):
        place, steps = view, path.split(".")
        for step in steps[:-1]:
            if not hasattr(place, step):
                setattr(place, step, SimpleNamespace())
            place = getattr(place, step)
        setattr(place, steps[-1], _field(recipe, path))
    return view


def _empty(folder: Path, stages: Sequence[str]) -> None:
    """Remove what a run makes, and nothing else that may lie there."""
    for name in (*stages, SHELF, "student", "written", "said"):
        if (folder / name).is_dir() and not (folder / name).is_symlink():
            shutil.rmtree(folder / name)
    for name in ("recipe.json", "machine.json", "results.json", "report.html"):
        (folder / name).unlink(missing_ok=True)


def stage_times(folder: Path, stages: Sequence[Stage]) -> dict[str, dict[str, Any]]:
    """Stage -> {seconds, seconds_before: of the same command, outside stages, peak_memory_bytes} of those that are done."""
    times = {}
    for stage in stages:
        if (folder / stage.name / DONE).exists():
            saved = read_json(folder / stage.name / DONE)
            names = ("seconds", "seconds_before", "peak_memory_bytes")
            times[stage.name] = {name: saved.get(name) for name in names}
    return times


def reset_peak() -> None:
    """Begin to measure peak memory anew, where the system lets one (Linux)."""
    try:
        with open("/proc/self/clear_refs", "w", encoding="utf-8") as handle:
            handle.write("5")
    except OSError:
        return  # then the peak is the process's, not the stage's


def peak_memory() -> int | None:
    """Peak resident bytes of this process since `reset_peak`; None where the system does not tell."""
    try:
        with open("/proc/self/status", encoding="utf-8") as handle:
            for line in handle:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        return None
    return None

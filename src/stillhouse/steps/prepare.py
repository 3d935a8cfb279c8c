"""Sources -> verified files -> rows -> examples."""

from pathlib import Path
from typing import Any

from ..data.augment import augmented, neighbours
from ..data.encode import Example, write_examples
from ..data.formats import Row
from ..data.perturb import SWAPPED, perturbed, swapped
from ..data.split import Prepared
from ..data.split import prepare as split_rows
from ..errors import DataError, RecipeError
from ..files import hash_json, read_json, write_json, write_jsonl
from ..models.load import as_folder, load_config, load_tokenizer, same_tokenizer
from ..models.machine import bfloat16_pays
from ..progress import Watch
from ..recipe import DataSet
from ..registry import pick
from ..sources import cache_dir, resolve
from ..tasks import TASKS, Task, make_task
from ..tasks.classification import label_order

TRAINED_BY = ("train", "validation")
"""Sets that settings or weights are chosen on, and that nothing is reported on."""
EXAMPLE_CHARACTERS = 1500
"""Of one rendered row, shown so that a person sees what the models will read."""


def files_stamp(recipe: Any) -> list[list[Any]]:
    """Size and time of every local file that the recipe names; if they change, so may the data."""
    named = [recipe.teacher.model, recipe.student.model, *(one.source for one in _data_sets(recipe).values())]
    stamps = []
    for name in named:
        if name and Path(name).exists():
            files = (
                [Path(name)]
                if Path(name).is_file()
                else sorted(p for p in Path(name).rglob("*") if p.is_file())
            )
            stamps.append([name, [[path.stat().st_size, path.stat().st_mtime_ns] for path in files]])
    return stamps


def fetch_models(recipe: Any, place: Path, watch: Watch) -> dict[str, Any]:
    """Teacher (and student, if it is a model of its own) as local folders; refuses two different tokenizers."""
    fetched: dict[str, Any] = {"student": None}
    for role in ("teacher", "student"):
        wanted = getattr(recipe, role)
        if wanted.model is None:
            continue
        found = resolve(
            wanted.model, sha256=wanted.sha256, revision=wanted.revision, kind="model", progress=watch.note
        )
        auto_class = _auto_class(recipe.task)
        folder = as_folder(found.path, cache_dir(), auto_class, watch.note)
        fetched[role] = {
            "folder": str(folder),
            "identity": found.identity,
            "licence": found.licence,
            "name": _name(wanted.model, found.path),
        }
    if fetched["student"]:
        mine, theirs = (load_tokenizer(Path(fetched[role]["folder"])) for role in ("student", "teacher"))
        if why := same_tokenizer(mine, theirs):
            raise RecipeError(
                f"student.model: its tokenizer is not the teacher's ({why}); soft targets need the same one. "
                "Make the student from the teacher, or choose one of its family."
            )
    return {**fetched, "bfloat16": _decided(place)}


def read_rows(recipe: Any, watch: Watch) -> tuple[Prepared, dict[str, str | None]]:
    """Read, deduplicate and split every data set.  Returns: the rows, and each set's licence."""
    paths, licences = {}, {}
    for name, one in _data_sets(recipe).items():
        found = resolve(
            one.source, sha256=one.sha256, revision=one.revision, kind="data", progress=watch.note
        )
        paths[name], licences[name] = found.path, found.licence
    rows = split_rows(
        recipe.data, recipe.evaluate.also, recipe.task, recipe.seed, paths, recipe.evaluate.groups
    )
    for name, counts in rows.counts.items():
        left_out = ", ".join(f"{number:,} {reason}" for reason, number in counts["dropped"].items())
        watch.note(
            f"  {name}: {counts['format']} rows, {counts['kept']:,} kept"
            + (f"; left out: {left_out}" if left_out else "")
        )
    return rows, licences


def encode_rows(
    recipe: Any, rows: Prepared, models: dict[str, Any], place: Path, watch: Watch
) -> dict[str, Any]:
    """Rows -> examples on disk.  Returns: what the later stages must know of them."""
    teacher = Path(models["teacher"]["folder"])
    labels = _labels(recipe, rows, teacher)
    if labels and models["student"]:
        _check_student(Path(models["student"]["folder"]), labels)
    task = make_task(recipe.task, load_tokenizer(teacher), recipe.data.max_length, labels)
    train = rows.train + rows.extra + rows.unlabelled
    sets = {"train": train, "eval": rows.eval, **_variants(recipe, rows.eval, watch), **rows.also}
    dropped, sizes = list(rows.dropped), {}
    shown = ""
    for name, some in sets.items():
        examples, refused = task.encode([dict(row) for row in some])
        if name == "train" and recipe.data.augment is not None:
            made = _augmented(recipe, task, teacher, examples)
            watch.note(f"  augment: {len(made):,} rows made of {len(rows.train):,}")
            examples += made
        dropped += [{**row, "set": name} for row in refused]
        if name != "train" and recipe.evaluate.rows:
            examples = examples[: recipe.evaluate.rows]
        if not examples:
            why = ", ".join(sorted({row["reason"] for row in refused})) or "too short to learn from"
            raise DataError(
                f"{name}: no row is left to use of {len(some):,} ({why}); raise data.max_length, or give it other rows."
            )
        shown = shown or _shown(examples[0], task)
        sizes[name] = write_examples(place / f"{name}.parquet", examples)
    write_jsonl(place / "dropped.jsonl", dropped)
    held = {name: [dict(row) for row in some] for name, some in sets.items() if name not in TRAINED_BY}
    for name, some in held.items():
        write_jsonl(place / f"{name}-rows.jsonl", some)
    return {
        "labels": labels,
        "sets": sizes,
        "evaluated": list(held),
        "held_out": hash_json([[_unplaced(row) for row in some] for some in held.values()]),
        "unlabelled": len(rows.unlabelled),
        "counts": rows.counts,
        "example": shown,
    }


def _variants(recipe: Any, rows: list[Row], watch: Watch) -> dict[str, list[Row]]:
    """The held-out rows changed in the ways that the recipe asks for; see `data.perturb`."""
    if recipe.evaluate.rows and recipe.task == "classification":
        rows = rows[: recipe.evaluate.rows]  # the same ones that are measured
    found = perturbed(rows, recipe.evaluate.perturb, recipe.seed)
    if recipe.evaluate.swap:
        some = swapped(rows, recipe.evaluate.swap)
        if not some:
            raise DataError(
                "evaluate.swap: none of its terms is in the held-out rows; name terms that they hold."
            )
        watch.note(f"  swap: {len(some):,} of {len(rows):,} held-out rows hold one of the terms")
        found[SWAPPED] = some
    return found


def _unplaced(row: dict[str, Any]) -> dict[str, Any]:
    """What evaluation knows of a row beyond its tokens; the line it stands on changes nothing."""
    return {key: row[key] for key in ("id", "group", "groups") if key in row}


def _augmented(recipe: Any, task: Task, teacher: Path, examples: list[Example]) -> list[Example]:
    """New rows of the labelled ones; words are neighbours where the teacher's own embeddings say so."""
    embeddings = task.load(teacher, head_seed=0).get_input_embeddings().weight.detach()
    labelled = [example for example in examples if example.labels[0] >= 0]
    near = neighbours(embeddings, examples, task.tokenizer)
    return list(augmented(labelled, recipe.data.augment, near, task.tokenizer, recipe.seed))


def fault(place: Path, result: dict[str, Any]) -> str | None:
    """What of the prepared files, or of the fetched models, is gone."""
    models = [Path(result[role]["folder"]) for role in ("teacher", "student") if result[role]]
    wanted = [*models, *(place / f"{name}.parquet" for name in result["sets"])]
    return next((f"{path} is gone" for path in wanted if not path.exists()), None)


def task_of(recipe: Any, facts: dict[str, Any]) -> Task:
    """The task with the teacher's tokenizer and the data's labels."""
    return make_task(
        recipe.task, load_tokenizer(Path(facts["teacher"]["folder"])), recipe.data.max_length, facts["labels"]
    )


def located(folder: str, place: Path) -> Path:
    """A folder that a result names: absolute, or from the run folder."""
    return place.parent / folder


def _data_sets(recipe: Any) -> dict[str, DataSet]:
    named = {name: getattr(recipe.data, name) for name in ("train", "eval", "extra", "unlabelled")}
    return {name: one for name, one in named.items() if one is not None} | {
        also.name: also for also in recipe.evaluate.also
    }


def _labels(recipe: Any, rows: Prepared, teacher: Path) -> list[str]:
    if recipe.task != "classification":
        return []
    labels = sorted({row["label"] for row in rows.train if row.get("label") is not None})
    if len(labels) < 2:
        raise DataError(
            f"data.train: has only the label {', '.join(labels)!r}; a classifier needs at least two."
        )
    return labels if recipe.teacher.finetune else label_order(teacher, labels)


def _check_student(folder: Path, labels: list[str]) -> None:
    """Refuse a student that was trained on these labels in another order: it would be measured upside down."""
    named = load_config(folder).id2label or {}
    names = [str(named[number]) for number in sorted(named, key=int)]
    if sorted(names) == sorted(labels) and names != labels:
        raise RecipeError(
            f"student.model: its labels are in the order {', '.join(names)}, and the teacher's {', '.join(labels)}; "
            "swap them in the student's config.json and its head, or start from a student without a head."
        )


def _shown(example: Example, task: Task) -> str:
    text = str(task.tokenizer.decode(example.input_ids))
    label = f"  →  {task.labels[example.labels[0]]}" if task.labels and example.labels[0] >= 0 else ""
    return (text if len(text) <= EXAMPLE_CHARACTERS else text[:EXAMPLE_CHARACTERS] + " …") + label


def _auto_class(task: str) -> str:
    return str(pick(TASKS, task, "task").auto_class)


def _name(source: str, path: Path) -> str:
    """What people call a model: its repository, its package, its file."""
    if source.startswith("pypi:") and path.is_dir():
        return source.removeprefix("pypi:").partition("==")[0]
    if Path(source).exists() or source.startswith("pypi:"):
        return path.stem if path.is_file() else path.name
    return source.removeprefix("hub:")


def _decided(place: Path) -> bool:
    """Whether bfloat16 is used where the recipe says auto: measured once a run, for a busy machine may answer otherwise."""
    kept = place.parent / "machine.json"
    if not kept.exists():
        write_json(kept, {"bfloat16": bfloat16_pays()})
    return bool(read_json(kept)["bfloat16"])

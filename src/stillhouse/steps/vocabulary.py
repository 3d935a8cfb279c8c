"""`student.vocabulary`: teacher and student read and write fewer tokens, the same ones.

The teacher is trimmed once, before anything is encoded, and every later stage knows only the trimmed one: so the soft
targets are its distribution given that a kept token comes, both sides read the same tokens, and held-out text is cut by the
tokenizer that the student is handed over with.
"""

from pathlib import Path
from typing import Any

from ..data.encode import Example
from ..data.split import Prepared
from ..errors import RecipeError
from ..files import atomic_folder, hash_json, manifest_fault
from ..models.load import load_config, load_model, load_tokenizer
from ..models.shrink.vocabulary import kept_tokens, trim_model, trim_tokenizer, used_tokens
from ..progress import Watch
from ..registry import pick
from ..sources import cache_dir
from ..tasks import TASKS, Task, make_task

ROWS_CHECKED = 64
"""Training rows that are encoded with both tokenizers, to see that they come out alike."""


def trim_teacher(recipe: Any, rows: Prepared, models: dict[str, Any], watch: Watch) -> dict[str, Any]:
    """`models` with a teacher that has only the tokens that the training rows need, or so many of the most frequent."""
    wanted = recipe.student.vocabulary
    if wanted is None:
        return models
    teacher = models["teacher"]
    tokenizer = load_tokenizer(Path(teacher["folder"]))
    have = max(tokenizer.get_vocab().values()) + 1
    texts = [dict(row) for row in rows.train + rows.extra + rows.unlabelled]
    labels = sorted({str(row["label"]) for row in texts if row.get("label") is not None})
    task = make_task(recipe.task, tokenizer, recipe.data.max_length, labels)
    used = used_tokens(example.input_ids for example in task.encode(texts)[0])
    kept = kept_tokens(tokenizer, used, None if wanted == "data" else wanted)
    folder = cache_dir() / "trimmed" / f"{hash_json([teacher['identity'], kept])[:24]}"
    if not folder.exists() or manifest_fault(folder) is not None:
        _write(Path(teacher["folder"]), folder, task, kept)
    if wanted == "data":
        _check(task, folder, texts[:ROWS_CHECKED], kept)
    watch.note(f"  vocabulary: {len(kept):,} tokens of {have:,} stay")
    trimmed = {
        **teacher,
        "folder": str(folder),
        "identity": f"{teacher['identity']}+tokens:{hash_json(kept)[:12]}",
        "vocabulary": {"kept": len(kept), "of": have},
    }
    return {**models, "teacher": trimmed}


def _write(teacher: Path, folder: Path, task: Task, kept: list[int]) -> None:
    """The trimmed teacher, of the class that its file names: a head that is not there yet is not made up here."""
    named = load_config(teacher).architectures or [pick(TASKS, task.name, "task").auto_class]
    model = trim_model(load_model(teacher, named[0]), kept)
    with atomic_folder(folder) as part:
        model.save_pretrained(part)
        task.tokenizer.save_pretrained(part)
        trim_tokenizer(part, kept)


def _check(task: Task, folder: Path, rows: list[dict[str, Any]], kept: list[int]) -> None:
    """Raises: RecipeError if the trimmed tokenizer cuts training rows in another way."""
    trimmed = make_task(task.name, load_tokenizer(folder), getattr(task, "max_length", 256), task.labels)
    mine, theirs = _ids(trimmed.encode(rows)[0]), _ids(task.encode(rows)[0])
    if [[kept[token] for token in ids] for ids in mine] != theirs:
        raise RecipeError(
            f"student.vocabulary: {type(task.tokenizer).__name__} cuts the training rows differently once it is trimmed; "
            "leave student.vocabulary out, and report this with the tokenizer's tokenizer.json."
        )


def _ids(examples: list[Example]) -> list[list[int]]:
    return [example.input_ids for example in examples]

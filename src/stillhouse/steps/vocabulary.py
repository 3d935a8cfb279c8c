"""`student.vocabulary`: the student reads and writes fewer tokens.

The teacher is trimmed once, before anything is encoded, and the student is made from the trimmed one.  A language model's
teacher is known to every later stage as trimmed: so the soft targets are its distribution given that a kept token comes, and
both sides read the same tokens.  A classifier's says the same classes whatever it reads, so it keeps its own tokens and reads
each row in those (`tasks.bilingual`), as a teacher with another tokenizer does.  Held-out text is cut by the tokenizer that the
student is handed over with.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..data.split import Prepared
from ..errors import RecipeError
from ..files import atomic_folder, hash_json, manifest_fault, read_json, write_json
from ..models.load import load_config, load_model, load_tokenizer
from ..models.shrink.vocabulary import (
    kept_tokens,
    named_tokens,
    trim_model,
    trim_tokenizer,
    used_tokens,
)
from ..progress import Watch
from ..registry import pick
from ..sources import cache_dir
from ..tasks import TASKS, Task, make_task

ROWS_CHECKED = 64
"""Training rows that are encoded with both tokenizers, to see that they come out alike."""
KEPT = "kept_tokens.json"
"""Beside a trimmed teacher: the old ids of its tokens."""


def trim_teacher(recipe: Any, rows: Prepared, models: dict[str, Any], watch: Watch) -> dict[str, Any]:
    """`models` with a teacher that has only the tokens that the training rows need, or so many of the most frequent; beside
    the whole one, as `tongues`, where that goes on reading its own."""
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
    config = load_config(Path(teacher["folder"]))
    kept = kept_tokens(tokenizer, used, None if wanted == "data" else wanted, named_tokens(config))
    folder = cache_dir() / "trimmed" / f"{hash_json([teacher['identity'], kept])[:24]}"
    if not (folder / KEPT).exists() or manifest_fault(folder) is not None:
        auto_class = pick(TASKS, task.name, "task").auto_class
        named = [] if recipe.task == "seq2seq" else config.architectures  # BART's base says it has no head
        model = load_model(Path(teacher["folder"]), (named or [auto_class])[0])
        write_trimmed(model, task.tokenizer, kept, folder)
    if wanted == "data":
        _check(task, folder, texts[:ROWS_CHECKED], kept)
    watch.note(f"  vocabulary: {len(kept):,} tokens of {have:,} stay")
    trimmed = {
        **teacher,
        "folder": str(folder),
        "identity": f"{teacher['identity']}+tokens:{hash_json(kept)[:12]}",
        "vocabulary": {"kept": len(kept), "of": have},
    }
    if recipe.task == "classification":
        return {**models, "tongues": {"student": trimmed}}
    return {**models, "teacher": trimmed}


def write_trimmed(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, kept: list[int], folder: Path
) -> None:
    """A model, which is changed, and its tokenizer with the tokens `kept` alone."""
    trim_model(model, kept)
    with atomic_folder(folder) as part:
        model.save_pretrained(part)
        tokenizer.save_pretrained(part)
        trim_tokenizer(part, kept)
        write_json(part / KEPT, kept)


@contextmanager
def lender(teacher: Path, facts: dict[str, Any], task: Task, place: Path) -> Iterator[Path]:
    """The folder whose weights the student takes: the teacher's, or, where that goes on reading its own tokens, a trimmed copy
    of it that is gone afterwards."""
    if not facts["tongues"] or facts["student"]:
        yield teacher
        return
    base = Path(facts["tongues"]["student"]["folder"])
    if teacher == Path(facts["teacher"]["folder"]):
        yield base
        return
    folder = place / "trimmed"
    write_trimmed(task.load(teacher), load_tokenizer(teacher), read_json(base / KEPT), folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _check(task: Task, folder: Path, rows: list[dict[str, Any]], kept: list[int]) -> None:
    """Raises: RecipeError if the trimmed tokenizer cuts training rows in another way."""
    trimmed = make_task(task.name, load_tokenizer(folder), getattr(task, "max_length", 256), task.labels)
    mine, theirs = trimmed.encode(rows)[0], task.encode(rows)[0]
    if [([kept[token] for token in one.input_ids], one.starts) for one in mine] != [
        (one.input_ids, one.starts) for one in theirs
    ]:
        raise RecipeError(
            f"student.vocabulary: {type(task.tokenizer).__name__} cuts the training rows differently once it is trimmed; "
            "leave student.vocabulary out, and report this with the tokenizer's tokenizer.json."
        )

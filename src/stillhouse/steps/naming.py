"""The teacher stage of a language model that labels by names: a folder that stands in for a classifier."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..data.encode import Example, read_examples
from ..data.formats import Row
from ..errors import DataError
from ..files import atomic_folder, hash_json, read_jsonl, write_jsonl
from ..seeds import draw_seed
from ..tasks import Task
from ..tasks.zero_shot import write_zero_shot

TEXTS = "texts.jsonl"
"""Of the prepared rows: {key, text, pair?}, for a teacher that reads them in its own tokens."""


def keep_texts(path: Path, pairs: Sequence[tuple[Row, Example]]) -> None:
    """Write the text of each example."""
    found: dict[str, dict[str, Any]] = {}
    for row, example in pairs:
        values: dict[str, Any] = dict(row)
        found[example.key] = {name: values[name] for name in ("text", "pair") if name in values}
    write_jsonl(path, [{"key": key, **found[key]} for key in sorted(found)])


def make_namer(teacher: Any, seed: int, task: Task, facts: dict[str, Any], place: Path) -> dict[str, Any]:
    """Returns: the stage's result: the folder, its identity, and no layers that it could lend."""
    settings = teacher.zero_shot
    words = {label: teacher.label_words.get(label, label) for label in task.labels}
    model = facts["zero_shot"]
    prepared = place.parent / "prepare"
    asked = {
        "labels": list(words.values()),
        "prompt": model["prompt"],
        "examples": _shown(settings.examples, seed, task, words, prepared),
        "calibrated": settings.calibrated,
    }
    with atomic_folder(place / "zero_shot") as part:
        write_zero_shot(part, Path(model["folder"]), Path("../../prepare") / TEXTS, **asked)
        task.tokenizer.save_pretrained(part)
    return {
        "folder": f"{place.name}/zero_shot",
        "lead": {"folder": None},
        "identity": f"zero_shot:{hash_json([model['identity'], asked])}",
    }


def _shown(
    count: int, seed: int, task: Task, words: Mapping[str, str], prepared: Path
) -> list[dict[str, Any]]:
    """`count` labelled training rows, by turns one of each label, in an order that follows from the seed."""
    if count == 0:
        return []
    by_label: dict[str, list[Example]] = {label: [] for label in words}
    for example in read_examples(prepared / "train.parquet"):
        if example.labels[0] >= 0:
            by_label[task.labels[example.labels[0]]].append(example)
    there = sum(map(len, by_label.values()))
    if there < count:
        raise DataError(
            f"teacher.zero_shot.examples: {count} are asked for, and data.train has {there} labelled rows; lower it."
        )
    for some in by_label.values():
        some.sort(key=lambda example: draw_seed(seed, "zero_shot", example.key))
    turns = max(map(len, by_label.values()))
    chosen = [
        (label, some[turn]) for turn in range(turns) for label, some in by_label.items() if turn < len(some)
    ]
    texts = {row["key"]: row for row in read_jsonl(prepared / TEXTS)}
    return [
        {
            **{name: value for name, value in texts[example.key].items() if name != "key"},
            "label": words[label],
        }
        for label, example in chosen[:count]
    ]

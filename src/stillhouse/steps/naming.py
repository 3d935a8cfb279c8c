"""The teacher stage of a language model that labels by names: a folder that stands in for a classifier."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ..data.encode import Example, read_examples
from ..data.formats import Row
from ..errors import DataError
from ..files import atomic_folder, hash_json, read_jsonl, write_jsonl
from ..models.load import load_model, load_tokenizer
from ..models.machine import device
from ..progress import Watch
from ..recipe import ZeroShot as ZeroShotSettings
from ..seeds import draw_seed
from ..tasks import Task
from ..tasks.zero_shot import Text, ZeroShot, information, priors, text_of, without_content, write_zero_shot

TEXTS = "texts.jsonl"
"""Of the prepared rows: {key, text, pair?}, for a teacher that reads them in its own tokens."""
ROWS = 128
"""Texts by which a prompt is chosen and a prior taken: the mean probability of a label is good to 0.03 or so."""
FORMS = {"chat": "a chat turn", "plain": "plain text"}


def keep_texts(path: Path, pairs: Sequence[tuple[Row, Example]]) -> None:
    """Write the text of each example."""
    found: dict[str, dict[str, Any]] = {}
    for row, example in pairs:
        values: dict[str, Any] = dict(row)
        found[example.key] = {name: values[name] for name in ("text", "pair") if name in values}
    write_jsonl(path, [{"key": key, **found[key]} for key in sorted(found)])


def make_namer(
    recipe: Any, task: Task, facts: dict[str, Any], place: Path, watch: Watch | None
) -> dict[str, Any]:
    """Args: watch: who sees the choice of a prompt; None if none is to be made, as where only the time of asking matters.
    Returns: the stage's result: the folder, its identity, how it asks, and no layers that it could lend."""
    settings, model, prepared = recipe.teacher.zero_shot, facts["zero_shot"], place.parent / "prepare"
    words = {label: recipe.teacher.label_words.get(label, label) for label in task.labels}
    named = {
        "labels": list(words.values()),
        "examples": _shown(settings.examples, recipe.seed, task, words, prepared),
    }
    ways, texts = ways_of(settings, facts), _some_texts(prepared, recipe.seed)
    chosen = {"way": ways[0]}
    if watch is not None and texts and (len(ways) > 1 or settings.calibrate != "none"):
        chosen = _chosen(settings, facts, named, ways, texts, watch)
    asked = {**named, **chosen["way"], "prior": chosen.get("prior")}
    with atomic_folder(place / "zero_shot") as part:
        write_zero_shot(part, Path(model["folder"]), Path("../../prepare") / TEXTS, **asked)
        task.tokenizer.save_pretrained(part)
    return {
        "folder": f"{place.name}/zero_shot",
        "lead": {"folder": None},
        "identity": f"zero_shot:{hash_json([model['identity'], asked])}",
        "asked": chosen,
    }


def ways_of(settings: ZeroShotSettings, facts: dict[str, Any]) -> list[dict[str, Any]]:
    """The prompts and forms that could be asked with; a model without a chat template reads plain text only."""
    tokenizer = load_tokenizer(Path(facts["zero_shot"]["folder"]))
    forms = [settings.form] if settings.form else ["chat", "plain"] if tokenizer.chat_template else ["plain"]
    return [
        {"prompt": prompt, "form": form}
        for prompt in facts["zero_shot"]["prompts"] or [None]
        for form in forms
    ]


def _chosen(
    settings: ZeroShotSettings,
    facts: dict[str, Any],
    named: dict[str, Any],
    ways: list[dict[str, Any]],
    texts: list[Text],
    watch: Watch,
) -> dict[str, Any]:
    """The way of asking that tells the texts apart the most, its prior, and how far each tells them apart; no label is read."""
    folder = Path(facts["zero_shot"]["folder"])
    dtype = torch.bfloat16 if facts["bfloat16"] else torch.float32
    model, tokenizer = load_model(folder, "AutoModelForCausalLM", dtype).to(device()), load_tokenizer(folder)
    examples = [(text_of(row), row["label"]) for row in named["examples"]]
    tried: list[dict[str, Any]] = []
    for number, way in enumerate(ways):
        watch.step("asking in several ways", number, len(ways))
        asked = ZeroShot(model, tokenizer, named["labels"], examples=examples, **way)
        log_p = asked.log_probs(texts)
        tried.append({"way": way, "nats": information(log_p), "asked": asked, "log_p": log_p})
    watch.end()
    best = max(tried, key=lambda one: one["nats"])
    found: dict[str, Any] = {
        "way": best["way"],
        "tried": [{**one["way"], "nats": one["nats"]} for one in tried],
    }
    found["note"] = f"The teacher was asked as {_told(best)}"
    if others := [_told(one) for one in tried if one is not best]:
        found["note"] += f"; {' and '.join(others)} told them apart less"
    if settings.calibrate == "texts":
        found["prior"] = priors(texts, best["log_p"])
        found["note"] += f"; its labels are evened out by {len(texts)} training texts"
    elif settings.calibrate == "content_free":
        free = without_content(texts)
        found["prior"] = priors(free, best["asked"].log_probs(free))
        found["note"] += "; its labels are evened out by texts without content"
    watch.note(f"  {found['note']}.")
    return found


def _told(one: dict[str, Any]) -> str:
    first = (one["way"]["prompt"] or "Stillhouse's own prompt").splitlines()[0]
    return (
        f"{FORMS[one['way']['form']]}, {first[:40]!r} ({one['nats']:.3f} nats of information about the texts)"
    )


def _some_texts(prepared: Path, seed: int) -> list[Text]:
    """`ROWS` training texts at most, drawn by the seed."""
    examples = read_examples(prepared / "train.parquet")
    examples.sort(key=lambda example: draw_seed(seed, "ways", example.key))
    keys = {example.key for example in examples[:ROWS]}
    return [text_of(row) for row in read_jsonl(prepared / TEXTS) if row["key"] in keys]


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

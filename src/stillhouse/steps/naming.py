"""The teacher stage of a language model that labels by names: a folder that stands in for a classifier."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ..data.encode import Example, read_examples
from ..data.formats import Row
from ..data.templates import refuse_single
from ..errors import DataError, RecipeError
from ..files import atomic_folder, hash_json, read_jsonl, write_jsonl
from ..models.load import load_model, load_tokenizer
from ..models.machine import device
from ..progress import Watch
from ..recipe import ZeroShot as ZeroShotSettings
from ..seeds import draw_seed
from ..tasks import Task
from ..tasks.zero_shot import (
    Text,
    ZeroShot,
    information,
    kind_of,
    priors,
    text_of,
    without_content,
    write_zero_shot,
)
from .fetching import dtype_name, lenders

OWN = "Stillhouse's own prompt"
TEXTS = "texts.jsonl"
"""Of the prepared rows: {key, text, pair?}, for a teacher that reads them in its own tokens."""
ROWS = 128
"""Texts by which a prompt is chosen and a prior taken: the mean probability of a label is good to 0.03 or so."""
FEW = 16
"""Fewer texts of a kind say more of themselves than of a name: the prior of one text alone is what is said to it."""
KINDS = {"text": "single texts", "pair": "pairs"}
FORMS = {"chat": "a chat turn", "plain": "plain text"}


def keep_texts(
    path: Path, pairs: Sequence[tuple[Row, Example]], prompts: Sequence[Mapping[str, str]] = ()
) -> None:
    """Write the text of each example.

    Args: prompts: {name, text} of those that the user has.
    Raises: RecipeError if there are pairs, and a prompt shows one text.
    """
    found: dict[str, dict[str, Any]] = {}
    for row, example in pairs:
        values: dict[str, Any] = dict(row)
        found[example.key] = {name: values[name] for name in ("text", "pair") if name in values}
    if any("pair" in one for one in found.values()):
        refuse_single((prompt["name"], prompt["text"]) for prompt in prompts)
    write_jsonl(path, [{"key": key, **found[key]} for key in sorted(found)])


def make_namer(
    recipe: Any, task: Task, facts: dict[str, Any], place: Path, watch: Watch | None
) -> dict[str, Any]:
    """Args: watch: see `write_namer`.
    Returns: the stage's result: the folder, its identity, how it asks, and no layers that it could lend."""
    with atomic_folder(place / "zero_shot") as part:
        made = write_namer(
            recipe.teacher.zero_shot, facts["zero_shot"], recipe, task, facts, place, part, watch
        )
        task.tokenizer.save_pretrained(part)
    return {"folder": f"{place.name}/zero_shot", "lead": {"folder": None}, **made}


def write_namer(
    settings: ZeroShotSettings,
    model: dict[str, Any],
    recipe: Any,
    task: Task,
    facts: dict[str, Any],
    place: Path,
    folder: Path,
    watch: Watch | None,
) -> dict[str, Any]:
    """Make `folder`, below the stage's `place`, stand in for a classifier.

    Args: model: as `fetching` found it; watch: who sees the choice of a prompt, None if none is to be made, as where only the time
        of asking matters.
    Returns: {"identity", "asked": how it asks}.
    """
    prepared = place.parent / "prepare"
    words = {label: settings.label_words.get(label, label) for label in task.labels}
    named = {
        "labels": list(words.values()),
        "examples": _shown(settings.examples, recipe.seed, task, words, prepared),
    }
    ways = ways_of(settings, model)
    chosen: dict[str, Any] = {"way": ways[0]["way"]}
    if watch is not None and is_chosen(settings, ways):
        texts, kinds = _some_texts(prepared, recipe.seed)
        dtype = getattr(torch, dtype_name(recipe.teacher.asked_dtype, facts))
        chosen = _chosen(settings, Path(model["folder"]), dtype, named, ways, texts, kinds, watch)
    asked = {**named, **chosen["way"], "prior": chosen.get("prior")}
    up = Path(*[".."] * len(folder.relative_to(place.parent).parts))
    write_zero_shot(folder, Path(model["folder"]), up / "prepare" / TEXTS, **asked)
    return {"identity": f"zero_shot:{hash_json([model['identity'], asked])}", "asked": chosen}


def namers_of(facts: dict[str, Any]) -> list[dict[str, Any]]:
    """The language models that label by names, as `fetching` found them: the teacher, or members of the panel."""
    lone = [facts["zero_shot"]] if facts["zero_shot"] else []
    return [*lone, *(member for member in facts["panel"] or [] if "prompts" in member)]


def readers(recipe: Any, task: Task, facts: dict[str, Any], place: Path) -> list[tuple[Path, int]]:
    """(folder, how many of a panel take as long) of all teachers that read on this machine, for their time to be measured.

    Args: place: where stand-ins are written.
    """
    found = []
    panel = recipe.teacher.panel or []
    if recipe.teacher.lends and (not panel or lenders(panel, facts["panel"])):
        alike = (
            sum(member.lends for member in panel) or 1
        )  # one with another tokenizer is no slower, as a guess
        found.append((Path(facts["teacher"]["folder"]), alike))
    by_names = [one for one in recipe.teacher.asked.values() if isinstance(one, ZeroShotSettings)]
    for number, (settings, model) in enumerate(zip(by_names, namers_of(facts), strict=True)):
        folder = place / "namers" / str(number)
        folder.mkdir(parents=True, exist_ok=True)
        write_namer(settings, model, recipe, task, facts, place, folder, None)
        found.append((folder, 1))
    return found


def ways_of(settings: ZeroShotSettings, model: dict[str, Any]) -> list[dict[str, Any]]:
    """The prompts and forms that could be asked with, {name of the prompt, way: {prompt, form}}; a model without a chat
    template reads plain text only.  Raises: RecipeError if it is asked to chat."""
    chats = load_tokenizer(Path(model["folder"])).chat_template
    if settings.form == "chat" and not chats:
        raise RecipeError(f"teacher.zero_shot.form: {model['name']} has no chat template; use plain.")
    forms = [settings.form] if settings.form else ["chat", "plain"] if chats else ["plain"]
    return [
        {"name": prompt["name"], "way": {"prompt": prompt["text"], "form": form}}
        for prompt in model["prompts"] or [{"name": OWN, "text": None}]
        for form in forms
    ]


def is_chosen(settings: ZeroShotSettings, ways: list[dict[str, Any]]) -> bool:
    """Whether the model is asked about some texts before it labels all."""
    return len(ways) > 1 or settings.calibrate != "none"


def _chosen(
    settings: ZeroShotSettings,
    folder: Path,
    dtype: torch.dtype,
    named: dict[str, Any],
    ways: list[dict[str, Any]],
    texts: list[Text],
    kinds: set[str],
    watch: Watch,
) -> dict[str, Any]:
    """The way of asking that tells the texts apart the most, its prior, and how far each tells them apart; no label is read."""
    model, tokenizer = load_model(folder, "AutoModelForCausalLM", dtype).to(device()), load_tokenizer(folder)
    examples = [(text_of(row), row["label"]) for row in named["examples"]]
    tried: list[dict[str, Any]] = []
    for number, one in enumerate(ways):
        watch.step("asking in several ways", number, len(ways))
        asked = ZeroShot(model, tokenizer, named["labels"], examples=examples, **one["way"])
        log_p = asked.log_probs(texts)
        tried.append({**one, "nats": information(log_p), "asked": asked, "log_p": log_p})
    watch.end()
    best = max(tried, key=lambda one: one["nats"])
    found: dict[str, Any] = {
        "way": best["way"],
        "tried": [{"name": one["name"], **one["way"], "nats": one["nats"]} for one in tried],
    }
    found["note"] = f"The teacher was asked as {_told(best)}"
    if others := [_told(one) for one in tried if one is not best]:
        found["note"] += f"; {' and '.join(others)} told them apart no better"
    if settings.calibrate != "none":
        found["prior"], by = _evened(settings.calibrate, best, texts, kinds)
        found["note"] += f"; its labels are evened out by {by}"
    watch.note(f"  {found['note']}.")
    return found


def _evened(
    calibrate: str, best: dict[str, Any], texts: list[Text], kinds: set[str]
) -> tuple[dict[str, list[float]], str]:
    """(a prior for each of `kinds`, what it was taken from): the texts of a kind if they are not too `FEW`, or ones without content."""
    counts = Counter(map(kind_of, texts))
    enough = {kind for kind in kinds if calibrate == "texts" and counts[kind] >= FEW}
    rows = [number for number, text in enumerate(texts) if kind_of(text) in enough]
    few, by = sorted(kinds - enough, reverse=True), []
    free = without_content(few)
    prior = priors([texts[number] for number in rows], best["log_p"][rows])
    prior |= priors(free, best["asked"].log_probs(free) if free else best["log_p"][:0])
    if rows:
        by.append(f"{len(rows)} training texts")
    if few:
        names = " or ".join(KINDS[kind] for kind in few)
        why = (
            f", for fewer than {FEW} of the training rows looked at are {names}"
            if calibrate == "texts"
            else ""
        )
        by.append(f"texts without content{why}")
    return prior, " and ".join(by)


def _told(one: dict[str, Any]) -> str:
    return (
        f"{FORMS[one['way']['form']]}, {one['name']} ({one['nats']:.3f} nats of information about the texts)"
    )


def _some_texts(prepared: Path, seed: int) -> tuple[list[Text], set[str]]:
    """(`ROWS` training texts at most, drawn by the seed; the kinds of all texts, those held out too)."""
    examples = read_examples(prepared / "train.parquet")
    examples.sort(key=lambda example: draw_seed(seed, "ways", example.key))
    keys = {example.key for example in examples[:ROWS]}
    texts = [(row["key"], text_of(row)) for row in read_jsonl(prepared / TEXTS)]
    return [text for key, text in texts if key in keys], {kind_of(text) for _, text in texts}


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

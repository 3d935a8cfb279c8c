"""The label stage of a teacher behind an API: rows -> questions -> answers -> what the student learns from."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from safetensors.numpy import load_file, save_file

from ..asking import Answer
from ..asking.messages import spelled
from ..data.encode import Example, read_examples, write_examples
from ..data.filters import sift
from ..data.formats import Row
from ..errors import DataError, RecipeError
from ..files import atomic, hash_json, read_jsonl, write_jsonl
from ..held_out import BY_TEACHER
from ..progress import Watch
from ..recipe import Api
from ..recipe.api import SAYS_NO_CONFIDENCE
from ..recipe.filter import Filter
from ..tasks import Task
from ..teachers import TopK
from ..teachers.cache import Entry, SoftTargetCache, folder_name
from ..teachers.codec import encoded
from ..teachers.said import (
    CONTROL_TOKEN,
    Spell,
    answered_row,
    confidence_in,
    has_control_tokens,
    label_shares,
    told_shares,
    without_thoughts,
    words_of,
)
from .aside import VALIDATION, keep_aside, prepared
from .confidence import UNSURE, least_confidence
from .hearing import Heard, Rows, asked_rows, hear, once, statuses
from .prepare import DOCUMENTS, WRITTEN
from .surprise import keep_heard, stands_alone
from .told import keep_told, listen, spelling, tells, turns_of


def label_by_asking(
    recipe: Any, place: Path, facts: dict[str, Any], task: Task, watch: Watch
) -> dict[str, Any]:
    """Ask about every row, held-out ones too, and write what the student learns from and is measured against."""
    look = partial(_look_at, recipe, task) if tells(recipe) else None
    cut = _cut_sources(place.parent / "prepare", task) if recipe.task == "seq2seq" else None
    if cut is not None:
        watch.note(f"  {cut}")
    heard = hear(recipe.teacher.api, "teacher.api", recipe, facts, place.parent, watch, look)
    learn = _labels if recipe.task == "classification" else _texts
    found = learn(recipe, place, facts, task, heard, watch)
    if cut is not None:
        said = found.get("told", {})
        found |= _noted([cut, *([said["note"]] if said else [])], said)
    return {"cache": None, "meta": None, **found, "said": statuses(heard)}


def _cut_sources(prepared: Path, task: Task) -> str | None:
    """How many sources the API reads further than the student, in a sentence without its full stop; None if none."""
    sources = [row["prompt"] for rows in asked_rows(prepared).values() for row in rows]
    long = sum(len(task.tokenizer(text, verbose=False)["input_ids"]) > task.max_length for text in sources)
    if not long:
        return None
    return (
        f"{long:,} of {len(sources):,} sources are longer than data.max_length ({task.max_length:,} tokens): the teacher reads them "
        "whole, and the student their beginnings"
    )


def _look_at(recipe: Any, task: Task, heard: list[Heard]) -> None:
    """Whether the tokens of the first answers can be used, before the others are paid for.  Raises: see `listen`."""
    taught = [_taught(one, task, recipe.teacher.api) for one in heard]
    usable = [row for row in taught if "reason" not in row]
    examples, _ = task.encode(usable)
    listen(task, examples, _by_row(heard), turns_of(usable))


def _by_row(heard: Iterable[Heard]) -> dict[str, Answer]:
    return {one.row["id"]: one.answer for one in heard if one.answer is not None}


# ── classification ──────────────────────────────────────────────────────────────────────────────────────────────────


def _labels(
    recipe: Any, place: Path, facts: dict[str, Any], task: Task, heard: dict[str, list[Heard]], watch: Watch
) -> dict[str, Any]:
    """Each row's probabilities, into the cache of soft targets and beside it for the held-out rows."""
    words = words_of(facts["labels"], recipe.teacher.api)
    shares, dropped, graded = shares_of(heard, words)
    prepared = place.parent / "prepare"
    train = [one for one in read_examples(prepared / "train.parquet") if ("train", one.row) in shares]
    if (least := least_confidence(recipe)) is not None:
        labels = {one.row: one.labels[0] for one in train}
        named = [one for one in heard["train"] if one.row["id"] in labels]
        unsure = _unsure(named, least, partial(_sure_of_label, labels, words))
        dropped += [{**row, "set": "train"} for row in unsure.values()]
        train = [one for one in train if one.row not in unsure]
    left_out = _tell(dropped, place, heard, watch)
    if not train:
        raise DataError(
            f"train: no answer of the teacher's is a label to learn from ({reasons(dropped)}); see stillhouse label show, or ask "
            "less of data.filter."
        )
    taught: dict[str, Any] = {"cache": None, "meta": None}
    if (
        recipe.temperature is not None
    ):  # else a control that is measured beside the teacher, and learns nothing of it
        taught = _soft_targets(recipe, place, facts, task, train, shares, watch)
    write_examples(place / "train.parquet", train)
    aside = _aside(facts, shares, place, watch)
    for kind in facts["evaluated"]:
        rows = [
            shares.get((kind, one.row)) or wrong(one, task)
            for one in read_examples(prepared / f"{kind}.parquet")
        ]
        with atomic(place / f"heard-{kind}.safetensors") as part:
            save_file({"log_p": np.log(np.asarray(rows, np.float32))}, part)
    return {
        **taught, "examples": len(train), "train": f"{place.name}/train.parquet", "graded": graded, "sets": aside,
        "dropped": left_out,
    }  # fmt: skip


def _soft_targets(
    recipe: Any,
    place: Path,
    facts: dict[str, Any],
    task: Task,
    train: list[Example],
    shares: dict[tuple[str, str], list[float]],
    watch: Watch,
) -> dict[str, Any]:
    """What was said of each of `train`, in a cache."""
    meta = {
        "teacher": facts["teacher"]["identity"],
        "task": recipe.task,
        "temperature": recipe.temperature,
        "top_k": "all",
        "samples": None,
        "seed": None,
        "dtype": "float32",
        "outcomes": task.outcomes,
        "answers": hash_json([[one.key, shares["train", one.row]] for one in train])[:16],
    }
    cache = SoftTargetCache(place / folder_name(meta), meta, watch.note)
    missing = {one.key: one for one in train if one.key not in cache}
    if missing:
        cache.add([_entry(one, shares["train", one.row], meta) for one in missing.values()])
    return {"cache": cache.folder.relative_to(place.parent).as_posix(), "meta": meta}


def _aside(
    facts: dict[str, Any], shares: dict[tuple[str, str], list[float]], place: Path, watch: Watch
) -> dict[str, dict[str, Any]]:
    """The rows set aside for choosing settings, if there are some; see `keep_aside`."""
    if facts["sets"].get(VALIDATION) is None:
        return {}
    said = {one.key: shares.get((VALIDATION, one.row)) for one in prepared(place)}
    return keep_aside(
        place, {key: int(np.argmax(found)) for key, found in said.items() if found is not None}, watch
    )


def shares_of(
    heard: dict[str, list[Heard]], words: list[str]
) -> tuple[dict[tuple[str, str], list[float]], Rows, bool]:
    """((data set, id of a row) -> the probability of each label; the rows without any, and why; whether any are more than a name).

    A held-out row that was changed for a test keeps the id of the row it was made from, in a set of its own.
    """
    graded = any(one.answer.tokens for some in heard.values() for one in some if one.answer)
    shares, dropped = {}, []
    for name, some in heard.items():
        for one in some:
            found = label_shares(one.answer, words)
            if isinstance(found, str):
                dropped.append({"where": one.row["where"], "reason": found, "set": name})
            else:
                shares[name, one.row["id"]] = found
    return shares, dropped, graded


def _sure_of_label(labels: dict[str, int], words: list[str], one: Heard) -> float | None:
    """The teacher's probability of the row's label, or of its favourite if it has none; None if it only named a label.

    Args: labels: row -> number of its label, of the rows to which the answer is a label.
    """
    found = None if one.answer is None else told_shares(one.answer, words)
    if found is None:
        return None
    label = labels[one.row["id"]]
    return max(found) if label < 0 else found[label]


def _entry(example: Example, shares: list[float], meta: dict[str, Any]) -> Entry:
    """The kept targets at the temperature that the objective asks for: known for every label, they follow from any other."""
    log_p = torch.log_softmax(
        torch.log(torch.tensor([shares], dtype=torch.float64)) / meta["temperature"], -1
    )
    ids = torch.arange(len(shares)).unsqueeze(0)
    return Entry(example, encoded(TopK(ids, log_p.float(), meta["temperature"]), [1], meta)[0])


def wrong(example: Example, task: Task) -> list[float]:
    """What counts as said about a held-out row to which no answer is a label."""
    other = (example.labels[0] + 1) % task.outcomes
    return [1.0 - 1e-6 * (task.outcomes - 1) if number == other else 1e-6 for number in range(task.outcomes)]


# ── texts ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _texts(
    recipe: Any, place: Path, facts: dict[str, Any], task: Task, heard: dict[str, list[Heard]], watch: Watch
) -> dict[str, Any]:
    """Each question with the teacher's text as its answer, to learn from and to be measured on.

    Where the data has several answers to one question, the teacher has one: copies of it would be learned, and counted, as more.
    """
    every, heard = heard, {name: once(some) for name, some in heard.items()}
    dropped: Rows = []
    sets: dict[str, dict[str, Any]] = {}
    notes: list[str] = []
    # an API's tokens are never those of an encoder–decoder, which may have a tokenizer that cannot say what its own are made of
    spell = spelled if task.name == "seq2seq" else spelling(task.tokenizer)
    whole = {name: [_taught(one, task, recipe.teacher.api) for one in some] for name, some in heard.items()}
    if (least := least_confidence(recipe)) is not None:
        unsure = _unsure(heard["train"], least, partial(_sure_of_text, spell))
        whole["train"] = [
            row if "reason" in row else unsure.get(one.row["id"], row)
            for row, one in zip(whole["train"], heard["train"], strict=True)
        ]
    if recipe.data.filter is not None:
        tests, documents = _measured_on(every, whole), _documents(place.parent / "prepare", facts)
        whole["train"] = _sifted(whole["train"], recipe.data.filter, tests, documents)
    for name, some in heard.items():
        rows = {one.row["id"]: one for one in some}
        dropped += [{**row, "set": name} for row in whole[name] if "reason" in row]
        examples, refused = task.encode([row for row in whole[name] if "reason" not in row])
        dropped += [{**row, "set": name} for row in refused]
        if name == "train":
            more, refused = task.encode(read_jsonl(place.parent / "prepare" / WRITTEN))
            examples, dropped = examples + more, dropped + [{**row, "set": "written"} for row in refused]
        if not examples:
            raise DataError(
                f"{name}: no answer of the teacher's can be used ({reasons(dropped)}); see stillhouse label show, or raise "
                "data.max_length or teacher.api.max_tokens, or ask less of data.filter."
            )
        title = name if name == "train" or not facts["sets"][name]["rows"] else f"{name}{BY_TEACHER}"
        sizes = write_examples(place / f"{title}.parquet", examples)
        if name != "train":
            sets[title] = sizes
            turns = turns_of(row for row in whole[name] if "reason" not in row)
            alone = [stands_alone(one, task, turns[one.row]) for one in examples]
            said = [answer for one in examples if (answer := rows[one.row].answer) is not None]
            keep_heard(place / f"heard-{title}.safetensors", said, alone, spell)
            if not all(alone) and any(answer.tokens for answer in said):
                notes.append(
                    f"the teacher's bits per byte on {title} leave out {alone.count(False):,} of {len(alone):,} answers, which the "
                    "student does not read whole, or not alone"
                )
    left_out = _tell(dropped, place, heard, watch)
    train = read_examples(place / "train.parquet")
    found = {
        "examples": len(train), "train": f"{place.name}/train.parquet", "graded": False, "sets": sets,
        "dropped": left_out,
    }  # fmt: skip
    for note in notes:
        watch.note(f"  {note}")
    if not tells(recipe):
        return {**found, **_noted(notes)}
    turns = turns_of(row for row in whole["train"] if "reason" not in row)
    told = listen(task, train, _by_row(heard["train"]), turns)
    soft = keep_told(recipe, place, facts["teacher"]["identity"], task, train, told, watch)
    return {**found, **soft, **_noted([told.note, *notes], soft["told"])}


def _noted(notes: Iterable[str], known: Mapping[str, Any] = {}) -> dict[str, Any]:
    """The part of the stage's result in which notes stand: what is said of the answers in the report."""
    return {"told": {**known, "note": "; ".join(notes)}} if notes else {}


def _taught(one: Heard, task: Task, api: Api) -> dict[str, Any]:
    """The row to be learned, or where it is from and why it cannot be."""
    if one.answer is None or not one.answer.usable:
        reason = "not among the past answers" if one.answer is None else one.answer.reason.partition(":")[0]
        return {"where": one.row["where"], "reason": reason}
    text = without_thoughts(one.answer.text)
    if not text.strip() or has_control_tokens(text, task.tokenizer):
        reason = CONTROL_TOKEN if text.strip() else "empty answer"
        return {"where": one.row["where"], "reason": reason}
    return answered_row(one.row, text, api, task.name)


def _sure_of_text(spell: Spell, one: Heard) -> float | None:
    return None if one.answer is None else confidence_in(one.answer, spell)


def _sifted(rows: Rows, wanted: Filter, tests: dict[str, Rows], documents: dict[str, list[Row]]) -> Rows:
    """`rows` with a reason in those whose answer `data.filter` has something against; see `data.filters`."""
    answered = [row for row in rows if "reason" not in row]
    measured = cast(dict[str, list[Row]], tests)
    verdicts = sift(cast(list[Row], answered), wanted, measured, documents=documents)
    judged = [
        row if why is None else {**row, "reason": why} for row, why in zip(answered, verdicts, strict=True)
    ]
    return [*(row for row in rows if "reason" in row), *judged]


def _measured_on(heard: dict[str, list[Heard]], whole: dict[str, Rows]) -> dict[str, Rows]:
    """Set -> what no training row may give away: its rows as the data has them, and with the teacher's answers."""
    return {
        name: [*(one.row for one in some), *(row for row in whole[name] if "reason" not in row)]
        for name, some in heard.items()
        if name != "train"
    }


def _documents(prepared: Path, facts: dict[str, Any]) -> dict[str, list[Row]]:
    """Task of the harness -> the texts of its documents, if training rows are searched for them."""
    if "looked_for" not in facts["sets"]["train"]:
        return {}
    return {one["task"]: one["rows"] for one in read_jsonl(prepared / DOCUMENTS)}


# ── both ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _unsure(
    heard: list[Heard], least: float, sure: Callable[[Heard], float | None]
) -> dict[str, dict[str, Any]]:
    """Id of a row -> where it is from and why `data.filter.min_confidence` drops it, of the answers of which the teacher is less
    sure than `least`, or of which nobody knows how sure it is.

    Raises: RecipeError if no answer came with probabilities.
    """
    usable = [one.answer for one in heard if one.answer is not None and one.answer.usable]
    if usable and not any(answer.tokens for answer in usable):
        raise RecipeError(f"data.filter.min_confidence: {SAYS_NO_CONFIDENCE}.")
    found: dict[str, dict[str, Any]] = {}
    for one in heard:
        confidence, where = sure(one), one.row["where"]
        if confidence is None:
            found[one.row["id"]] = {"where": where, "reason": "no probabilities in the answer"}
        elif confidence < least:
            found[one.row["id"]] = {"where": where, "reason": UNSURE, "confidence": round(confidence, 4)}
    return found


def _tell(
    dropped: Rows, place: Path, heard: dict[str, list[Heard]], watch: Watch
) -> dict[str, dict[str, int]]:
    """Say how many rows are lost, and keep which.  Returns: set -> {reason: rows}."""
    write_jsonl(place / "dropped.jsonl", dropped)
    for name, some in heard.items():
        lost = [row for row in dropped if row["set"] == name]
        if lost:
            watch.note(
                f"  {name}: {len(some) - len(lost):,} of {len(some):,} answers can be used; left out: {reasons(lost)}"
            )
    return {
        name: dict(Counter(row["reason"] for row in dropped if row["set"] == name).most_common())
        for name in heard
    }


def reasons(dropped: Rows) -> str:
    """How often there is which, in words."""
    counts = Counter(row["reason"] for row in dropped).most_common(4)
    return ", ".join(f"{number:,} {reason}" for reason, number in counts) or "none"


def heard_of(place: Path, sets: Iterable[str]) -> dict[str, dict[str, np.ndarray[Any, Any]]]:
    """Data set -> the teacher's statistics, of those that it has."""
    paths = {kind: place / f"heard-{kind}.safetensors" for kind in sets}
    return {kind: load_file(path) for kind, path in paths.items() if path.exists()}


def label_fault(place: Path, result: dict[str, Any]) -> str | None:
    """What of the answers' files is gone."""
    wanted = [place / f"{kind}.parquet" for kind in result.get("sets", {})]
    wanted += [place.parent / result["train"]] if result.get("train") is not None else []
    return next((f"{path} is gone" for path in wanted if not path.exists()), None)

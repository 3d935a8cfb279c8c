"""The label stage of a teacher behind an API: rows -> questions -> answers -> what the student learns from."""

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from safetensors.numpy import load_file, save_file

from ..asking import LEDGER, Answer, Ledger, Request, ask, ledger_of, takes
from ..asking.files import import_answers, index_questions, question_text, unanswered
from ..data.encode import IGNORED, Example, read_examples, write_examples
from ..data.filters import sift
from ..data.filters.rules import looked_up
from ..data.formats import Row
from ..data.load import read_raw
from ..errors import DataError
from ..files import atomic, hash_json, hash_path, read_jsonl, write_jsonl
from ..held_out import BY_TEACHER
from ..progress import Watch
from ..recipe import Api
from ..recipe.filter import Filter
from ..tasks import Task
from ..teachers import TopK
from ..teachers.cache import Entry, SoftTargetCache, folder_name
from ..teachers.codec import encoded
from ..teachers.said import (
    CONTROL_TOKEN,
    answered_row,
    has_control_tokens,
    label_shares,
    question_about,
    question_of,
    without_thoughts,
    words_of,
)
from .prepare import WRITTEN

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Heard:
    """A row, and what the teacher said to it; None if nobody has an answer."""

    row: dict[str, Any]
    answer: Answer | None


def questions(
    api: Api, task: str, labels: list[str], prepared: Path
) -> dict[str, tuple[Rows, list[Request]]]:
    """Data set -> its rows, and what the teacher is asked about each."""
    found = {}
    words = words_of(labels, api)
    for path in sorted(prepared.glob("asked-*.jsonl")):
        name, rows = path.stem.removeprefix("asked-"), read_jsonl(path)
        if task == "classification":
            found[name] = rows, [question_about(row, words, api, name) for row in rows]
        else:
            found[name] = rows, [question_of(row, api, name) for row in rows]
    return found


def label_by_asking(
    recipe: Any, place: Path, facts: dict[str, Any], task: Task, watch: Watch
) -> dict[str, Any]:
    """Ask about every row, held-out ones too, and write what the student learns from and is measured against."""
    api = recipe.teacher.api
    asked = questions(api, recipe.task, facts["labels"], place.parent / "prepare")
    with Ledger(ledger_of(place.parent, LEDGER)) as ledger:
        flat = [request for _, some in asked.values() for request in some]
        ledger.plan(flat)
        if api.answers is not None:
            watch.note(f"  {take_answers(ledger, asked, Path(api.answers))}")
        answers = iter(ask(api, flat, ledger, watch, seed=recipe.seed))
    heard = {name: [Heard(row, next(answers)) for row in rows] for name, (rows, _) in asked.items()}
    learn = _labels if recipe.task == "classification" else _texts
    found = learn(recipe, place, facts, task, heard, watch)
    said = {name: _counts(some) for name, some in heard.items()}
    return {"cache": None, "meta": None, **found, "said": said}


def take_answers(ledger: Ledger, asked: dict[str, tuple[Rows, list[Request]]], path: Path) -> str:
    """Past answers in a file -> the ledger.  Returns: a sentence about it."""
    ledger.plan(request for _, some in asked.values() for request in some)
    index = index_questions(pair for rows, some in asked.values() for pair in zip(rows, some, strict=True))
    taken, read = import_answers(ledger, read_raw(path), index, path.name)
    return f"{path.name}: {taken:,} of {read:,} answers belong to a row of this run"


def _counts(heard: Iterable[Heard]) -> dict[str, int]:
    return dict(Counter("no answer" if one.answer is None else one.answer.status for one in heard))


# ── classification ──────────────────────────────────────────────────────────────────────────────────────────────────


def _labels(
    recipe: Any, place: Path, facts: dict[str, Any], task: Task, heard: dict[str, list[Heard]], watch: Watch
) -> dict[str, Any]:
    """Each row's probabilities, into the cache of soft targets and beside it for the held-out rows."""
    words = words_of(facts["labels"], recipe.teacher.api)
    graded = any(one.answer.tokens for some in heard.values() for one in some if one.answer)
    shares, dropped = {}, []
    for name, some in heard.items():
        for one in some:
            found = label_shares(one.answer, words)
            if isinstance(found, str):
                dropped.append({"where": one.row["where"], "reason": found, "set": name})
            else:
                shares[one.row["id"]] = found
    left_out = _tell(dropped, place, heard, watch)
    prepared = place.parent / "prepare"
    train = [one for one in read_examples(prepared / "train.parquet") if one.row in shares]
    if not train:
        raise DataError(
            f"train: the teacher's answers name no label ({_reasons(dropped)}); see stillhouse label show."
        )
    meta = {
        "teacher": facts["teacher"]["identity"],
        "task": recipe.task,
        "temperature": recipe.temperature,
        "top_k": "all",
        "samples": None,
        "seed": None,
        "dtype": "float32",
        "outcomes": task.outcomes,
        "answers": hash_json([[one.key, shares[one.row]] for one in train])[:16],
    }
    cache = SoftTargetCache(place / folder_name(meta), meta, watch.note)
    missing = {one.key: one for one in train if one.key not in cache}
    if missing:
        cache.add([_entry(one, shares[one.row], meta) for one in missing.values()])
    write_examples(place / "train.parquet", train)
    for kind in facts["evaluated"]:
        rows = [
            _held_out(one, shares.get(one.row), task) for one in read_examples(prepared / f"{kind}.parquet")
        ]
        with atomic(place / f"heard-{kind}.safetensors") as part:
            save_file({"log_p": np.log(np.asarray(rows, np.float32))}, part)
    return {
        "cache": cache.folder.relative_to(place.parent).as_posix(), "meta": meta, "examples": len(train),
        "train": f"{place.name}/train.parquet", "graded": graded, "sets": {},
        "dropped": left_out,
    }  # fmt: skip


def _entry(example: Example, shares: list[float], meta: dict[str, Any]) -> Entry:
    """The kept targets at the temperature that the objective asks for: known for every label, they follow from any other."""
    log_p = torch.log_softmax(
        torch.log(torch.tensor([shares], dtype=torch.float64)) / meta["temperature"], -1
    )
    ids = torch.arange(len(shares)).unsqueeze(0)
    return Entry(example, encoded(TopK(ids, log_p.float(), meta["temperature"]), [1], meta)[0])


def _held_out(example: Example, shares: list[float] | None, task: Task) -> list[float]:
    """What the teacher said about a held-out row; an answer that is no label counts as a wrong one."""
    if shares is not None:
        return shares
    wrong = (example.labels[0] + 1) % task.outcomes
    return [1.0 - 1e-6 * (task.outcomes - 1) if number == wrong else 1e-6 for number in range(task.outcomes)]


# ── texts ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _texts(
    recipe: Any, place: Path, facts: dict[str, Any], task: Task, heard: dict[str, list[Heard]], watch: Watch
) -> dict[str, Any]:
    """Each row with the teacher's text as its answer, to learn from and to be measured on."""
    dropped: Rows = []
    sets: dict[str, dict[str, Any]] = {}
    whole = {name: [_taught(one, task, recipe.teacher.api) for one in some] for name, some in heard.items()}
    if recipe.data.filter is not None:
        whole["train"] = _sifted(whole["train"], recipe.data.filter, _measured_on(heard, whole))
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
                f"{name}: no answer of the teacher's can be used ({_reasons(dropped)}); see stillhouse label show, or raise "
                "data.max_length or teacher.api.max_tokens, or ask less of data.filter."
            )
        title = name if name == "train" or not facts["sets"][name]["rows"] else f"{name}{BY_TEACHER}"
        sizes = write_examples(place / f"{title}.parquet", examples)
        if name != "train":
            sets[title] = sizes
            _keep_heard(place / f"heard-{title}.safetensors", [rows[one.row] for one in examples])
    left_out = _tell(dropped, place, heard, watch)
    train = read_examples(place / "train.parquet")
    return {
        "examples": len(train), "train": f"{place.name}/train.parquet", "graded": False, "sets": sets,
        "dropped": left_out,
    }  # fmt: skip


def _taught(one: Heard, task: Task, api: Api) -> dict[str, Any]:
    """The row to be learned, or where it is from and why it cannot be."""
    if one.answer is None or not one.answer.usable:
        reason = "not among the past answers" if one.answer is None else one.answer.reason.partition(":")[0]
        return {"where": one.row["where"], "reason": reason}
    text = without_thoughts(one.answer.text)
    if not text.strip() or has_control_tokens(text, task.tokenizer):
        reason = CONTROL_TOKEN if text.strip() else "empty answer"
        return {"where": one.row["where"], "reason": reason}
    return answered_row(one.row, text, api)


def _sifted(rows: Rows, wanted: Filter, tests: dict[str, Rows]) -> Rows:
    """`rows` with a reason in those whose answer `data.filter` has something against; see `data.filters`."""
    answered = [row for row in rows if "reason" not in row]
    verdicts = sift(cast(list[Row], answered), wanted, cast(dict[str, list[Row]], tests))
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


def _keep_heard(path: Path, heard: list[Heard]) -> None:
    """The teacher's surprise at its own texts, where it gave log-probabilities: what a perfect student would reach."""
    nll = [
        -sum(others[token] for token, others in one.answer.tokens)
        for one in heard
        if one.answer and one.answer.tokens and without_thoughts(one.answer.text) == one.answer.text
    ]
    sizes = [float(len(one.answer.text.encode())) for one in heard if one.answer]
    known = {"nll": np.asarray(nll), "bytes": np.asarray(sizes)} if len(nll) == len(heard) else {}
    with atomic(path) as part:
        save_file(known, part)


# ── both ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _tell(
    dropped: Rows, place: Path, heard: dict[str, list[Heard]], watch: Watch
) -> dict[str, dict[str, int]]:
    """Say how many rows are lost, and keep which.  Returns: set -> {reason: rows}."""
    write_jsonl(place / "dropped.jsonl", dropped)
    for name, some in heard.items():
        lost = [row for row in dropped if row["set"] == name]
        if lost:
            watch.note(
                f"  {name}: {len(some) - len(lost):,} of {len(some):,} answers can be used; left out: {_reasons(lost)}"
            )
    return {
        name: dict(Counter(row["reason"] for row in dropped if row["set"] == name).most_common())
        for name in heard
    }


def _reasons(dropped: Rows) -> str:
    counts = Counter(row["reason"] for row in dropped).most_common(4)
    return ", ".join(f"{number:,} {reason}" for reason, number in counts) or "none"


def heard_of(place: Path, sets: Iterable[str]) -> dict[str, dict[str, np.ndarray[Any, Any]]]:
    """Data set -> the teacher's statistics, of those that it has."""
    paths = {kind: place / f"heard-{kind}.safetensors" for kind in sets}
    return {kind: load_file(path) for kind, path in paths.items() if path.exists()}


def label_fault(place: Path, result: dict[str, Any]) -> str | None:
    """What of the answers' files is gone."""
    wanted = [place.parent / result["train"], *(place / f"{kind}.parquet" for kind in result["sets"])]
    return next((f"{path} is gone" for path in wanted if not path.exists()), None)


def what_was_said(recipe: Any, facts: dict[str, Any], run: Path) -> dict[str, str]:
    """Row id -> the teacher's words, of the held-out rows that it answered."""
    rows, some = questions(recipe.teacher.api, recipe.task, facts["labels"], run / "prepare")["eval"]
    with Ledger(ledger_of(run, LEDGER)) as ledger:
        known = ledger.answers([one.key for one in some])
    pairs = zip(rows, some, strict=True)
    return {
        row["id"]: known[one.key].text for row, one in pairs if one.key in known and known[one.key].usable
    }


def what_asking_takes(
    recipe: Any, facts: dict[str, Any], run: Path, before: Collection[str] = ()
) -> dict[str, Any]:
    """What has no answer yet: the requests' keys, the seconds they take, and the dollars they may cost at most (None: no price).

    before: keys of what other runs of its plan will have asked by then.
    """
    api = recipe.teacher.api
    asked = questions(api, recipe.task, facts["labels"], run / "prepare")
    with Ledger(ledger_of(run, LEDGER)) as ledger:
        missing = unanswered(ledger, [one for _, some in asked.values() for one in some])
    missing = [one for one in missing if one.key not in before]
    return {"keys": [one.key for one in missing], **takes(api, missing)}


def stand_ins(api: Api, task: Task, path: Path) -> list[Example]:
    """Examples as long as those that the answers will make, at most: enough to measure how fast a student learns."""
    found = []
    for row in read_jsonl(path)[:256]:
        asked = task.tokenizer(question_text(question_of(row, api, "plan").body), verbose=False)["input_ids"]
        ids = [*asked, *[0] * (api.max_tokens or 1024)][: task.max_length]
        first = min(len(asked), len(ids) - 1)
        labels = [IGNORED] * first + ids[first:]
        found.append(Example(row["id"], row["id"], ids, labels, [0], 0))
    return found


def answers_stamp(recipe: Any) -> list[str] | None:
    """Sums of the file of past answers, if there is one, and of what the filter looks up: they may be others tomorrow."""
    api = recipe.teacher.api
    if api is None:
        return None
    named = [api.answers, *([] if recipe.data.filter is None else looked_up(recipe.data.filter))]
    paths = [Path(name) for name in named if name is not None]
    return [hash_path(path) if path.exists() else "missing" for path in paths]

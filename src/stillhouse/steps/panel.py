"""The teacher stage of a panel, or of a model with a prompt of its own: what stands in for each member, and weights or tables judged on
labelled rows.

A member is whatever `task` loads from a folder and gives distributions by row: a model, a language model that labels by names, or what
somebody behind an API, or a classifier with another tokenizer, said beforehand.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..data.encode import Example, read_examples, write_examples
from ..errors import DataError, RecipeError
from ..files import atomic_folder, hash_json, hash_path, read_json, write_jsonl
from ..losses import log_softmax
from ..losses.fused import chunks
from ..losses.pooling import learned_weights, reliability_table
from ..models.fitting import positions
from ..models.load import load_tokenizer
from ..models.machine import device
from ..progress import Watch
from ..recipe import Api, Member, Pool
from ..recipe.panel import OF_SHARES, names_alone
from ..tasks import Task, make_task, on_device
from ..tasks.classification import label_order
from ..tasks.panel import write_panel
from ..tasks.told import write_told
from ..teachers.said import words_of
from .asking import reasons, shares_of, wrong
from .fetching import OWN_TOKENS, lenders
from .hearing import asked_rows, hear, statuses
from .naming import write_namer
from .prepare import CONTEXTS, ROUTES
from .training import labelled


@dataclass(frozen=True)
class Seat:
    """A member of the panel as it stands in for a model."""

    name: str
    folder: Path
    """Of a model elsewhere, or below the panel's own."""
    identity: str
    asked: dict[str, Any] | None = None
    """How it asks, if it labels by names."""
    heard: "Heard | None" = None
    """What it was heard to say, if it does not read the student's tokens on this machine."""


@dataclass(frozen=True)
class Heard:
    """The answers of a member behind an API, or of one with another tokenizer."""

    shares: dict[str, list[float]]
    """Key of an example -> the probability of each label; those without a usable answer are not there."""
    dropped: list[dict[str, Any]]
    """Those rows, and why."""
    statuses: dict[str, dict[str, int]]
    """Data set -> how many answers came to what; nothing of a model that read the rows itself."""


def make_panel(recipe: Any, task: Task, facts: dict[str, Any], place: Path, watch: Watch) -> dict[str, Any]:
    """Returns: the stage's result: the panel's folder, its identity, and the folder of the member that lends its layers; of members
    behind an API also what they were asked, and "train" if some training rows have no answer of anybody's."""
    teacher = recipe.teacher
    pool = teacher.pool or Pool()
    members = teacher.panel or [Member(model=teacher.model)]
    found = facts["panel"] or [facts["teacher"]]
    heard = [
        _beforehand(member, number, found[number], pool, recipe, task, facts, place.parent, watch)
        for number, member in enumerate(members)
    ]
    missed, more = _nobodys(heard, task, facts, place, watch)
    weights = [member.weight for member in members]
    settings: dict[str, Any] = {
        "pool": pool.by,
        "context": None if teacher.context_column else teacher.context,
        "weights": [weight / sum(weights) for weight in weights],
    }
    with atomic_folder(place / "panel") as part:
        seats = [
            _seat(
                member,
                found[number],
                heard[number],
                missed,
                recipe,
                task,
                facts,
                place,
                part / str(number),
                watch,
            )
            for number, member in enumerate(members)
        ]
        settings |= _judged(pool, seats, recipe, task, facts, place, watch)
        own = [
            seat.folder.relative_to(part) if seat.folder.is_relative_to(part) else seat.folder
            for seat in seats
        ]
        write_panel(
            part, own, **settings, contexts=f"../../prepare/{CONTEXTS}" if facts["contexts"] else None
        )
        task.tokenizer.save_pretrained(part)
    identity = hash_json([[seat.identity for seat in seats], settings, facts["contexts"]])
    shown = {name: value for name, value in settings.items() if name in ("pool", "weights", "table")}
    lead = next((one["folder"] for one in lenders(members, found)), None)
    return {
        "folder": f"{place.name}/panel",
        "lead": {"folder": lead},
        "identity": f"panel:{identity}",
        "panel": [seat.name for seat in seats],
        **shown,
        **_asked(seats),
        **more,
    }


def _asked(seats: Sequence[Seat]) -> dict[str, Any]:
    """How members that label by names ask, and what came of asking those behind an API; nothing if there are none."""
    notes = [f"{seat.name}: {seat.asked['note']}" for seat in seats if seat.asked and "note" in seat.asked]
    said = {seat.name: seat.heard.statuses for seat in seats if seat.heard and seat.heard.statuses}
    return ({"asked": {"note": "; ".join(notes)}} if notes else {}) | ({"said": said} if said else {})


def _beforehand(
    member: Member,
    number: int,
    found: dict[str, Any],
    pool: Pool,
    recipe: Any,
    task: Task,
    facts: dict[str, Any],
    run: Path,
    watch: Watch,
) -> Heard | None:
    """What a member says of every row before the student learns; None if it runs beside it, or is asked in words there."""
    if member.api is not None:
        return _hear(member.api, number, pool, recipe, facts, run, watch)
    if OWN_TOKENS in found:
        return _read(found, task, run / "prepare", recipe.label.batch_size, watch)
    return None


@torch.inference_mode()
def _read(found: dict[str, Any], task: Task, prepared: Path, batch_size: int, watch: Watch) -> Heard:
    """Let a classifier read every row, held-out ones too, in its own tokens; in float32, at temperature 1.

    A text is cut at as many of them as the student reads of its own, and at what the classifier can read.
    """
    folder, name = Path(found["folder"]), found["name"]
    order = label_order(folder, task.labels, f"teacher.panel: {name}")
    places = [order.index(label) for label in task.labels]
    most = min(task.max_length, positions(folder) or task.max_length)
    if most < task.max_length:
        watch.note(f"  {name}: reads {most:,} tokens at most, so of longer texts it does not know the end")
    theirs = make_task("classification", load_tokenizer(folder), most, order)
    model = theirs.load(folder).to(device())
    rows = [
        (kind, example) for kind, some in asked_rows(prepared).items() for example in theirs.encode(some)[0]
    ]
    rows.sort(key=lambda row: -len(row[1].input_ids))
    shares: dict[tuple[str, str], list[float]] = {}
    for start in range(0, len(rows), batch_size):
        some = rows[start : start + batch_size]
        scores = theirs.scores(model, on_device(theirs.collate([example for _, example in some])))
        said = scores.head.logits(scores.hidden).double().softmax(-1)[:, places].tolist()
        shares |= {(kind, one.row): row for (kind, one), row in zip(some, said, strict=True)}
        watch.step(f"{name} reads", start + len(some), len(rows))
    watch.end()
    return Heard(_by_example(shares, prepared), [], {})


def _hear(
    api: Api, number: int, pool: Pool, recipe: Any, facts: dict[str, Any], run: Path, watch: Watch
) -> Heard:
    """Ask a member about every row, held-out ones too; what it has no usable answer to is left to the others."""
    field, name = f"teacher.panel[{number}].api", facts["panel"][number]["name"]
    answers = hear(api, field, recipe, facts, run, watch)
    shares, dropped, graded = shares_of(answers, words_of(facts["labels"], api, field))
    if pool.by in OF_SHARES and not graded:
        raise RecipeError(f"{field}: {names_alone(pool.by)}.")
    if dropped:
        asked = sum(map(len, answers.values()))
        watch.note(
            f"  {name}: {asked - len(dropped):,} of {asked:,} answers can be used; the other rows are left to the rest of the "
            f"panel: {reasons(dropped)}"
        )
    said = _by_example(shares, run / "prepare")
    return Heard(said, [{**row, "member": name} for row in dropped], statuses(answers))


def _by_example(shares: dict[tuple[str, str], list[float]], prepared: Path) -> dict[str, list[float]]:
    """(data set, id of a row) -> … as key of an example -> …; of examples that are cut to the same tokens the first counts, which
    is the clean one where the other is a changed row."""
    found: dict[str, list[float]] = {}
    for name in sorted({name for name, _ in shares}):
        for one in read_examples(prepared / f"{name}.parquet"):
            if (name, one.row) in shares:
                found.setdefault(one.key, shares[name, one.row])
    return found


def _nobodys(
    heard: Sequence[Heard | None], task: Task, facts: dict[str, Any], place: Path, watch: Watch
) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """Rows that no member has an answer to: (key of a held-out one -> what counts as said; of training rows what the stage's result
    has of them, for they are left out)."""
    spoke = [one for one in heard if one is not None]
    write_jsonl(place / "dropped.jsonl", [row for one in spoke for row in one.dropped])
    if len(spoke) < len(heard):
        return {}, {}
    prepared = place.parent / "prepare"
    missed = {
        example.key: wrong(example, task)
        for kind in facts["evaluated"]
        for example in read_examples(prepared / f"{kind}.parquet")
        if not any(example.key in one.shares for one in spoke)
    }
    train = read_examples(prepared / "train.parquet")
    kept = [example for example in train if any(example.key in one.shares for one in spoke)]
    if not kept:
        raise DataError(
            f"train: no answer of the panel's names a label ({reasons([row for one in spoke for row in one.dropped])}); see "
            "stillhouse label show."
        )
    if len(kept) == len(train):
        return missed, {}
    lost = len(train) - len(kept)
    watch.note(f"  {lost:,} training rows are left out: no member of the panel has an answer")
    write_examples(place / "train.parquet", kept)
    why = {"no member of the panel has an answer": lost}
    return missed, {"train": f"{place.name}/train.parquet", "dropped": {"train": why}}


def _seat(
    member: Member,
    found: dict[str, Any],
    heard: Heard | None,
    missed: dict[str, list[float]],
    recipe: Any,
    task: Task,
    facts: dict[str, Any],
    place: Path,
    folder: Path,
    watch: Watch,
) -> Seat:
    """A member as something that `task` loads: the model itself, or what is written into `folder` in its stead."""
    name = found["name"]
    if heard is not None:
        write_told(folder, {**missed, **heard.shares})
        return Seat(name, folder, f"{found['identity']}:{hash_path(folder)}", heard=heard)
    if member.zero_shot is not None:
        folder.mkdir()
        made = write_namer(member.zero_shot, found, recipe, task, facts, place, folder, watch)
        return Seat(name, folder, made["identity"], asked=made["asked"])
    return Seat(name, Path(found["folder"]), found["identity"])


def _judged(
    pool: Pool, seats: list[Seat], recipe: Any, task: Task, facts: dict[str, Any], place: Path, watch: Watch
) -> dict[str, Any]:
    """What of a panel's settings labelled rows, or the rows' own column, decide."""
    if pool.by == "column":
        named = read_json(place.parent / "prepare" / ROUTES)
        return {"pool": "mean", "routes": _numbered(named, [seat.name for seat in seats])}
    if pool.by not in ("learned", "validation"):
        return {}
    known = [
        one
        for one in judged_by(place.parent / "prepare", facts)
        if all(seat.heard is None or one.key in seat.heard.shares for seat in seats)
    ]
    known, size = known[: pool.rows], recipe.label.batch_size
    if pool.by == "learned":
        return {"pool": "mean", "weights": _learned(seats, task, known, size, watch)}
    return {"pool": "table", "table": _table(seats, task, known, size, watch)}


def judged_by(prepared: Path, facts: dict[str, Any]) -> list[Example]:
    """Labelled rows that tell how good the members are: those of `data.validation` if it has any, or else training rows.

    Training rows flatter a member that has learned them; nothing is ever judged by what the models are measured on.
    """
    names = ["validation", "train"] if facts["validation"] else ["train"]
    found = (labelled(read_examples(prepared / f"{name}.parquet")) for name in names)
    return next((some for some in found if some), [])


def _learned(
    seats: list[Seat], task: Task, known: list[Example], batch_size: int, watch: Watch
) -> list[float]:
    """Weights under which the labels of `known` are most probable."""
    picked = []
    for seat in seats:
        found = [
            log_p.gather(-1, labels.clamp_min(0).unsqueeze(-1)).squeeze(-1)[labels >= 0]
            for log_p, labels in _said(seat, task, known, batch_size, watch)
        ]
        picked.append(torch.cat(found))
    weights: list[float] = learned_weights(torch.stack(picked, 1)).tolist()
    watch.note("  weights learned: " + ", ".join(f"{weight:.3f}" for weight in weights))
    return weights


def _table(
    seats: list[Seat], task: Task, known: list[Example], batch_size: int, watch: Watch
) -> list[list[float]]:
    """How often each member is right when it says each class."""
    said, labels = [], torch.empty(0)
    for seat in seats:
        parts = list(_said(seat, task, known, batch_size, watch))
        said.append(torch.cat([log_p for log_p, _ in parts]))
        labels = torch.cat([label for _, label in parts])
    table = reliability_table(torch.stack(said), labels)
    for seat, row in zip(seats, table.tolist(), strict=True):
        shares = ", ".join(f"{label} {share:.2f}" for label, share in zip(task.labels, row, strict=True))
        watch.note(f"  {seat.name} is right when it says: {shares}")
    found: list[list[float]] = table.tolist()
    return found


def _said(seat: Seat, task: Task, known: list[Example], batch_size: int, watch: Watch) -> Any:
    """(log-probabilities [n, V], labels [n]) of a member, chunk by chunk."""
    if not known:
        raise DataError(
            "teacher.pool: no row has a label, and an answer of every member, to judge them by; use by: mean."
        )
    model = task.load(seat.folder).to(device())
    for start in range(0, len(known), batch_size):
        with torch.inference_mode():
            scores = task.scores(model, on_device(task.collate(known[start : start + batch_size])))
        watch.step(f"{seat.name} is judged", start + batch_size, len(known))
        for at in chunks(len(scores.labels), task.outcomes, scores.hidden.device):
            yield log_softmax(scores.head.logits(scores.hidden[at])).cpu(), scores.labels[at].cpu()


def _numbered(routes: dict[str, str], names: list[str]) -> dict[str, int]:
    """Key of an example -> the number of the member that its row names.  Raises: DataError for a name that nobody has."""
    for name in routes.values():
        if name not in names:
            raise DataError(
                f"teacher.pool.column: a row names the member {name!r}, and the panel has {', '.join(names)}; "
                "mend the rows, or give the member that name."
            )
    return {key: names.index(name) for key, name in routes.items()}

"""Rows -> examples on disk, and what the later stages must know of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..data.augment import augmented, neighbours, rows_made
from ..data.coverage import coverage
from ..data.encode import Example, write_examples
from ..data.formats import CONTENT, Row, has_answer
from ..data.split import Prepared
from ..data.written import prompt_of
from ..errors import DataError
from ..files import hash_json, read_jsonl, write_json, write_jsonl
from ..models.fitting import positions
from ..models.load import load_tokenizer
from ..progress import Watch
from ..tasks import Task, make_task
from ..tasks.bilingual import BilingualClassification, BilingualLM, conversations
from ..tasks.context import longest_in_context, prefixes, prompt_key
from .canaries import canary_rows, planted
from .classes import labels_of
from .confidence import confidences, least_confidence, sure
from .fetching import OWN_TOKENS
from .naming import TEXTS, keep_texts, namers_of
from .questions import TRAINED_BY
from .variants import variants

BATCH = 8
"""Rows that a teacher reads at once to tell how sure it is of them."""
MESSAGES = "messages.jsonl"
"""Conversations by example, where teacher and student have templates of their own."""
READINGS = "readings.parquet"
"""A classifier's rows in the teacher's tokens, where these are not the student's."""
CONTEXTS = "contexts.jsonl"
"""What only the teacher reads, by example, where a column of the rows has it."""
ROUTES = "routes.json"
"""Member of the panel by example, where a column of the rows names it."""
WRITTEN = "written.jsonl"
"""Rows that the writer answered already, so that a teacher behind an API is not asked about them."""
DOCUMENTS = "documents.jsonl"
"""Texts of the harness's tasks, by task, which no answer of a teacher behind an API may give away."""
EXAMPLE_CHARACTERS = 1500
"""Of one rendered row, shown so that a person sees what the models will read."""


@dataclass(frozen=True)
class _Encoded:
    """A set's rows, and the examples made of them."""

    rows: Sequence[Any]
    """Those of the set, and the secrets that are planted among them."""
    read: list[Example]
    """What the rows say."""
    examples: list[Example]
    """What models learn from or are measured on: with what is made of `read` or planted, without what is left out."""
    refused: list[dict[str, Any]]
    """{"where", "reason"} of each row left out."""


def encode_rows(
    recipe: Any, rows: Prepared, models: dict[str, Any], place: Path, watch: Watch
) -> dict[str, Any]:
    """Rows -> examples on disk.  Returns: what the later stages must know of them."""
    labels = labels_of(recipe, rows, models)
    task = _reading_task(recipe, models, labels)
    learned = rows.train + rows.extra + rows.unlabelled
    written = [] if recipe.teacher.is_local else [row for row in learned if row.get("written")]
    sets = {
        "train": [row for row in learned if recipe.teacher.is_local or not row.get("written")],
        "eval": rows.eval,
        **variants(recipe, rows.eval, task, models, place, watch),
        **rows.also,
    }
    encoded = {name: _encoded(name, some, recipe, task) for name, some in sets.items()}
    form = rows.counts["train"]["format"]
    encoded["train"] = _to_learn_from(encoded["train"], form, recipe, task, models, place, watch)
    _refuse_unusable(recipe, encoded, task, models)
    asked = _keep_asked(recipe, encoded, models, place)
    sizes = _keep_examples(recipe, encoded, asked, written, rows.documents, place)
    held = _keep_rows(encoded, rows.dropped, place)
    return {
        "labels": labels,
        "sets": sizes,
        "evaluated": list(held),
        "held_out": hash_json([[_unplaced(row) for row in some] for some in held.values()]),
        "validation": sizes.get("validation"),
        "unlabelled": len(rows.unlabelled),
        "counts": rows.counts,
        **_keep_by_example(recipe, encoded, task, models, place),
        "asked": {name: _sum_of(some) for name, some in asked.items()}
        if recipe.teacher.panel and asked
        else None,
        "coverage": _coverage(rows, learned, rows_made(encoded["train"].examples, task.tokenizer)),
        "example": next((_shown(one.examples[0], task) for one in encoded.values() if one.examples), ""),
    }


# ── rows to examples ────────────────────────────────────────────────────────────────────────────────────────────────


def _reading_task(recipe: Any, models: dict[str, Any], labels: list[str]) -> Task:
    """The task in the student's tokenizer; a classifier's rows are read in its teacher's as well, if that is another one."""
    tokenizer = load_tokenizer(_reader(models))
    if models["tongues"] and recipe.task == "classification":
        theirs = load_tokenizer(Path(models["teacher"]["folder"]))
        return BilingualClassification(tokenizer, theirs, recipe.data.max_length, labels)
    return make_task(recipe.task, tokenizer, recipe.data.max_length, labels)


def _reader(models: dict[str, Any]) -> Path:
    """The model whose tokens examples are in."""
    return Path((models["tongues"]["student"] if models["tongues"] else models["teacher"])["folder"])


def _encoded(name: str, rows: Sequence[Row], recipe: Any, task: Task) -> _Encoded:
    """Each row as it stands; a teacher behind an API has yet to answer those without an answer."""
    known = [dict(row) for row in rows if recipe.teacher.is_local or has_answer(row)]
    examples, refused = task.encode(known)
    used = examples if name == "train" else examples[: recipe.evaluate.rows]
    return _Encoded(rows, examples, used, refused)


def _to_learn_from(
    one: _Encoded, form: str, recipe: Any, task: Task, models: dict[str, Any], place: Path, watch: Watch
) -> _Encoded:
    """The training set with what is made of its rows and planted among them, without what the teacher is unsure of.

    Args: form: the format of its rows.
    """
    read = [task.drawn(example, recipe.seed, 0) for example in one.examples]
    secrets = canary_rows(recipe, form, task)
    taught, unsure = _taught(recipe, task, models, read, watch)
    examples = [*taught, *planted(recipe, secrets, task, place, watch)]
    return _Encoded([*one.rows, *secrets], read, examples, [*one.refused, *unsure])


def _taught(
    recipe: Any, task: Task, models: dict[str, Any], examples: list[Example], watch: Watch
) -> tuple[list[Example], list[dict[str, Any]]]:
    """(training examples and those made of them, those among them that the teacher is too unsure of)"""
    if recipe.data.augment is not None:
        made = _augmented(recipe, task, _reader(models), examples)
        watch.note(f"  augment: {len(made):,} rows made of the training rows")
        examples = [*examples, *made]
    least = least_confidence(recipe)
    ready = recipe.teacher.is_ready  # whom the run makes or hears first is asked by the stage `label`
    if least is None or not ready:
        return examples, []
    found = confidences(examples, task, Path(models["teacher"]["folder"]), BATCH, watch)
    examples, unsure = sure(examples, least, found, task)
    watch.note(f"  the teacher is unsure of {len(unsure):,} rows, which are left out")
    return examples, unsure


def _augmented(recipe: Any, task: Task, reader: Path, examples: list[Example]) -> list[Example]:
    """New rows of the labelled ones; words are neighbours where the embeddings of whoever reads these tokens say so: the
    teacher's, as a rule."""
    embeddings = task.load(reader, head_seed=0).get_input_embeddings().weight.detach()
    labelled = [example for example in examples if example.labels[0] >= 0]
    near = neighbours(embeddings, examples, task.tokenizer)
    most = recipe.data.max_length
    return list(augmented(labelled, recipe.data.augment, near, task.tokenizer, recipe.seed, most))


def _refuse_unusable(
    recipe: Any, encoded: Mapping[str, _Encoded], task: Task, models: dict[str, Any]
) -> None:
    """Raises: DataError for a row that is too long for the teacher, or a set of which no row is left to a teacher that reads."""
    for name, one in encoded.items():
        if recipe.teacher.context is not None:
            _refuse_too_long(recipe, one, task, models)
        if recipe.teacher.is_local and not one.examples:
            why = ", ".join(sorted({row["reason"] for row in one.refused})) or "too short to learn from"
            raise DataError(
                f"{name}: no row is left to use of {len(one.rows):,} ({why}); raise data.max_length, or give it other rows."
            )


def _refuse_too_long(recipe: Any, one: _Encoded, task: Task, models: dict[str, Any]) -> None:
    """Raises: DataError for a row that does not fit the teacher after its context: `data.max_length` bounds what the student reads."""
    readers = [who["folder"] for who in models["panel"] or [models["teacher"]] if who["folder"]]
    most = min((n for n in map(positions, map(Path, readers)) if n is not None), default=None)
    if most is None:
        return
    rows = {row["id"]: row for row in one.rows}
    column = recipe.teacher.context_column
    said = {
        example.row: rows[example.row]["context"] if column else recipe.teacher.context
        for example in one.examples
    }
    read = {
        context: prefixes(task.tokenizer, context) for context in set(said.values())
    }  # a template takes its time
    for example in one.examples:
        if (length := longest_in_context(example, *read[said[example.row]])) > most:
            where = rows[example.row]["where"] if example.row in rows else example.row
            raise DataError(
                f"{where}: takes {length} tokens after its teacher.context, and the teacher reads {most} at most; shorten the "
                "context, lower data.max_length, or use a teacher that reads more."
            )


def _coverage(rows: Prepared, learned: Sequence[Row], augmented: Sequence[Row]) -> dict[str, Any]:
    """What the rows to learn from cover of all others.  Args: augmented: what was made of their tokens."""
    written = [row for row in learned if row["id"] in rows.written]
    tests = {"eval": rows.eval, **rows.also, **rows.covered}
    return coverage([*learned, *augmented], [*written, *augmented], tests)


def _shown(example: Example, task: Task) -> str:
    text = str(task.tokenizer.decode(example.input_ids))
    label = f"  →  {task.labels[example.labels[0]]}" if task.labels and example.labels[0] >= 0 else ""
    return (text if len(text) <= EXAMPLE_CHARACTERS else text[:EXAMPLE_CHARACTERS] + " …") + label


# ── what is kept of them ────────────────────────────────────────────────────────────────────────────────────────────


def _keep_asked(
    recipe: Any, encoded: Mapping[str, _Encoded], models: dict[str, Any], place: Path
) -> dict[str, list[Row]]:
    """Set -> the rows that somebody behind an API, or with another tokenizer, is asked about; none if nobody is."""
    members = models["panel"] or []
    if recipe.teacher.is_local and not any(OWN_TOKENS in one or "provider" in one for one in members):
        return {}
    asked: dict[str, list[Row]] = {}
    for name, one in encoded.items():
        asked[name] = _to_ask(name, one, recipe)
        write_jsonl(place / f"asked-{name}.jsonl", [dict(row) for row in asked[name]])
    return asked


def _to_ask(name: str, one: _Encoded, recipe: Any) -> list[Row]:
    """A classifier's rows that are learned from or measured; those of who writes have no examples before they are answered."""
    if recipe.task in ("causal_lm", "seq2seq"):
        return list(one.rows if name == "train" else one.rows[: recipe.evaluate.rows])
    used = {example.row for example in one.examples}
    return [row for row in one.rows if row["id"] in used]


def _keep_examples(
    recipe: Any,
    encoded: Mapping[str, _Encoded],
    asked: Mapping[str, list[Row]],
    written: list[Row],
    documents: Mapping[str, Sequence[Row]],
    place: Path,
) -> dict[str, dict[str, Any]]:
    """Set -> what `write_examples` says of it, and how many examples a teacher behind an API answers.

    Args:
        written: training rows that the writer has answered in its place.
        documents: what no answer may give away.
    """
    sizes = {name: write_examples(place / f"{name}.parquet", one.examples) for name, one in encoded.items()}
    if recipe.teacher.is_local:
        return sizes
    write_jsonl(place / WRITTEN, [dict(row) for row in written])
    for name, rows in asked.items():
        sizes[name] |= {"asked": _asked_once(rows, recipe.task), "questions": _sum_of(rows)}
    sizes["train"]["asked"] += len(written)
    sizes["train"]["written"] = _sum_of(written)
    if documents:
        looked_for = [{"task": name, "rows": [dict(row) for row in some]} for name, some in documents.items()]
        write_jsonl(place / DOCUMENTS, looked_for)
        sizes["train"]["looked_for"] = hash_json(looked_for)
    return sizes


def _asked_once(rows: Sequence[Row], task: str) -> int:
    """How many answers there will be: one to a question that writes, however many rows with answers of their own ask it."""
    return len(rows) if task == "classification" else len({hash_json(prompt_of(row)) for row in rows})


def _sum_of(rows: Sequence[Row]) -> str:
    """A sum of which rows these are, what they say, and in which order: one that is changed for a test keeps the clean one's id."""
    return hash_json([{key: value for key, value in row.items() if key in ("id", *CONTENT)} for row in rows])


def _keep_rows(
    encoded: Mapping[str, _Encoded], dropped: Sequence[dict[str, Any]], place: Path
) -> dict[str, list[dict[str, Any]]]:
    """Set -> its rows, of those that results are reported on.  Args: dropped: rows that were left out before they were read."""
    refused = [{**row, "set": name} for name, one in encoded.items() for row in one.refused]
    write_jsonl(place / "dropped.jsonl", [*dropped, *refused])
    held = {name: [dict(row) for row in one.rows] for name, one in encoded.items() if name not in TRAINED_BY}
    for name, rows in held.items():
        write_jsonl(place / f"{name}-rows.jsonl", rows)
    return held


def _unplaced(row: dict[str, Any]) -> dict[str, Any]:
    """What evaluation knows of a row beyond its tokens; the line it stands on changes nothing."""
    return {key: row[key] for key in ("id", "group", "groups") if key in row}


def _keep_by_example(
    recipe: Any, encoded: Mapping[str, _Encoded], task: Task, models: dict[str, Any], place: Path
) -> dict[str, str | None]:
    """What is known of an example beyond its tokens, for those who teach it.  Returns: sums of what decides what it is taught."""
    routes = {key: name for one in encoded.values() for key, name in _routes(one).items()}
    if recipe.teacher.pool and recipe.teacher.pool.by == "column":
        write_json(place / ROUTES, routes)
    contexts = {key: said for one in encoded.values() for key, said in _contexts(one).items()}
    if contexts:
        write_jsonl(place / CONTEXTS, contexts.values())
    if models["tongues"]:
        _keep_messages(encoded, place)
    if namers := namers_of(models):
        pairs = [pair for one in encoded.values() for pair in _paired(one)]
        keep_texts(place / TEXTS, pairs, [prompt for one in namers for prompt in one["prompts"]])
    if isinstance(task, BilingualClassification):
        write_examples(place / READINGS, list(task.readings.values()))
    return {"routes": hash_json(routes), "contexts": hash_json(contexts) if contexts else None}


def _keep_messages(encoded: Mapping[str, _Encoded], place: Path) -> None:
    """The conversations, if there are any: the teacher renders each in its own template."""
    said = {
        key: turns for one in encoded.values() for key, turns in conversations(one.rows, one.examples).items()
    }
    if said:
        write_jsonl(place / MESSAGES, [{"key": key, "messages": turns} for key, turns in said.items()])


def _paired(one: _Encoded) -> list[tuple[Row, Example]]:
    """Each example with its row."""
    rows = {row["id"]: row for row in one.rows}
    return [(rows[example.row], example) for example in one.read]


def _routes(one: _Encoded) -> dict[str, str]:
    """Key of an example -> the member of the panel that its row names."""
    named = {row["id"]: row["teacher"] for row in one.rows if "teacher" in row}
    return {example.key: named[example.row] for example in one.read if example.row in named}


def _contexts(one: _Encoded) -> dict[str, dict[str, str]]:
    """Key of an example -> what only the teacher reads of it, and by which prompt it is found where that is all there is."""
    named = {row["id"]: row["context"] for row in one.rows if "context" in row}
    return {
        example.key: {
            "key": example.key,
            "prompt": prompt_key(
                example.input_ids[: next(n for n, label in enumerate(example.labels) if label >= 0)]
            ),
            "context": named[example.row],
        }
        for example in one.read
        if example.row in named
    }


# ── what later stages read of it ────────────────────────────────────────────────────────────────────────────────────


def fault(place: Path, result: dict[str, Any]) -> str | None:
    """What of the prepared files, or of the fetched models, is gone."""
    models = [
        Path(result[role]["folder"]) for role in ("teacher", "student", "writer", "judge") if result[role]
    ]
    seats = [*(result["panel"] or []), *result["others"], *namers_of(result)]
    models += [Path(member["folder"]) for member in seats if member["folder"] is not None]
    models += [Path(one["folder"]) for one in result["baselines"]["models"].values()]
    wanted = [*models, *(place / f"{name}.parquet" for name in result["sets"])]
    wanted += [place / TEXTS] if namers_of(result) else []
    wanted += [place / CONTEXTS] if result["contexts"] else []
    wanted += [Path(result["tongues"]["student"]["folder"])] if result["tongues"] else []
    wanted += [place / READINGS] if result["tongues"] and result["labels"] else []
    return next((f"{path} is gone" for path in wanted if not path.exists()), None)


def task_of(recipe: Any, facts: dict[str, Any], prepared: Path) -> Task:
    """The task with the student's tokenizer, which usually is the teacher's, and the data's labels.

    Args: prepared: the folder of the stage `prepare`.
    """
    if facts["tongues"]:
        mine, theirs = (
            load_tokenizer(Path(who["folder"])) for who in (facts["tongues"]["student"], facts["teacher"])
        )
        if recipe.task == "classification":
            readings = prepared / READINGS
            return BilingualClassification(mine, theirs, recipe.data.max_length, facts["labels"], readings)
        kept = prepared / MESSAGES
        messages = {row["key"]: row["messages"] for row in read_jsonl(kept)} if kept.exists() else None
        return BilingualLM(mine, theirs, recipe.data.max_length, messages)
    return make_task(
        recipe.task, load_tokenizer(Path(facts["teacher"]["folder"])), recipe.data.max_length, facts["labels"]
    )


def located(folder: str, place: Path) -> Path:
    """A folder that a result names: absolute, or from the run folder."""
    return place.parent / folder

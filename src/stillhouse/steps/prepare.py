"""Rows -> examples on disk, and what the later stages must know of them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..data.augment import augmented, neighbours
from ..data.coverage import coverage
from ..data.encode import Example, write_examples
from ..data.formats import Row, has_answer
from ..data.split import Prepared
from ..errors import DataError, RecipeError
from ..files import hash_json, read_jsonl, write_json, write_jsonl
from ..models.fitting import positions
from ..models.load import load_config, load_tokenizer
from ..progress import Watch
from ..tasks import Task, make_task
from ..tasks.bilingual import BilingualClassification, BilingualLM
from ..tasks.classification import label_order
from ..tasks.context import longest_in_context, prefixes, prompt_key
from .canaries import canary_rows, planted
from .confidence import confidences, least_confidence, sure
from .naming import TEXTS, keep_texts, namers_of
from .questions import named_labels
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
TRAINED_BY = ("train", "validation")
"""Sets that settings or weights are chosen on, and that nothing is reported on."""
EXAMPLE_CHARACTERS = 1500
"""Of one rendered row, shown so that a person sees what the models will read."""


def encode_rows(
    recipe: Any, rows: Prepared, models: dict[str, Any], place: Path, watch: Watch
) -> dict[str, Any]:
    """Rows -> examples on disk.  Returns: what the later stages must know of them."""
    teacher = Path(models["teacher"]["folder"])
    labels = _labels(recipe, rows, teacher, models)
    if labels and models["student"]:
        _check_order("student.model", Path(models["student"]["folder"]), labels)
    for settings, member in zip(recipe.teacher.panel or [], models["panel"] or [], strict=True):
        if settings.lends:
            _check_order(f"teacher.panel: {member['name']}", Path(member["folder"]), labels)
    reader = Path((models["tongues"]["student"] if models["tongues"] else models["teacher"])["folder"])
    task = make_task(recipe.task, load_tokenizer(reader), recipe.data.max_length, labels)
    if models["tongues"] and recipe.task == "classification":
        theirs = load_tokenizer(teacher)
        task = BilingualClassification(task.tokenizer, theirs, recipe.data.max_length, labels)
    train = rows.train + rows.extra + rows.unlabelled
    sets = {
        "train": train,
        "eval": rows.eval,
        **variants(recipe, rows.eval, task, models, place, watch),
        **rows.also,
    }
    dropped, sizes = list(rows.dropped), {}
    shown = ""
    conversations: dict[str, Any] = {}
    routed: dict[str, str] = {}
    contexts: dict[str, dict[str, str]] = {}
    texts: list[tuple[Row, Example]] = []
    asks = any(member.api is not None for member in recipe.teacher.panel or [])  # and otherwise reads
    by_names, asked_of = bool(namers_of(models)), {}
    written = [] if recipe.teacher.is_local else [row for row in train if row.get("written")]
    for name, some in sets.items():
        if name == "train" and written:
            some = [row for row in some if not row.get("written")]
        examples, refused = task.encode(
            [dict(row) for row in some if recipe.teacher.is_local or has_answer(row)]
        )
        if name == "train":
            examples = [task.drawn(example, recipe.seed, 0) for example in examples]
            secrets = canary_rows(recipe, rows.counts["train"]["format"], task)
            some = [*some, *secrets]
        routed |= _routed(some, examples)
        contexts |= _contexts(some, examples)
        if by_names:
            known_rows = {row["id"]: row for row in some}
            texts += [(known_rows[example.row], example) for example in examples]
        if name == "train":
            examples, unsure = _taught(recipe, task, teacher, reader, examples, watch)
            examples += planted(recipe, secrets, task, place, watch)
            refused = [*refused, *unsure]
        if models["tongues"]:
            conversations |= _conversations(some, examples)
        dropped += [{**row, "set": name} for row in refused]
        if name != "train" and recipe.evaluate.rows:
            examples = examples[: recipe.evaluate.rows]
        if recipe.teacher.context is not None:
            said = {one.key: contexts[one.key]["context"] for one in examples if one.key in contexts}
            _refuse_too_long(recipe, said, some, examples, task, models)
        if asks or not recipe.teacher.is_local:
            asked = some if name == "train" else some[: recipe.evaluate.rows]
            known = {example.row for example in examples}
            asked = asked if task.name == "causal_lm" else [row for row in asked if row["id"] in known]
            write_jsonl(place / f"asked-{name}.jsonl", [dict(row) for row in asked])
            asked_of[name] = hash_json([row["id"] for row in asked])
        if recipe.teacher.is_local and not examples:
            why = ", ".join(sorted({row["reason"] for row in refused})) or "too short to learn from"
            raise DataError(
                f"{name}: no row is left to use of {len(some):,} ({why}); raise data.max_length, or give it other rows."
            )
        shown = shown or (_shown(examples[0], task) if examples else "")
        sizes[name] = write_examples(place / f"{name}.parquet", examples)
        if not recipe.teacher.is_local:
            more = len(written) if name == "train" else 0
            sizes[name] |= {"asked": len(asked) + more, "questions": asked_of[name]}
    if not recipe.teacher.is_local:
        write_jsonl(place / WRITTEN, [dict(row) for row in written])
        sizes["train"]["written"] = hash_json([row["id"] for row in written])
    if recipe.teacher.pool and recipe.teacher.pool.by == "column":
        write_json(place / ROUTES, routed)
    if contexts:
        write_jsonl(place / CONTEXTS, contexts.values())
    if conversations:
        write_jsonl(place / MESSAGES, [{"key": key, "messages": conversations[key]} for key in conversations])
    if namers := namers_of(models):
        keep_texts(place / TEXTS, texts, [prompt for one in namers for prompt in one["prompts"]])
    if isinstance(task, BilingualClassification):
        write_examples(place / READINGS, list(task.readings.values()))
    write_jsonl(place / "dropped.jsonl", dropped)
    held = {name: [dict(row) for row in some] for name, some in sets.items() if name not in TRAINED_BY}
    for name, plain in held.items():
        write_jsonl(place / f"{name}-rows.jsonl", plain)
    return {
        "labels": labels,
        "sets": sizes,
        "evaluated": list(held),
        "held_out": hash_json([[_unplaced(row) for row in some] for some in held.values()]),
        "validation": sizes.get("validation"),
        "unlabelled": len(rows.unlabelled),
        "counts": rows.counts,
        "routes": hash_json(routed),
        "asked": asked_of if asks else None,
        "contexts": hash_json(contexts) if contexts else None,
        "coverage": coverage(train, [row for row in train if row["id"] in rows.written], _tests(rows)),
        "example": shown,
    }


def _taught(
    recipe: Any, task: Task, teacher: Path, reader: Path, examples: list[Example], watch: Watch
) -> tuple[list[Example], list[dict[str, Any]]]:
    """(training examples and those made of them, those among them that the teacher is too unsure of)"""
    if recipe.data.augment is not None:
        made = _augmented(recipe, task, reader, examples)
        watch.note(f"  augment: {len(made):,} rows made of the training rows")
        examples = [*examples, *made]
    least = least_confidence(recipe)
    if (
        least is None or not recipe.teacher.is_ready
    ):  # whom the run makes or hears first is asked by the stage `label`
        return examples, []
    examples, unsure = sure(examples, least, confidences(examples, task, teacher, BATCH, watch), task)
    watch.note(f"  the teacher is unsure of {len(unsure):,} rows, which are left out")
    return examples, unsure


def _tests(rows: Prepared) -> dict[str, list[Row]]:
    return {"eval": rows.eval, **rows.also}


def _unplaced(row: dict[str, Any]) -> dict[str, Any]:
    """What evaluation knows of a row beyond its tokens; the line it stands on changes nothing."""
    return {key: row[key] for key in ("id", "group", "groups") if key in row}


def _augmented(recipe: Any, task: Task, reader: Path, examples: list[Example]) -> list[Example]:
    """New rows of the labelled ones; words are neighbours where the embeddings of whoever reads these tokens say so: the
    teacher's, as a rule."""
    embeddings = task.load(reader, head_seed=0).get_input_embeddings().weight.detach()
    labelled = [example for example in examples if example.labels[0] >= 0]
    near = neighbours(embeddings, examples, task.tokenizer)
    most = recipe.data.max_length
    return list(augmented(labelled, recipe.data.augment, near, task.tokenizer, recipe.seed, most))


def _conversations(rows: Sequence[Any], examples: list[Example]) -> dict[str, Any]:
    """Key of an example -> the conversation that it was made from: the teacher renders it in its own template."""
    said = {row["id"]: row["messages"] for row in rows if "messages" in row}
    return {example.key: said[example.row] for example in examples if example.row in said}


def _routed(rows: Sequence[Any], examples: list[Example]) -> dict[str, str]:
    """Key of an example -> the member of the panel that its row names."""
    named = {row["id"]: row["teacher"] for row in rows if "teacher" in row}
    return {example.key: named[example.row] for example in examples if example.row in named}


def _contexts(rows: Sequence[Any], examples: list[Example]) -> dict[str, dict[str, str]]:
    """Key of an example -> what only the teacher reads of it, and by which prompt it is found where that is all there is."""
    named = {row["id"]: row["context"] for row in rows if "context" in row}
    return {
        example.key: {
            "key": example.key,
            "prompt": prompt_key(
                example.input_ids[: next(n for n, label in enumerate(example.labels) if label >= 0)]
            ),
            "context": named[example.row],
        }
        for example in examples
        if example.row in named
    }


def _refuse_too_long(
    recipe: Any,
    contexts: dict[str, str],
    rows: Sequence[Any],
    examples: list[Example],
    task: Task,
    models: dict[str, Any],
) -> None:
    """Raises: DataError for a row that does not fit the teacher after its context: `data.max_length` bounds what the student reads.

    Args: contexts: by example, where a column has them.
    """
    teachers = [Path(one["folder"]) for one in models["panel"] or [models["teacher"]] if one["folder"]]
    most = min((n for n in map(positions, teachers) if n is not None), default=None)
    if most is None:
        return
    fixed = None if recipe.teacher.context_column else prefixes(task.tokenizer, recipe.teacher.context)
    for example in examples:
        read = fixed or prefixes(task.tokenizer, contexts[example.key])
        if (length := longest_in_context(example, *read)) > most:
            where = next((row["where"] for row in rows if row["id"] == example.row), example.row)
            raise DataError(
                f"{where}: takes {length} tokens after its teacher.context, and the teacher reads {most} at most; shorten the "
                "context, lower data.max_length, or use a teacher that reads more."
            )


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


def _labels(recipe: Any, rows: Prepared, teacher: Path, models: dict[str, Any]) -> list[str]:
    if recipe.task != "classification":
        return []
    labels = sorted({row["label"] for row in rows.train if row.get("label") is not None})
    if recipe.teacher.takes_bare_rows:
        lender = teacher if models["student"] else None
        return named_labels(labels, recipe.teacher.label_words, lender, recipe.teacher.labels_field)
    named = recipe.teacher.label_words
    if named and set(named) != set(labels):
        raise DataError(
            f"{recipe.teacher.labels_field}: names {', '.join(sorted(named))}, and the data's labels are {', '.join(labels)}; "
            "name these."
        )
    if len(labels) < 2:
        raise DataError(
            f"data.train: has only the label {', '.join(labels)!r}; a classifier needs at least two."
        )
    return labels if recipe.teacher.finetune else label_order(teacher, labels)


def _check_order(who: str, folder: Path, labels: list[str]) -> None:
    """Refuse a model that was trained on these labels in another order: it would be read upside down."""
    named = load_config(folder).id2label or {}
    names = [str(named[number]) for number in sorted(named, key=int)]
    if sorted(names) == sorted(labels) and names != labels:
        raise RecipeError(
            f"{who}: its labels are in the order {', '.join(names)}, and the teacher's {', '.join(labels)}; "
            "swap them in its config.json and its head, or take a model without a head."
        )


def _shown(example: Example, task: Task) -> str:
    text = str(task.tokenizer.decode(example.input_ids))
    label = f"  →  {task.labels[example.labels[0]]}" if task.labels and example.labels[0] >= 0 else ""
    return (text if len(text) <= EXAMPLE_CHARACTERS else text[:EXAMPLE_CHARACTERS] + " …") + label

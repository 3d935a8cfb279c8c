"""Tasks of the lm-evaluation-harness, by name or from a YAML file, read by teacher, student and control.

The harness (Gao et al., https://github.com/EleutherAI/lm-evaluation-harness) asks and scores; what it found for each
document is kept in the run folder (harness-<model>.json), so that a stopped evaluation goes on, and the models are compared
on the same documents.  `documents` are what `data.filter` looks for in training rows, before any model is asked.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .data.filters.contamination import SHORT
from .data.filters.texts import letters
from .data.formats import Row
from .errors import RecipeError
from .files import hash_json, read_json, write_json
from .kept import harness_path
from .measure import Metric, Rows, difference, document_metric, document_rows, family, interval
from .models.machine import device
from .progress import Watch
from .recipe import Harness
from .registry import require
from .static import harness_task
from .tasks import Task

Scores = dict[str, dict[str, list[float]]]
"""Task -> metric -> one number a document, in the harness's own order."""


def harness(
    folders: dict[str, Path],
    task: Task,
    wanted: Harness | None,
    place: Path,
    watch: Watch,
    *,
    batch_size: int,
    resamples: int,
    seed: int,
) -> list[dict[str, Any]] | None:
    """[{"task", "metric", "documents", "higher_is_better", "models": {name: interval}, "gain": difference | None}].

    Metrics that the harness takes as means over documents only: others have no value for one of them.  `gain` is the student
    less the control; all of them share one error rate (see `family`).  Raises: RecipeError for a task that it does not know or cannot read.
    """
    if wanted is None:
        return None
    names: list[str] = [name for name in ("teacher", "student", "hard_only") if name in folders]
    found: dict[str, Scores] = {}
    directions: dict[str, dict[str, bool]] = {}
    for name in names:
        kept = harness_path(place, name)
        if not kept.exists():
            watch.note(f"  {name}: {', '.join(wanted.tasks)} by the lm-evaluation-harness")
            write_json(kept, _asked(folders[name], task, wanted, batch_size, seed))
        said = read_json(kept)
        found[name], directions = said["scores"], said["higher_is_better"]
    lines = []
    for kind, metrics in found["student"].items():
        for each, values in metrics.items():
            metric = document_metric(each, directions[kind].get(each, True))
            rows: dict[str, Rows] = {name: document_rows(found[name][kind][each]) for name in names}
            lines.append(
                {
                    "task": kind,
                    "metric": each,
                    "documents": len(values),
                    "higher_is_better": metric.higher_is_better,
                    **_compared(metric, rows, resamples, seed),
                }
            )
    gains = {f"{number}": one["gain"] for number, one in enumerate(lines) if one["gain"] is not None}
    allowed = family(gains)
    return [{**one, "gain": allowed.get(f"{number}")} for number, one in enumerate(lines)]


def _compared(metric: Metric, rows: dict[str, Rows], resamples: int, seed: int) -> dict[str, Any]:
    models = {
        name: interval(metric, each, resamples=resamples, seed=seed).as_json() for name, each in rows.items()
    }
    gain = None
    if "hard_only" in rows:
        gain = difference(
            metric, rows["student"], rows["hard_only"], resamples=resamples, seed=seed
        ).as_json()
    return {"models": models, "gain": gain}


def _asked(folder: Path, task: Task, wanted: Harness, batch_size: int, seed: int) -> dict[str, Any]:
    """What one model scores."""
    purpose = "evaluate.harness"
    require("lm_eval", purpose)
    from lm_eval import evaluator, simple_evaluate
    from lm_eval.models.huggingface import HFLM

    # it describes the machine by a dozen commands, some seconds for each model, and git complains where the run is in no repository
    evaluator.get_git_commit_hash = lambda: None
    evaluator.add_env_info = lambda results: None
    manager = _manager(wanted.tasks)
    tasks = [harness_task(name) for name in wanted.tasks]
    model = task.load(folder).to(device())
    try:
        found: Any = simple_evaluate(
            model=HFLM(pretrained=model, tokenizer=task.tokenizer, batch_size=batch_size),
            tasks=list(tasks),
            task_manager=manager,
            num_fewshot=wanted.fewshot,
            limit=wanted.limit,
            apply_chat_template=wanted.chat,
            bootstrap_iters=0,  # intervals are ours, paired
            random_seed=seed,
            numpy_random_seed=seed,
            torch_random_seed=seed,
            fewshot_random_seed=seed,
            log_samples=True,
        )
    except Exception as error:  # its own, of datasets, of the hub, of a task's own functions
        raise _unread(tasks, error) from error
    scores = {kind: by_document(samples) for kind, samples in found["samples"].items()}
    if not any(scores.values()):
        raise RecipeError(
            f"{purpose}.tasks: {', '.join(tasks)} have no metric that is a mean over documents."
        )
    asked = {kind: documents_of(samples) for kind, samples in found["samples"].items()}
    return {"scores": scores, "documents": asked, "higher_is_better": found["higher_is_better"]}


def _manager(names: Sequence[str]) -> Any:
    """What knows the harness's own tasks, if one of them is named, and those in the folders of YAML files."""
    from lm_eval.tasks import TaskManager

    files = [Path(name) for name in names if _in_file(name)]
    return TaskManager(
        include_path=sorted({str(path.parent.resolve()) for path in files}),
        include_defaults=len(files) < len(names),
    )


def _in_file(name: str) -> bool:
    return name.endswith((".yaml", ".yml"))


def _unread(tasks: Sequence[str], error: Exception) -> RecipeError:
    return RecipeError(
        f"evaluate.harness.tasks: {', '.join(tasks)}: {_why(error)}; "
        "name tasks that `lm_eval ls tasks` lists, or YAML files whose data can be read."
    )


def _why(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"


# ── what is looked for in training rows ─────────────────────────────────────────────────────────────────────────────


def documents(names: Sequence[str], length: int, watch: Watch) -> dict[str, list[Row]]:
    """Task -> the texts of its documents, as rows that nobody reads; all of them, whatever `evaluate.harness.limit` is.

    A task by name whose data are neither on this machine nor to be fetched is left out with a note (see `left_out`).
    Args: length: letters of the windows in which training rows are compared.
    Raises: RecipeError for a YAML file whose documents cannot be read.
    """
    found: dict[str, list[Row]] = {}
    for name in names:
        require("lm_eval", "evaluate.harness")
        called = harness_task(name)
        try:
            tasks = _manager([name]).load([called])["tasks"].values()
            found[called] = [
                row for one in tasks for doc in one.eval_docs for row in _rows_of(one, doc, length)
            ]
        except Exception as error:  # its own, of datasets, of the hub, of a task's own functions
            if _in_file(name):
                raise _unread([called], error) from error
            watch.note(f"  not looked for: {called} ({_why(error)})")
        else:
            watch.note(f"  {called}: {len(found[called]):,} texts, which no training row may give away")
    return found


def left_out(names: Sequence[str], found: Mapping[str, Any]) -> list[str]:
    """The tasks that `documents` could not read."""
    return [called for called in map(harness_task, names) if called not in found]


def _rows_of(task: Any, doc: dict[str, Any], length: int) -> list[Row]:
    """A document's prompt and answer, what there is to choose from, and its short questions without the words around them.

    All have the document's `id`, and its passage as their `group`: the longest field of its prompt that has a window and is no
    question.  A question is a field that says so by its name or a question mark, or else the longest; one that has a window is
    found by the prompt's.  Other fields are not looked for alone: in many tasks they are choices, such as the name of a country.
    """
    choices = task.doc_to_choice(doc) if task.config.doc_to_choice is not None else []
    asked, answer = (_said(one, choices) for one in (task.doc_to_text(doc), task.doc_to_target(doc)))
    rows: list[Row] = [{"prompt": asked, "completion": answer}]
    if choices:
        rows.append({"text": _said(choices, choices)})
    whole = letters(asked)
    sizes = {
        name: len(said)
        for name, value in doc.items()
        if isinstance(value, str) and len(said := letters(value)) >= SHORT and said in whole
    }
    longest = [max(sizes, key=lambda name: sizes[name])] if sizes else []
    asking = [name for name in sizes if _asks(name, doc[name], asked)]
    rows += [{"text": doc[name]} for name in asking or longest if sizes[name] < length]
    same: Row = {"id": hash_json([asked, answer])[:16]}
    passages = [name for name in sizes if sizes[name] >= length and name not in asking]
    if passages:
        same["group"] = hash_json(letters(doc[max(passages, key=lambda name: sizes[name])]))[:16]
    return [{**row, **same} for row in rows]


def _asks(name: str, value: str, prompt: str) -> bool:
    """Whether a field of a document is a question, with a mark of its own or of the task's."""
    return (
        "question" in name.lower()
        or value.strip().endswith(("?", "？", "؟"))
        or f"{value.strip()}?" in prompt
    )


def _said(value: Any, choices: Sequence[str]) -> str:
    """A text of the harness: one as it stands, several, or the number of a choice."""
    if isinstance(value, list | tuple):
        return "\n".join(_said(one, choices) for one in value)
    return str(choices[value] if isinstance(value, int) and choices else value)


def documents_of(samples: Sequence[dict[str, Any]]) -> list[str]:
    """A sum of each document with its prompt and its answer, in the order of `by_document`: what two runs must share to be compared."""
    first = [sample for sample in samples if sample["filter"] == samples[0]["filter"]]
    return [
        hash_json([sample[key] for key in ("doc_hash", "prompt_hash", "target_hash")])[:16]
        for sample in first
    ]


def by_document(samples: Iterable[dict[str, Any]]) -> dict[str, list[float]]:
    """Metric (and filter, where there is one) -> its value for each document, of those that are plain numbers."""
    found: dict[str, list[float]] = {}
    for sample in samples:
        for metric in sample["metrics"]:
            value = sample[metric]
            if isinstance(value, (bool, int, float, np.number)):
                name = metric if sample["filter"] == "none" else f"{metric} ({sample['filter']})"
                found.setdefault(name, []).append(float(value))
    return found

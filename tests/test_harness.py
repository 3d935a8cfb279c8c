"""Tasks of the lm-evaluation-harness: the library itself, on a tiny model and a task in a YAML file."""

import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

import stillhouse.harness
import tiny
from stillhouse.data.filters.contamination import contaminated
from stillhouse.data.split import Prepared
from stillhouse.errors import RecipeError
from stillhouse.harness import by_document, documents, documents_of, harness, left_out
from stillhouse.harness_files import files_of
from stillhouse.models.load import load_tokenizer
from stillhouse.pipeline import run_pipeline, settings_of
from stillhouse.progress import Silent
from stillhouse.recipe import Harness, parse_recipe
from stillhouse.stages import STAGES
from stillhouse.static import harness_task, static_checks
from stillhouse.steps.reading import read_rows
from stillhouse.steps.writing import Desk
from stillhouse.tasks import make_task

QUESTIONS = [
    ("the cat", [" sat", " barked"], 0),
    ("the dog", [" sat", " barked"], 1),
    ("the sun", [" is hot", " is cold"], 0),
    ("the ice", [" is hot", " is cold"], 1),
    ("a bird", [" sings", " swims"], 0),
]


def task_file(folder: Path, name: str = "rainbow") -> Path:
    """A multiple-choice task of five questions."""
    rows = [dict(zip(("question", "choices", "answer"), each, strict=True)) for each in QUESTIONS]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = folder / f"{name}.yaml"
    path.write_text(
        f"""task: {name}  # ours
dataset_path: json
dataset_kwargs: {{data_files: {folder / "rows.jsonl"}}}
test_split: train
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: "{{{{answer}}}}"
metric_list: [{{metric: acc}}, {{metric: acc_norm}}]
"""
    )
    return path


def asked(folder: Path, **wanted: Any) -> Any:
    teacher = tiny.save_language_model(folder / "teacher")
    task = make_task("causal_lm", load_tokenizer(teacher), 48)
    folders = dict.fromkeys(("teacher", "student", "hard_only"), teacher)
    return harness(
        folders, task, Harness(**wanted), folder, Silent(), batch_size=2, resamples=200, seed=0
    ), task


def test_a_task_in_a_file_gives_what_the_harness_itself_gives(tmp_path: Path) -> None:
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    path = task_file(tmp_path)
    found, task = asked(tmp_path, tasks=[str(path)])
    model = HFLM(pretrained=task.load(tmp_path / "teacher"), tokenizer=task.tokenizer, batch_size=1)
    manager = TaskManager(include_path=str(tmp_path), include_defaults=False)
    theirs = simple_evaluate(model=model, tasks=["rainbow"], task_manager=manager, bootstrap_iters=0)
    values = theirs["results"]["rainbow"]
    assert {one["metric"] for one in found} == {"acc", "acc_norm"}
    for one in found:
        assert one["documents"] == len(QUESTIONS)
        for model_name in ("teacher", "student", "hard_only"):
            assert one["models"][model_name]["value"] == pytest.approx(
                values[f"{one['metric']},none"], abs=1e-9
            )
        assert one["gain"]["value"] == 0.0, "the same model three times"
    kept = json.loads((tmp_path / "harness-teacher.json").read_text())
    assert len(set(kept["documents"]["rainbow"])) == len(QUESTIONS)
    for other in ("student", "hard_only"):
        assert json.loads((tmp_path / f"harness-{other}.json").read_text())["documents"] == kept["documents"]
    kept["scores"]["rainbow"]["acc"] = [1.0] * len(QUESTIONS)
    (tmp_path / "harness-teacher.json").write_text(json.dumps(kept))
    again, _ = asked(tmp_path, tasks=[str(path)])
    assert again[0]["models"]["teacher"]["value"] == 1.0, "what was asked is not asked again"


def kept(folder: Path, name: str, scores: dict[str, list[float]]) -> None:
    """What a model scored, as an evaluation that was stopped has it: one metric a task."""
    found = {
        "scores": {task: {"acc": values} for task, values in scores.items()},
        "higher_is_better": {task: {"acc": True} for task in scores},
    }
    (folder / f"harness-{name}.json").write_text(json.dumps(found))


def test_all_gains_share_one_error_rate_however_the_tasks_are_cut(tmp_path: Path) -> None:
    """Ten documents of twelve are beyond chance in one task, and not in one of ten; twenty of twenty are."""
    level, weak, sure = [1.0, 0.0] * 10, [1.0] * 10 + [0.0] * 2 + [1.0] * 8, [1.0] * 20
    weak_control = [0.0] * 10 + [1.0] * 2 + [1.0] * 8
    student = {"weak": weak, "sure": sure} | {f"level {n}": level for n in range(8)}
    control = {"weak": weak_control, "sure": [0.0] * 20} | {f"level {n}": level for n in range(8)}

    def gains(names: list[str]) -> dict[str, Any]:
        for model, scores in (("student", student), ("hard_only", control)):
            kept(tmp_path, model, {name: scores[name] for name in names})
        folders = dict.fromkeys(("student", "hard_only"), tmp_path)
        wanted = Harness(tasks=["x"])
        lines = harness(
            folders, cast(Any, None), wanted, tmp_path, Silent(), batch_size=1, resamples=4000, seed=0
        )
        return {one["task"]: one["gain"] for one in lines or []}

    alone, among = gains(["weak"])["weak"], gains(list(student))
    assert alone["better"] is True
    assert among["weak"]["p"] == alone["p"]
    assert among["weak"]["p_holm"] == pytest.approx(9 * alone["p"])
    assert among["weak"]["better"] is None
    assert among["sure"]["better"] is True
    assert among["level 0"]["p_holm"] == 1.0


def test_only_numbers_of_one_document_are_compared_and_filters_are_told_apart() -> None:
    samples = [
        {"metrics": ["acc", "perplexity"], "acc": True, "perplexity": (1.0, 2), "filter": "none"},
        {"metrics": ["exact"], "exact": 0.5, "filter": "strict"},
    ]
    assert by_document(samples) == {"acc": [1.0], "exact (strict)": [0.5]}


def test_a_document_is_known_by_what_was_asked_and_counted_once_for_all_filters() -> None:
    sums = {"doc_hash": "d", "target_hash": "t"}
    samples = [
        {**sums, "filter": name, "prompt_hash": f"{number}"}
        for name in ("strict", "loose")
        for number in range(3)
    ]
    assert len(set(documents_of(samples))) == len(documents_of(samples)) == 3
    changed = [{**one, "prompt_hash": "with two examples before it"} for one in samples[:3]]
    assert not set(documents_of(changed)) & set(documents_of(samples))


def test_an_unknown_task_is_one_sentence(tmp_path: Path) -> None:
    path = task_file(tmp_path)
    path.write_text(path.read_text().replace("rows.jsonl", "gone.jsonl"))
    with pytest.raises(RecipeError, match=r"evaluate\.harness\.tasks: rainbow: .*YAML files"):
        asked(tmp_path, tasks=[str(path)])


def test_a_file_that_is_not_there_or_names_no_task_is_found_before_anything_runs(tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").write_text("dataset_path: json\n")
    values = tiny.language_recipe(tmp_path)
    for name, said in (("gone.yaml", "not there"), ("empty.yaml", "no line `task: name`")):
        recipe = parse_recipe({**values, "evaluate": {"harness": {"tasks": [str(tmp_path / name)]}}})
        with pytest.raises(RecipeError, match=said):
            static_checks(recipe, tmp_path)
    assert harness_task(str(task_file(tmp_path))) == "rainbow"
    assert harness_task("arc_easy") == "arc_easy"


def test_another_task_in_the_same_file_is_another_evaluation(tmp_path: Path) -> None:
    path = task_file(tmp_path)
    values = tiny.language_recipe(tmp_path)
    recipe = parse_recipe({**values, "evaluate": {"harness": {"tasks": [str(path)]}}})
    stage = next(stage for stage in STAGES if stage.name == "evaluate")
    assert stage.stamp is not None
    before = stage.stamp(recipe)
    path.write_text(path.read_text().replace("acc_norm", "acc_mutual_info"))
    assert stage.stamp(recipe) != before


# ── its documents in training rows ──────────────────────────────────────────────────────────────────────────────────

ASKED = [
    ("Which of the seven hills lies nearest to the old river?", ["the Aventine", "the Caelian"], 0),
    ("Who wrote down the long song of the blind ferryman?", ["his daughter", "nobody at all"], 1),
    ("Why does a kettle sing before its water boils?", ["small bubbles collapse", "steam is bored"], 0),
]


def long_task(folder: Path) -> Path:
    """The task with longer questions, in words around them."""
    path = task_file(folder)
    rows = [dict(zip(("question", "choices", "answer"), each, strict=True)) for each in ASKED]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    said = path.read_text()
    path.write_text(said.replace('"{{question}}"', '"Question: {{question}}\\nAnswer:"'))
    return path


def searched(folder: Path, texts: list[str], filter: dict[str, Any] | None, **evaluate: Any) -> Prepared:
    """The rows of a recipe whose training rows are its own and `texts`."""
    values = cast(Any, tiny.language_recipe(folder))
    own = [{"text": text} for text in tiny.sentences(60)]
    rows = [*own, *({"text": text} for text in texts)]
    (folder / "text.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    values["data"] |= {"filter": filter, "eval": {"source": str(folder / "other.jsonl")}}
    values["data"].pop("split")
    values["evaluate"] = {**evaluate}
    return read_rows(parse_recipe(values), Silent())[0]


PLANTED = [
    "Question: Which of the seven hills lies nearest to the old river?\nAnswer: the Aventine",
    "QUESTION -- who wrote down; the LONG song of the blind Ferryman... answer, nobody AT ALL",
    "He asked: why does a KETTLE sing, before its water boils?  I did not know.",
]
INNOCENT = "Question: Which of the seven kettles lies nearest to the blind ferryman?"


def test_rows_that_give_away_a_document_of_a_task_are_dropped_with_its_name(tmp_path: Path) -> None:
    """Verbatim, in other case and punctuation, and the question alone inside another text."""
    wanted = {"tasks": [str(long_task(tmp_path))]}
    found = searched(tmp_path, [*PLANTED, INNOCENT], {}, harness=wanted)
    lost = {row["text"]: row["reason"] for row in found.dropped if "text" in row}
    assert lost == dict.fromkeys(PLANTED, "contains rainbow")
    assert INNOCENT in {row["text"] for row in found.train}
    without = searched(tmp_path, [*PLANTED, INNOCENT], {})
    assert {row["text"] for row in without.train} - {row["text"] for row in found.train} == set(PLANTED)


@pytest.mark.parametrize("filter", [None, {"contamination": None, "min_words": 1}])
def test_where_nobody_looks_for_contamination_no_task_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, filter: dict[str, Any] | None
) -> None:
    def loaded(*_: Any) -> None:
        raise AssertionError("the harness was imported")

    monkeypatch.setattr(stillhouse.harness, "require", loaded)
    found = searched(tmp_path, PLANTED, filter, harness={"tasks": [str(long_task(tmp_path))]})
    assert set(PLANTED) <= {row["text"] for row in found.train}


def test_what_a_model_writes_may_give_away_no_document_either(tmp_path: Path) -> None:
    path = str(long_task(tmp_path))
    values = cast(Any, tiny.language_recipe(tmp_path))
    values["data"]["generate"] = [{"kind": "paraphrase"}]
    recipe = parse_recipe({**values, "evaluate": {"harness": {"tasks": [path]}}})
    assert recipe.looked_for == [path], "what is written is always searched"
    rows = Prepared([], [], [], {}, [], {}, documents=documents([path], 50, Silent()))
    new: list[Any] = [{"id": text, "where": "w", "text": text} for text in (*PLANTED, INNOCENT)]
    reasons: Counter[str] = Counter()
    desk = SimpleNamespace(recipe=recipe, drop=lambda where, reason, row: reasons.update([reason]))
    assert [row["text"] for row in Desk.sifted(cast(Any, desk), new, [], rows)] == [INNOCENT]
    assert reasons == {"contains rainbow": 3}


def test_a_task_by_name_that_cannot_be_fetched_is_left_out_with_a_note(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = stillhouse.harness._manager

    def offline(names: list[str]) -> Any:
        if names == ["arc_easy"]:
            raise ConnectionError("the hub is not to be reached\nat all")
        return known(names)

    monkeypatch.setattr(stillhouse.harness, "_manager", offline)
    notes: list[str] = []
    watch = Silent()
    monkeypatch.setattr(watch, "note", notes.append)
    found = documents(["arc_easy", str(long_task(tmp_path))], 50, watch)
    assert list(found) == ["rainbow"]
    assert notes[0] == "  not looked for: arc_easy (ConnectionError: the hub is not to be reached)"
    assert left_out(["arc_easy", str(tmp_path / "rainbow.yaml")], found) == ["arc_easy"]


def test_a_file_whose_data_are_gone_is_told_before_anything_is_trained(tmp_path: Path) -> None:
    path = long_task(tmp_path)
    path.write_text(path.read_text().replace("rows.jsonl", "gone.jsonl"))
    with pytest.raises(RecipeError, match=r"evaluate\.harness\.tasks: rainbow: .*YAML files"):
        documents([str(path)], 50, Silent())


def test_rows_are_prepared_anew_when_a_tasks_data_change_and_not_for_tasks_that_nobody_looks_for(
    tmp_path: Path,
) -> None:
    path = long_task(tmp_path)
    values = cast(Any, tiny.language_recipe(tmp_path))
    stage = next(stage for stage in STAGES if stage.name == "prepare")
    assert stage.stamp is not None

    def with_(filter: dict[str, Any] | None, **evaluate: Any) -> Any:
        return parse_recipe({**values, "data": {**values["data"], "filter": filter}, "evaluate": evaluate})

    bare, asked = with_(None), with_(None, harness={"tasks": [str(path)]})
    assert settings_of(stage, asked) == settings_of(stage, bare)
    assert stage.stamp(asked) == stage.stamp(bare)
    sifted, searched = with_({}), with_({}, harness={"tasks": [str(path)], "limit": 3})
    assert {*settings_of(stage, sifted)} == {*stage.reads}, "older runs stay as they are"
    assert settings_of(stage, searched)["looked_for"] == [str(path)]
    before = stage.stamp(searched)
    (tmp_path / "rows.jsonl").write_text((tmp_path / "rows.jsonl").read_text() * 2)
    assert stage.stamp(searched) != before


# ── which of its texts are looked for ───────────────────────────────────────────────────────────────────────────────

PASSAGE = "Along the old river the ferryman kept nine geese, and every evening the smallest of them counted the others."
GEESE = "How many geese did the ferryman keep?"


def looked_for(text: str, choices: list[str] | None = None, **doc: Any) -> list[Any]:
    """What is made of one document of a task that asks so."""
    said = text.format(**{name: str(value).strip() for name, value in doc.items()})
    task = SimpleNamespace(
        config=SimpleNamespace(doc_to_choice=choices),
        doc_to_choice=lambda doc: choices,
        doc_to_text=lambda doc: said,
        doc_to_target=lambda doc: 0 if choices else "nine",
    )
    return stillhouse.harness._rows_of(task, doc, 50)


@pytest.mark.parametrize(
    ("text", "doc"),
    [
        ("{question}\nAnswer:", {"question": GEESE}),
        ("{question}\nAnswer:", {"question": f"  {GEESE} \n"}),  # as in MMLU: the task strips it
        ("{passage}\nQ: {question}\nA:", {"passage": PASSAGE, "question": f"{GEESE} "}),
        ("{passage}\nQ: {asks}\nA:", {"passage": PASSAGE, "asks": GEESE}),
        ("{passage}\nQ: {asks}?\nA:", {"passage": PASSAGE, "asks": GEESE.rstrip("?")}),  # as in BoolQ
        ("{passage}\nQ: {question}\nA:", {"passage": PASSAGE, "question": "Count the ferryman's geese."}),
        ("Finish: {start}", {"start": "The ferryman kept as many as"}),
    ],
)
def test_a_short_question_is_looked_for_alone_beside_a_longer_passage_and_without_the_spaces_of_the_data(
    text: str, doc: dict[str, str]
) -> None:
    rows = looked_for(text, **doc, id="not in the prompt, and longer than any question")
    assert [row["text"] for row in rows[1:]] == [list(doc.values())[-1]]
    assert contaminated([{"text": f"He asked: {rows[1]['text'].upper()}"}], {"geese": rows}, 50) == ["geese"]


def test_a_choice_is_not_looked_for_alone() -> None:
    """As in MedMCQA, whose choices are fields; a row that only names one gives nothing away."""
    doc = {
        "question": "Which of all of these is it, then?",
        "a": "The United States of America",
        "b": "Nobody at all",
    }
    rows = looked_for("{question}\nA. {a}\nB. {b}\nAnswer:", ["A", "B"], **doc)
    assert [row["text"] for row in rows[1:]] == ["A\nB", doc["question"]]
    assert contaminated([{"text": "He sailed to the United States of America."}], {"x": rows}, 50) == [None]


def test_the_rows_of_a_document_are_one_and_those_about_a_passage_are_a_group() -> None:
    text = "{passage}\nQ: {question}\nA:"
    one, other, elsewhere = (
        looked_for(text, passage=passage, question=question)
        for passage, question in (
            (PASSAGE, GEESE),
            (f"{PASSAGE} ", "Who counted them every evening?"),
            (PASSAGE[::-1], GEESE),
        )
    )
    assert len(one) == 2 and len({row["id"] for row in one}) == 1 and one[0]["id"] != other[0]["id"]
    assert {row["group"] for row in [*one, *other]} == {one[0]["group"]} != {elsewhere[0]["group"]}
    long = f"{GEESE[:-1]}, and how many of them did the fox take in the winter before the last one of the great floods?"
    assert looked_for(text, passage=PASSAGE, question=long)[0]["group"] == one[0]["group"], (
        "a longer question"
    )
    assert "group" not in looked_for("{question}", question=long)[0]


def test_a_passage_that_many_questions_of_a_small_task_are_about_is_found() -> None:
    """Six questions to each of fifteen passages: seven documents in a hundred share one, and all of them a template."""
    sentences = tiny.sentences(400, seed=5)
    passages = [" ".join(sentences[n : n + 4]) for n in range(0, 40, 4)]
    text = "Read what is written here, and say whether it is so.\n{passage}\nQuestion: {question}\nAnswer:"
    docs = [
        {"passage": passage, "question": f"{sentences[200 + 6 * number + one]} {one}? "}
        for number, passage in enumerate(passages)
        for one in range(6)
    ]
    rows = [row for doc in docs for row in looked_for(text, ["yes", "no"], **doc)]
    others = [text.format(passage=said, question=said[:9]) for said in tiny.sentences(6, seed=6)]
    own = [*tiny.sentences(60), *others]
    planted = [f"Once more: {passages[3].upper()}", f"Who knows {docs[7]['question']}"]
    train: list[Any] = [{"text": said} for said in [*own, *planted]]
    assert contaminated(train, {"rainbow": rows}, 50) == [None] * len(own) + ["rainbow"] * 2


def test_a_run_remembers_which_tasks_it_did_not_look_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The data may be there by the time the models are asked about them."""
    monkeypatch.setattr(stillhouse.harness, "require", lambda *_: None)
    monkeypatch.setattr(stillhouse.harness, "_manager", lambda names: _offline())
    values = cast(Any, tiny.language_recipe(tmp_path))
    values["data"]["filter"] = {}
    values["evaluate"] |= {"harness": {"tasks": ["arc_easy"]}}
    place = tmp_path / "run"
    facts = run_pipeline(parse_recipe(values), STAGES, place, Silent(), until="prepare")["prepare"]
    assert facts["not_looked_for"] == ["arc_easy"]


def _offline() -> Any:
    raise ConnectionError("the hub is not to be reached")


# ── the files behind a task ─────────────────────────────────────────────────────────────────────────────────────────


def behind(folder: Path) -> dict[str, Path]:
    """A task that includes others, with functions of its own and data in a file, a folder and a pattern; its files by what they are."""
    said = {
        "task.yaml": "task: rainbow\ninclude: [base.yml]\ndoc_to_text: !function utils.asked\ntest_split: test\n"
        f"dataset_kwargs: {{data_files: {{test: '{folder}/rows.jsonl', more: '{folder}/parts/*.csv'}}, field: test, name: ''}}\n",
        "base.yml": f"include: deeper/leaf.yaml\ndataset_path: {folder}/rows\nmetadata: {{words: words.txt}}\n",
        "deeper/leaf.yaml": "include: ../task.yaml\nprocess_docs: !function 'tools.clean.docs'\n",
        "utils.py": "", "deeper/tools/clean.py": "", "rows.jsonl": "", "parts/1.csv": "", "rows/a/1.json": "", "words.txt": "",
    }  # fmt: skip
    for name, text in said.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return {name: folder / name for name in said}


def test_every_file_behind_a_task_counts_and_none_that_only_has_a_name_in_it(tmp_path: Path) -> None:
    files = behind(tmp_path)
    for name in ("rows/.cache/x", "rows/__pycache__/utils.pyc", "test/rows.jsonl", "rainbow/results.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("reading the task wrote it, or another thing has this name")
    found = files_of([str(files["task.yaml"]), "arc_easy", "gone.yaml"])
    assert sorted(found) == sorted(map(str, files.values()))
    assert files_of([str(files["task.yaml"])]) == found, "in the same order"


@pytest.mark.parametrize("stage", ["prepare", "evaluate"])
def test_a_stage_that_reads_a_task_is_done_again_when_any_file_behind_it_changes_or_comes(
    tmp_path: Path, stage: str
) -> None:
    files = behind(tmp_path)
    values = cast(Any, tiny.language_recipe(tmp_path))
    values["data"]["filter"] = {}
    values["evaluate"] |= {"harness": {"tasks": [str(files["task.yaml"])]}}
    recipe = parse_recipe(values)
    (stamp,) = (one.stamp for one in STAGES if one.name == stage)
    assert stamp is not None
    before = stamp(recipe)
    assert stamp(recipe) == before
    for path in [*files.values(), tmp_path / "rows" / "2.json", tmp_path / "parts" / "2.csv"]:
        path.write_text(path.read_text() + "\n" if path.exists() else "new")
        after = stamp(recipe)
        assert after != before, path
        before = after


def test_a_task_that_is_no_yaml_is_left_to_the_harness_to_complain_about(tmp_path: Path) -> None:
    path = tmp_path / "task.yaml"
    path.write_text("task: rainbow\ndoc_to_text: {{question}}\n")
    assert files_of([str(path)]) == [str(path)]

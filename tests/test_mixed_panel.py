"""Whole runs of panels on which not everybody is a model that reads the student's tokens: some label by names, some are behind an API, of
some there are past answers."""

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    PreTrainedTokenizerBase,
)

import tiny
from endpoint import Endpoint, Said, prompt_of
from partly import SILENT_PLAN
from stillhouse import run
from stillhouse.data.alike import refuse_alike
from stillhouse.data.encode import Example, read_examples
from stillhouse.errors import RecipeError, ResourceError
from stillhouse.files import read_json, write_json
from stillhouse.models.load import load_tokenizer
from stillhouse.pipeline import run_pipeline
from stillhouse.plans import price as prices
from stillhouse.plans.execute import run_plan
from stillhouse.plans.rounds import pool_of, task_in
from stillhouse.progress import Silent
from stillhouse.recipe import parse_recipe
from stillhouse.stages import STAGES
from stillhouse.static import static_checks
from stillhouse.steps import hearing
from stillhouse.steps.asking import heard_of
from stillhouse.tasks import make_task
from stillhouse.tasks.panel import Panel
from stillhouse.tasks.told import Told, is_told, load_told, write_told
from stillhouse.tasks.zero_shot import ZeroShot
from stillhouse.teachers.cache import SoftTargetCache
from typed import hurried, stillhouse

SURE, FLOOR = 0.9, 1e-6


def asked_text(body: dict[str, Any]) -> str:
    return prompt_of(body).rpartition("Text: ")[2]


def opinion(body: dict[str, Any]) -> Said:
    """Says which of two words a text ends with, and is nine times in ten sure of it; of a text with a 7 in its number it says nothing
    that is a label."""
    text = asked_text(body)
    if "7" in text.split()[0]:
        return "Hm."
    word, other = ("good", "bad") if text.endswith("good.") else ("bad", "good")
    return word, [(word, {word: math.log(SURE), other: math.log(1 - SURE)})]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier with an opinion, a language model, labelled rows, and what somebody once said of most of them."""
    place = tmp_path_factory.mktemp("made")
    tiny.save_classifier(place / "reader")
    model = AutoModelForSequenceClassification.from_pretrained(place / "reader")
    with torch.no_grad():
        model.classifier.weight.normal_(generator=torch.Generator().manual_seed(1))
    model.save_pretrained(place / "reader")
    tiny.save_language_model(place / "lm", layers=1)
    tiny.labelled_file(place / "rows.csv", rows=60)
    rows = list(csv.DictReader((place / "rows.csv").open()))
    past = [{"text": row["text"], "label": row["label"]} for row in rows if "3" not in row["text"].split()[0]]
    (place / "past.jsonl").write_text("".join(json.dumps(row) + "\n" for row in past))
    return place


def values(made: Path, *panel: dict[str, Any], **teacher: Any) -> dict[str, Any]:
    return {
        "name": "mixed", "task": "classification",
        "teacher": {"panel": list(panel), "dtype": "float32", **teacher},
        "student": {"model": str(made / "reader")},
        "data": {"train": {"source": str(made / "rows.csv")}, "split": 20, "max_length": 32},
        "objective": [{"kind": "forward_kl", "temperature": 2.0}],
        "train": {"steps": 2, "batch_size": 16, "learning_rate": 1e-3, "precision": "float32"},
        "evaluate": {"resamples": 200}, "report": {"samples": 2},
    }  # fmt: skip


def reader(made: Path) -> dict[str, Any]:
    return {"model": str(made / "reader"), "name": "reader"}


def names(made: Path) -> dict[str, Any]:
    return {"model": str(made / "lm"), "name": "names", "zero_shot": {"form": "chat", "calibrate": "none"}}


def asked(url: str, **api: Any) -> dict[str, Any]:
    return {"api": {"base_url": url, "model": "big", "top_logprobs": 5, **api}}


def past(made: Path) -> dict[str, Any]:
    return {"api": {"model": "old", "answers": str(made / "past.jsonl")}}


def folder_for(place: Path) -> Path:
    place.mkdir()
    write_json(place / "machine.json", {"bfloat16": False})  # measuring it takes long where it does not pay
    return place


def finish(recipe: dict[str, Any], place: Path) -> dict[str, Any]:
    with hurried():
        return run(parse_recipe(recipe), place)


class Notes(Silent):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, line: str) -> None:
        self.lines.append(line)


def until(stage: str, recipe: dict[str, Any], place: Path, watch: Any = None) -> dict[str, Any]:
    """The result of the stage."""
    return run_pipeline(parse_recipe(recipe), SILENT_PLAN, place, watch or Silent(), until=stage)[stage]


def kept_targets(place: Path) -> dict[str, torch.Tensor]:
    """Key of an example -> [C] kept log-probabilities, in the order of the classes."""
    label = read_json(place / "label" / "DONE.json")["result"]
    cache = SoftTargetCache(place / label["cache"], label["meta"])
    train = read_examples(place / label.get("train", "prepare/train.parquet"))
    some = {example.key: cache.get(example.key) for example in train}
    return {key: one.log_p[0][one.ids[0].argsort()].double() for key, one in some.items()}


class Alone:
    """What each member says of a text by itself, in float64, worked out without a panel."""

    def __init__(self, made: Path) -> None:
        self.task = make_task("classification", load_tokenizer(made / "reader"), 32, ["bad", "good"])
        self.model = self.task.load(made / "reader").double()
        lm = AutoModelForCausalLM.from_pretrained(made / "lm")
        self.namer = ZeroShot(lm, load_tokenizer(made / "lm"), ["bad", "good"])

    def reader(self, example: Example, text: str) -> torch.Tensor:
        with torch.no_grad():
            return self.task.scores(self.model, self.task.collate([example])).hidden[0].log_softmax(-1)

    def names(self, example: Example, text: str) -> torch.Tensor:
        return self.namer.log_probs([text])[0]

    def big(self, example: Example, text: str) -> torch.Tensor | None:
        if "7" in text.split()[0]:
            return None
        good = SURE if text.endswith("good.") else 1 - SURE
        return torch.tensor([1 - good, good], dtype=torch.float64).log()

    def old(self, example: Example, text: str) -> torch.Tensor | None:
        if "3" in text.split()[0]:
            return None
        good = 1.0 if text.endswith("good.") else FLOOR
        shares = torch.tensor([1.0 + FLOOR - good, good], dtype=torch.float64)
        return (shares / shares.sum()).log()


def texts_of(place: Path) -> dict[str, str]:
    rows = map(json.loads, (place / "prepare" / "texts.jsonl").open())
    return {row["key"]: row["text"] for row in rows}


def test_whoever_sits_on_a_panel_its_targets_are_the_weighted_mean_and_nobody_is_asked_twice(
    made: Path, tmp_path: Path
) -> None:
    """Against each member by itself; what one has no answer to is the mean of the others."""
    place, alone = folder_for(tmp_path / "run"), Alone(made)
    shares = {"reader": 1.0, "names": 2.0, "big": 3.0, "old": 1.0}
    with Endpoint(opinion) as endpoint:
        panel = [reader(made), names(made), asked(endpoint.url), past(made)]
        for member, weight in zip(panel, shares.values(), strict=True):
            member["weight"] = weight
        found = finish(values(made, *panel), place)
        assert len(endpoint.seen.delivered) == 60 and set(endpoint.seen.delivered.values()) == {1}
        texts, kept = texts_of(place), kept_targets(place)
        lost = set()
        for example in read_examples(place / "prepare" / "train.parquet"):
            text, mean, whole = texts[example.key], torch.zeros(2, dtype=torch.float64), 0.0
            for name, weight in shares.items():
                if (said := getattr(alone, name)(example, text)) is None:
                    lost.add(name)
                else:
                    mean, whole = mean + weight * (said / 2.0).softmax(-1), whole + weight
            torch.testing.assert_close(kept[example.key].exp(), mean / whole, atol=2e-3, rtol=2e-3)
        assert lost == {"big", "old"}
        panel[2]["weight"] = 9.0
        until("label", values(made, *panel), place)
        assert set(endpoint.seen.delivered.values()) == {1}, "another weight asks nobody again"
    assert found["teacher"]["name"] == "reader + names + big + old"
    assert found["teacher"]["metrics"]["eval"]["accuracy"]["value"] is not None
    assert "parameters" not in found["teacher"] and "parameters" in found["student"]
    assert found["said"]["big"]["train"] == {"answered": 40}
    assert found["said"]["old"]["train"]["no answer"] > 0
    assert "a member of its panel is behind an API" in (place / "report.html").read_text()
    assert "past answers of old" in " ".join(found["licence"]["terms"])


def test_what_is_said_of_changed_held_out_rows_is_not_taken_for_what_is_said_of_the_clean_ones(
    made: Path, tmp_path: Path
) -> None:
    """A changed row keeps the id of the row it was made from; of those in capitals the opposite is said."""

    def fickle(body: dict[str, Any]) -> Said:
        word, other = ("bad", "good") if asked_text(body).isupper() else ("good", "bad")
        return word, [(word, {word: math.log(SURE), other: math.log(1 - SURE)})]

    expected = {"eval": [1 - SURE, SURE], "eval_capitals": [SURE, 1 - SURE]}
    with Endpoint(fickle) as endpoint:
        panel = values(made, asked(endpoint.url), reader(made))
        alone = values(made) | {"teacher": asked(endpoint.url)}
        for recipe in (panel, alone):
            recipe["evaluate"]["perturb"] = ["capitals"]
        until("teacher", panel, folder_for(tmp_path / "panel"))
        until("label", alone, folder_for(tmp_path / "alone"))
    told = load_told(tmp_path / "panel" / "teacher" / "panel" / "0")
    for name, shares in expected.items():
        wanted = torch.tensor([shares] * 20)
        keys = [one.key for one in read_examples(tmp_path / "panel" / "prepare" / f"{name}.parquet")]
        by_member = told.log_p[[told.places[key] for key in keys]].exp()
        kept = heard_of(tmp_path / "alone" / "label", [name])[name]["log_p"]
        torch.testing.assert_close(by_member, wanted, msg=f"panel, {name}")
        torch.testing.assert_close(torch.from_numpy(kept).exp(), wanted, msg=f"alone, {name}")


def test_two_members_of_one_name_at_two_addresses_speak_each_for_itself(made: Path, tmp_path: Path) -> None:
    def contrary(body: dict[str, Any]) -> Said:
        word, other = ("bad", "good") if asked_text(body).endswith("good.") else ("good", "bad")
        return word, [(word, {word: math.log(SURE), other: math.log(1 - SURE)})]

    with Endpoint(opinion) as one, Endpoint(contrary) as two:
        recipe = values(made, asked(one.url), {**asked(two.url), "name": "contrary"}, reader(made))
        until("teacher", recipe, folder_for(tmp_path / "run"))
        assert len(one.bodies) == len(two.bodies) == 60
    first, second = (load_told(tmp_path / "run" / "teacher" / "panel" / str(number)) for number in (0, 1))
    shared = set(first.places) & set(second.places)
    assert len(shared) > 40
    for key in shared:
        said, opposite = (told.log_p[told.places[key]].exp() for told in (first, second))
        torch.testing.assert_close(said, opposite.flip(0))


@pytest.mark.parametrize("asks", [True, False], ids=["an API", "a model here"])
def test_what_was_made_of_answers_before_is_made_anew_where_somebody_was_asked(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asks: bool
) -> None:
    """Held-out answers that an earlier version mixed up would be measured for ever; nobody is asked again, and no other run repeats its
    stages."""
    place = folder_for(tmp_path / "run")
    with Endpoint(opinion) as endpoint:
        teacher = asked(endpoint.url) if asks else {"model": str(made / "reader"), "dtype": "float32"}
        recipe = parse_recipe(values(made) | {"teacher": teacher})
        monkeypatch.setattr(hearing, "HEARD", "as before")
        before = run_pipeline(recipe, SILENT_PLAN, place, Silent(), until="label")
        right = heard_of(place / "label", ["eval"])
        if asks:
            save_file({"log_p": -right["eval"]["log_p"]}, place / "label" / "heard-eval.safetensors")
        monkeypatch.undo()
        watch = Notes()
        after = run_pipeline(recipe, SILENT_PLAN, place, watch, until="label")
        assert after == before and set(endpoint.seen.delivered.values()) == ({1} if asks else set())
    assert [line for line in watch.lines if not line.startswith(" ")] == (["label"] if asks else [])
    stamp = next(stage.stamp for stage in STAGES if stage.name == "evaluate")
    assert stamp is not None
    assert (hearing.HEARD in str(stamp(recipe))) == asks, "what was said of held-out rows is measured anew"
    for kind, found in heard_of(place / "label", ["eval"]).items():
        assert (found["log_p"] == right[kind]["log_p"]).all()


def test_members_that_are_all_asked_need_no_labels_and_leave_out_what_none_has_an_answer_to(
    made: Path, tmp_path: Path
) -> None:
    """A row numbered 37 has no label of either; held out it is a wrong one, as a lone API's is."""
    rows = list(csv.DictReader((made / "rows.csv").open()))
    bare = [{"text": row["text"]} for row in rows[20:]]
    held = [*rows[:20], {"text": "370 the quiet book is good.", "label": "good"}]
    for name, some in (("bare", bare), ("held", held)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in some))
    with Endpoint(opinion) as endpoint:
        recipe = values(made, asked(endpoint.url, labels={"bad": "bad", "good": "good"}), past(made))
        recipe["data"] = {
            "train": {"source": str(tmp_path / "bare.jsonl")}, "eval": {"source": str(tmp_path / "held.jsonl")}, "max_length": 32,
        }  # fmt: skip
        recipe["student"] = {
            "tokenizer": str(made / "reader"),
            "from_config": {"config": {"num_hidden_layers": 1}},
        }
        place = folder_for(tmp_path / "run")
        found = finish(recipe, place)
    prepared = {one.key for one in read_examples(place / "prepare" / "train.parquet")}
    taught = {one.key for one in read_examples(place / "teacher" / "train.parquet")}
    texts = {one["id"]: one["text"] for one in map(json.loads, (place / "prepare/asked-train.jsonl").open())}
    left = [one for one in read_examples(place / "prepare" / "train.parquet") if one.key not in taught]
    assert taught < prepared and [texts[one.row].split()[0] for one in left] == ["37"]
    assert found["data"]["dropped_answers"] == {"no member of the panel has an answer": 1}
    assert found["teacher"]["metrics"]["eval"]["accuracy"]["value"] == pytest.approx(20 / 21)
    assert set(found["controls"]) == {"initial"}


def test_weights_are_learned_from_what_every_member_said_and_a_label_without_probabilities_counts_as_one(
    made: Path, tmp_path: Path
) -> None:
    """One is always right, one always wrong, and no row that either has no answer to is judged by."""

    def contrary(body: dict[str, Any]) -> Said:
        if "7" in asked_text(body).split()[0]:
            return "Hm."
        return "bad" if asked_text(body).endswith("good.") else "good"

    with Endpoint(opinion) as right, Endpoint(contrary) as wrong:
        contrarian = {"api": {"base_url": wrong.url, "model": "contrary"}, "name": "contrary"}
        for by in ("learned", "validation"):
            recipe = values(made, contrarian, asked(right.url), reader(made), pool={"by": by})
            recipe["data"]["validation"] = 0.5
            found = until("teacher", recipe, folder_for(tmp_path / by))
            if by == "learned":
                assert found["weights"][1] == max(found["weights"]) and found["weights"][0] < 1e-3
            else:
                assert max(found["table"][0]) < 0.5 < min(found["table"][1])


def test_a_row_is_taught_by_the_member_that_its_column_names_and_by_the_others_if_that_one_said_nothing(
    made: Path,
) -> None:
    alone = Alone(made)
    rows = [{"id": str(n), "where": "", **row} for n, row in enumerate(tiny.opinions(3))]
    batch = alone.task.collate(alone.task.encode(rows)[0])
    keys = batch["keys"]
    told = Told(keys[:1], torch.tensor([[0.25, 0.75]]).log())
    panel = Panel([alone.model, told], weights=[0.5, 0.5], routes={keys[0]: 1, keys[1]: 1})
    with torch.no_grad():
        said = alone.task.scores(panel, batch)
        found = said.head.logits(said.hidden).softmax(-1)
        own = alone.task.scores(alone.model, batch).hidden.softmax(-1).float()
    assert keys[0] in told and keys[1] not in told
    torch.testing.assert_close(found[0].float(), torch.tensor([0.25, 0.75]))
    torch.testing.assert_close(found[1:].float(), own[1:], atol=1e-6, rtol=1e-5)


def test_the_forecast_prices_what_the_members_are_asked_and_asking_stops_at_their_cost(
    made: Path, tmp_path: Path
) -> None:
    price = {"input": 1.0, "output": 1000.0}
    with Endpoint(opinion) as endpoint:
        recipe = values(made, names(made), asked(endpoint.url, price=price, max_cost=0.03))
        place = folder_for(tmp_path / "run")
        with hurried():
            run_pipeline(parse_recipe(recipe), STAGES, place, Silent(), until="plan")
        plan = read_json(place / "plan" / "plan.json")
        assert plan["requests"] == 60 and not endpoint.seen.delivered
        assert plan["money_by_stage"]["teacher"] == plan["money"] > 60 * 16 * 1e-3
        with pytest.raises(ResourceError, match=r"^teacher.panel\[1\].api.max_cost"):
            until("teacher", recipe, place)
        assert 0 < len(endpoint.seen.delivered) < 60
        recipe["teacher"]["panel"][1]["api"]["max_cost"] = 100.0
        until("teacher", recipe, place)
        assert len(endpoint.seen.delivered) == 60 and set(endpoint.seen.delivered.values()) == {1}


def test_a_members_questions_go_out_as_a_batch_and_its_results_come_back(made: Path, tmp_path: Path) -> None:
    recipe = values(made, asked("http://127.0.0.1:9/v1"), past(made))
    place = folder_for(tmp_path / "run")
    until("prepare", recipe, place)
    said = stillhouse("label", "export", place, "--out", tmp_path / "batch.jsonl")
    assert said.code == 0, said.err
    lines = [json.loads(line) for line in (tmp_path / "batch.jsonl").read_text().splitlines()]
    mine = [line for line in lines if line["body"]["model"] == "big"]
    assert len(mine) == 60
    results = [
        {
            "custom_id": line["custom_id"],
            "response": {"status_code": 200, "body": {"choices": [{"message": {"content": "good"}, "finish_reason": "stop"}]}},
        }
        for line in mine
    ]  # fmt: skip
    (tmp_path / "results.jsonl").write_text("".join(json.dumps(one) + "\n" for one in results))
    said = stillhouse("label", "import", place, tmp_path / "results.jsonl")
    assert "60 of 60 answers belong" in said.out, said.err
    found = until("teacher", recipe, place)  # nobody listens at that port
    assert found["said"]["big"] == {"train": {"answered": 40}, "eval": {"answered": 20}}


def test_new_past_answers_are_taken_and_change_what_the_panel_says(made: Path, tmp_path: Path) -> None:
    answers = tmp_path / "past.jsonl"
    lines = (made / "past.jsonl").read_text().splitlines(keepends=True)
    answers.write_text("".join(lines[:10]))
    recipe = values(made, reader(made), {"api": {"model": "old", "answers": str(answers)}})
    place = folder_for(tmp_path / "run")
    before = until("teacher", recipe, place)
    assert until("teacher", recipe, place) == before
    answers.write_text("".join(lines))
    after = until("teacher", recipe, place)
    assert after["identity"] != before["identity"]
    count = {name: sum(one["said"]["old"][kind].get("answered", 0) for kind in ("train", "eval")) for name, one in (("before", before), ("after", after))}  # fmt: skip
    assert count == {"before": 10, "after": len(lines)}


def test_labels_without_probabilities_do_not_outvote_the_others(made: Path, tmp_path: Path) -> None:
    """Past answers can be told to lack them only when they are read."""
    recipe = values(made, reader(made), past(made), pool={"by": "confidence"})
    with pytest.raises(RecipeError, match=r"^teacher.panel\[1\].api: names labels without probabilities"):
        until("teacher", recipe, folder_for(tmp_path / "run"))


def test_labels_that_a_member_names_and_the_data_lacks_are_refused(made: Path, tmp_path: Path) -> None:
    member = names(made)
    member["zero_shot"]["labels"] = ["bad", "fine"]
    with pytest.raises(Exception, match=r"^teacher.panel\[1\].zero_shot.labels: names bad, fine, and the data's labels are bad, good"):  # fmt: skip
        until("prepare", values(made, reader(made), member), folder_for(tmp_path / "run"))


HERE = "http://127.0.0.1:9/v1"


@pytest.mark.parametrize(
    ("changes", "remedy"),
    [
        ({"task": "causal_lm"}, "name it in data.writer.others"),
        ({"objective": [{"kind": "hard"}]}, "add {kind: forward_kl}"),
        ({"data": {"train": {"source": "rows.csv"}, "augment": {}}}, r"data.augment: makes tokens, and teacher.panel\[1\]"),
        ({"plan": {"kind": "rounds", "pool": {"source": "x.csv"}}}, r"plan.by: divergence .* teacher.panel\[1\]"),
        ({"teacher": {"panel": [asked(HERE), past(Path("p"))]}, "label": {"online": True}}, "label.online: nobody on the panel"),
        ({"teacher": {"panel": [asked(HERE), asked(HERE)]}}, "same name"),
        ({"teacher": {"panel": [asked(HERE), {**asked(HERE), "name": "b"}]}}, "nobody is asked twice"),
        ({"teacher": {"panel": [asked(HERE), {"name": "b", "api": {**asked(HERE)["api"], "base_url": None, "answers": "past.jsonl"}}]}}, "nobody is asked twice"),
        ({"teacher": {"panel": [asked(HERE), {"api": {"model": "old", "answers": "past.jsonl"}}]}, "student": {"from_teacher": {"layers": 1}}}, "no member of the panel has layers"),
        ({"teacher": {"panel": [{"model": "a"}, asked(HERE, top_logprobs=None)], "pool": {"by": "geometric"}}}, "set top_logprobs"),
        ({"teacher": {"panel": [{"model": "a"}, {"model": "b", **asked(HERE)}]}}, "an api has no weights here"),
        ({"teacher": {"panel": [{"model": "a"}, {"name": "nobody"}]}}, "model: is required"),
        ({"teacher": {"panel": [asked(HERE, labels=["a", "b"]), {"model": "m", "zero_shot": {"labels": ["a", "c"]}}]}}, "name the same ones"),
    ],
)  # fmt: skip
def test_what_a_member_that_is_asked_does_not_go_with_is_named(
    made: Path, changes: dict[str, Any], remedy: str
) -> None:
    with pytest.raises(RecipeError, match=remedy) as error:
        refuse_alike(parse_recipe({**values(made, reader(made), asked(HERE)), **changes}).teacher)
    assert "\n  " not in str(error.value).strip().partition("\n")[2].strip()


def test_told_probabilities_survive_the_disk_as_they_were(tmp_path: Path) -> None:
    said = {"a": [0.2, 0.8], "b": [1.0 - FLOOR, FLOOR]}
    write_told(tmp_path / "told", said)
    assert is_told(tmp_path / "told")
    found = load_told(tmp_path / "told")
    np.testing.assert_allclose(found.log_p.detach().double().exp().numpy(), list(said.values()), rtol=1e-6)


def test_a_panel_with_answers_on_it_runs_beside_the_student_too(made: Path, tmp_path: Path) -> None:
    recipe = values(made, past(made), reader(made))
    recipe["label"] = {"online": True}
    recipe["train"]["log_every"] = 1
    place = folder_for(tmp_path / "run")
    assert until("train", recipe, place)["folder"] == "train/model"
    losses = [row["forward_kl"] for row in map(json.loads, (place / "train" / "metrics.jsonl").open()) if "forward_kl" in row]  # fmt: skip
    assert losses and all(math.isfinite(loss) and loss > 0 for loss in losses)


def test_members_are_looked_at_before_anything_is_loaded(made: Path, tmp_path: Path) -> None:
    recipe = values(made, reader(made), names(made), asked(HERE), past(made))
    notes = "\n".join(static_checks(parse_recipe(recipe), tmp_path / "run"))
    assert "teacher.panel[2]: big at http://127.0.0.1:9/v1" in notes
    assert "answers are taken from" in notes
    recipe["teacher"]["panel"][1]["model"] = str(made / "reader")
    with pytest.raises(RecipeError, match="which says no words"):
        static_checks(parse_recipe(recipe), tmp_path / "run")


def test_runs_of_a_sweep_are_priced_as_asking_a_member_once(made: Path, tmp_path: Path) -> None:
    price = {"input": 1.0, "output": 1000.0}
    recipe = values(made, reader(made), asked(HERE, price=price))
    recipe["sweep"] = {"train.learning_rate": [1e-3, 2e-3]}
    with hurried():
        found = prices.price(parse_recipe(recipe), tmp_path / "runs", Silent())
    first, second = found["runs"].values()
    assert first["money"] > 60 * 16 * 1e-3 and second["money"] == 0


# ── classifiers with other tokenizers ───────────────────────────────────────────────────────────────────────────────


def shape(tokenizer: PreTrainedTokenizerBase, labels: tuple[str, ...], positions: int = 64) -> BertConfig:
    return BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=64,
        max_position_embeddings=positions, initializer_range=0.2, id2label=dict(enumerate(labels)),
        label2id={label: number for number, label in enumerate(labels)},
    )  # fmt: skip


def stranger(place: Path, labels: tuple[str, ...] = ("good", "bad"), positions: int = 64) -> dict[str, Any]:
    """A classifier that reads bytes, and has the labels the other way round."""
    tokenizer = tiny.language_tokenizer()
    torch.manual_seed(3)
    BertForSequenceClassification(shape(tokenizer, labels, positions)).save_pretrained(place / "stranger")
    tokenizer.save_pretrained(place / "stranger")
    return {"model": str(place / "stranger"), "name": "stranger"}


def third(place: Path) -> dict[str, Any]:
    """A student without a head that reads whole words."""
    tokenizer = tiny.translator_tokenizer()
    torch.manual_seed(4)
    BertModel(shape(tokenizer, ("a", "b"))).save_pretrained(place / "third")
    tokenizer.save_pretrained(place / "third")
    return {"model": str(place / "third")}


@torch.no_grad()
def opinion_of(member: dict[str, Any], texts: list[str], most: int = 32) -> torch.Tensor:
    """[texts, 2] logits for bad and good, text by text in float64, with nothing of the package but the reading of a tokenizer."""
    model = AutoModelForSequenceClassification.from_pretrained(member["model"]).double().eval()
    tokenizer = load_tokenizer(Path(member["model"]))
    order = [model.config.label2id[label] for label in ("bad", "good")]
    rows = [tokenizer([text], truncation=True, max_length=most, return_tensors="pt") for text in texts]
    return torch.cat([model(**row).logits[:, order] for row in rows])


def pooled(members: list[dict[str, Any]], texts: list[str], temperature: float) -> torch.Tensor:
    """[texts, 2]: the weighted mean of the members' softened probabilities."""
    shares = [member.get("weight", 1.0) for member in members]
    said = [(opinion_of(member, texts) / temperature).softmax(-1) for member in members]
    return torch.stack([share * one for share, one in zip(shares, said, strict=True)]).sum(0) / sum(shares)


def check_targets(place: Path, members: list[dict[str, Any]]) -> None:
    """What was kept of the training rows, against every member by itself."""
    rows = [json.loads(line) for line in (place / "prepare" / "asked-train.jsonl").open()]
    examples = {one.row: one.key for one in read_examples(place / "prepare" / "train.parquet")}
    assert set(examples) == {row["id"] for row in rows}
    kept = kept_targets(place)
    found = torch.stack([kept[examples[row["id"]]].exp() for row in rows])
    texts = [row["text"] for row in rows]
    torch.testing.assert_close(found, pooled(members, texts, 2.0), atol=2e-3, rtol=2e-3)
    for member in members:
        other = [{**one, "weight": 0.0} if one is member else one for one in members]
        assert (pooled(other, texts, 2.0) - found).abs().max() > 0.05, "each member is heard"


def check_heard(place: Path, kind: str, number: int, member: dict[str, Any], most: int = 32) -> None:
    """What the member on that seat was heard to say of the rows of a set, against itself."""
    rows = [json.loads(line) for line in (place / "prepare" / f"asked-{kind}.jsonl").open()]
    keys = {one.row: one.key for one in read_examples(place / "prepare" / f"{kind}.parquet")}
    assert rows and keys.keys() == {row["id"] for row in rows}
    told = load_told(place / "teacher" / "panel" / str(number))
    found = told.log_p[[told.places[keys[row["id"]]] for row in rows]].double()
    wanted = opinion_of(member, [row["text"] for row in rows], most).log_softmax(-1)
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)


def accuracy(place: Path, members: list[dict[str, Any]]) -> float:
    rows = [json.loads(line) for line in (place / "prepare" / "eval-rows.jsonl").open()]
    best = pooled(members, [row["text"] for row in rows], 1.0).argmax(-1).tolist()
    hits = [("bad", "good")[one] == row["label"] for one, row in zip(best, rows, strict=True)]
    return sum(hits) / len(hits)


def test_a_classifier_with_another_tokenizer_says_of_each_text_what_it_says_by_itself(
    made: Path, tmp_path: Path
) -> None:
    """Whole run: it comes first on the panel, has the labels the other way round, and the other member stays a model."""
    members = [{**stranger(tmp_path), "weight": 2.0}, reader(made)]
    place = folder_for(tmp_path / "run")
    found = finish(values(made, *members), place)
    check_targets(place, members)
    assert found["teacher"]["metrics"]["eval"]["accuracy"]["value"] == pytest.approx(accuracy(place, members))
    seats = read_json(place / "teacher" / "panel" / "panel.json")["members"]
    assert is_told(place / "teacher" / "panel" / seats[0]) and seats[1] == str(made / "reader")
    assert "parameters" not in found["teacher"]
    report = (place / "report.html").read_text()
    assert "has another tokenizer and read the rows beforehand" in report and "behind an API" not in report


def test_a_student_may_have_another_tokenizer_than_every_member_of_its_panel(
    made: Path, tmp_path: Path
) -> None:
    members = [reader(made), {**stranger(tmp_path), "weight": 2.0}]
    recipe = values(made, *members) | {"student": third(tmp_path)}
    place = folder_for(tmp_path / "run")
    found = finish(recipe, place)
    check_targets(place, members)
    assert found["teacher"]["metrics"]["eval"]["accuracy"]["value"] == pytest.approx(accuracy(place, members))
    assert found["student"]["metrics"]["eval"]["accuracy"]["value"] is not None


def test_a_student_made_of_its_panel_takes_the_layers_and_the_tokens_of_the_first_model(
    made: Path, tmp_path: Path
) -> None:
    members = [reader(made), stranger(tmp_path)]
    recipe = values(made, *members) | {"student": {"from_teacher": {"layers": 1}}}
    place = folder_for(tmp_path / "run")
    until("label", recipe, place)
    check_targets(place, members)
    assert len(load_tokenizer(place / "initial" / "model")) == len(load_tokenizer(made / "reader"))


def test_a_classifier_with_fewer_positions_reads_as_much_as_it_can_and_says_so(
    made: Path, tmp_path: Path
) -> None:
    """Of a text that is longer it had ended in an error of torch's."""
    members = [reader(made), stranger(tmp_path, positions=12)]
    place, watch = folder_for(tmp_path / "run"), Notes()
    until("teacher", values(made, *members), place, watch)
    texts = [row["text"] for row in csv.DictReader((made / "rows.csv").open())]
    assert any(len(tokens) > 12 for tokens in tiny.language_tokenizer()(texts)["input_ids"])
    for kind in ("train", "eval"):
        check_heard(place, kind, 1, members[1], most=12)
    said = [line for line in watch.lines if "tokens at most" in line]
    assert said == ["  stranger: reads 12 tokens at most, so of longer texts it does not know the end"]


def test_held_out_rows_that_are_changed_in_another_way_are_heard_anew(made: Path, tmp_path: Path) -> None:
    """They keep the ids of the clean rows, and where the student knows neither word, its tokens too."""
    member, place = stranger(tmp_path), folder_for(tmp_path / "run")
    with Endpoint(lambda body: "bad" if "fine" in asked_text(body) else "good") as endpoint:
        recipe = values(made, reader(made), member, asked(endpoint.url))
        for other, says in (("fine", 0), ("great", 1)):
            recipe["evaluate"]["swap"] = [["good", other]]
            until("teacher", recipe, place)
            check_heard(place, "eval_swapped", 1, member)
            told = load_told(place / "teacher" / "panel" / "2")
            keys = [
                one.key
                for one in read_examples(place / "prepare" / "eval_swapped.parquet")
                if one.labels == [1]
            ]
            assert keys
            assert {int(told.log_p[told.places[key]].argmax()) for key in keys} == {says}


@pytest.mark.parametrize("alone", [False, True], ids=["a panel", "an API alone"])
def test_the_held_out_rows_that_are_asked_about_are_those_that_are_measured(
    made: Path, tmp_path: Path, alone: bool
) -> None:
    """Rows whose label training lacks are neither, and the next ones take their place."""
    rows = list(csv.DictReader((made / "rows.csv").open()))
    held = [{**row, "label": "odd"} if number % 2 else row for number, row in enumerate(rows[:20])]
    for name, some in (("train", rows[20:]), ("held", held)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in some))
    recipe = values(made, reader(made), stranger(tmp_path))
    if alone:
        recipe["teacher"] = asked(HERE)
    recipe["data"] = {
        "train": {"source": str(tmp_path / "train.jsonl")}, "eval": {"source": str(tmp_path / "held.jsonl")}, "max_length": 32,
    }  # fmt: skip
    recipe["evaluate"] |= {"rows": 6, "perturb": ["capitals"]}
    place = folder_for(tmp_path / "run")
    until("prepare", recipe, place)
    order = [json.loads(line) for line in (place / "prepare" / "eval-rows.jsonl").open()]
    assert "odd" in [row["label"] for row in order[:6]]
    texts = [row["text"] for row in order if row["label"] != "odd"][:6]
    for kind, wanted in (("eval", texts), ("eval_capitals", [text.upper() for text in texts])):
        questions = [json.loads(line) for line in (place / "prepare" / f"asked-{kind}.jsonl").open()]
        assert [row["text"] for row in questions] == wanted
        measured = read_examples(place / "prepare" / f"{kind}.parquet")
        assert [one.row for one in measured] == [row["id"] for row in questions]


@pytest.mark.parametrize("by", ["divergence", "errors"])
def test_rounds_choose_no_rows_by_a_panel_of_which_a_member_does_not_read_them(
    made: Path, tmp_path: Path, by: str
) -> None:
    """What the others say would be taken for what all of them say."""
    tiny.labelled_file(tmp_path / "pool.csv", rows=20, seed=9)
    plan = {"kind": "rounds", "pool": {"source": str(tmp_path / "pool.csv")}, "rows": 5, "by": by}
    recipe = values(made, reader(made), stranger(tmp_path)) | {"plan": plan}
    folder = folder_for(tmp_path / "run")
    with pytest.raises(
        RecipeError, match=rf"^plan.by: {by} compares .* and stranger, .* use by: uncertainty"
    ):
        run_plan(parse_recipe(recipe), folder, Silent())
    assert not (folder / "runs" / "round-0" / "train").exists()
    parsed = parse_recipe({**recipe, "plan": {**plan, "by": "uncertainty"}})
    first = folder / "runs" / "round-0"
    assert pool_of(parsed, first, task_in(parsed, first), Silent()), "which asks the student alone"


@pytest.mark.parametrize(
    ("changes", "remedy"),
    [
        ({"data": {"augment": {}}}, r"data.augment: makes tokens, and teacher.panel\[1\] reads text"),
        ({"label": {"online": True}, "student": "third"}, "label.online: nobody on the panel"),
    ],
)
def test_what_a_classifier_with_another_tokenizer_does_not_go_with_is_named(
    made: Path, tmp_path: Path, changes: dict[str, Any], remedy: str
) -> None:
    recipe = values(made, reader(made), stranger(tmp_path))
    if "student" in changes:
        changes = {**changes, "student": third(tmp_path)}
    recipe = {**recipe, **changes, "data": {**recipe["data"], **changes.get("data", {})}}
    with pytest.raises(RecipeError, match=rf"^{remedy}"):
        run_pipeline(parse_recipe(recipe), STAGES, folder_for(tmp_path / "run"), Silent(), until="plan")


def test_a_classifier_with_another_tokenizer_and_other_labels_is_refused(made: Path, tmp_path: Path) -> None:
    recipe = values(made, reader(made), stranger(tmp_path, ("bad", "fine")))
    with pytest.raises(RecipeError, match=r"^teacher.panel: stranger: its labels are bad, fine"):
        until("prepare", recipe, folder_for(tmp_path / "run"))


def test_a_language_models_panel_needs_one_tokenizer(made: Path, tmp_path: Path) -> None:
    tiny.save_language_model(tmp_path / "other", layers=1)
    tokenizer = tiny.language_tokenizer()
    tokenizer.add_tokens(["zebra"])
    tokenizer.save_pretrained(tmp_path / "other")
    tiny.text_file(tmp_path / "text.jsonl", rows=20)
    recipe = values(made, {"model": str(made / "lm")}, {"model": str(tmp_path / "other")})
    recipe |= {"task": "causal_lm", "student": {"from_teacher": {"layers": 1}}}
    recipe["data"] = {"train": {"source": str(tmp_path / "text.jsonl")}, "split": 5, "max_length": 32}
    with pytest.raises(RecipeError, match=r"is not the first member's .*; members must share it"):
        until("prepare", recipe, folder_for(tmp_path / "run"))

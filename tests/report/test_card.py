"""The card is one that the hub reads, and says what the report says."""

from typing import Any

import pytest
import yaml

from report_fixtures import RECIPE, classifier, language_model
from stillhouse.report.card import fenced, render_card
from stillhouse.report.verdict import failed_claims


def _front_matter(card: str) -> dict[str, Any]:
    assert card.startswith("---\n")
    return yaml.safe_load(card[4:].split("\n---\n", 1)[0])


@pytest.mark.parametrize("make", [language_model, classifier])
def test_the_front_matter_is_yaml_with_a_model_index_of_every_metric(make):
    results = make()
    fields = _front_matter(render_card(results, RECIPE))
    assert fields["library_name"] == "transformers" and {"distillation", "stillhouse"} <= set(fields["tags"])
    (entry,) = fields["model-index"]
    found = {
        (each["dataset"]["name"], metric["type"]): metric["value"]
        for each in entry["results"]
        for metric in each["metrics"]
    }
    assert found == {
        (dataset, metric): pytest.approx(each["value"], abs=1e-6)
        for dataset, metrics in results["student"]["metrics"].items()
        for metric, each in metrics.items()
    }


@pytest.mark.parametrize("make", [language_model, classifier])
def test_the_hubs_own_reader_accepts_the_card(make):
    hub = pytest.importorskip("huggingface_hub")
    results = make()
    data = hub.ModelCard(render_card(results, RECIPE)).data
    assert data.model_name == results["name"]
    read = {(each.dataset_name, each.metric_type): each.metric_value for each in data.eval_results}
    assert read == {
        (dataset, metric): pytest.approx(each["value"], abs=1e-6)
        for dataset, metrics in results["student"]["metrics"].items()
        for metric, each in metrics.items()
    }
    assert {each.task_type for each in data.eval_results} == {data.pipeline_tag}


def test_names_with_yaml_in_them_stay_names():
    results = language_model() | {"name": "a: [b]\n---\n# c", "description": "x | y <b>"}
    assert _front_matter(render_card(results, RECIPE))["model-index"][0]["name"] == "a: [b]\n---\n# c"


def test_a_relative_folder_is_not_passed_off_as_somebodys_model_on_the_hub():
    folder = RECIPE.replace("pypi:some-models==1.0:smollm2-135m", "models/teacher")
    assert "base_model" not in _front_matter(render_card(language_model(), folder))


def test_the_base_model_is_named_where_it_is_known_to_be_on_the_hub():
    pinned = RECIPE.replace("pypi:some-models==1.0:smollm2-135m", "owner/teacher\n  revision: abc")
    assert _front_matter(render_card(language_model(), pinned))["base_model"] == "owner/teacher"
    results = language_model() | {"base_model": "owner/student"}
    assert _front_matter(render_card(results, RECIPE))["base_model"] == "owner/student"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Apache-2.0", ("apache-2.0", None)),
        ("GPL-3.0-only", ("gpl-3.0", None)),
        ("Acme-1", ("other", "Acme-1")),
        (None, (None, None)),
    ],
)
def test_a_licence_the_hub_does_not_know_is_named_and_not_made_up(name, expected):
    results = language_model() | {"licence": {"student": name}}
    fields = _front_matter(render_card(results, RECIPE))
    assert (fields.get("license"), fields.get("license_name")) == expected


@pytest.mark.parametrize(
    ("make", "auto"),
    [(language_model, "AutoModelForCausalLM"), (classifier, "AutoModelForSequenceClassification")],
)
def test_the_snippet_loads_with_the_class_of_the_task_and_is_python(make, auto):
    card = render_card(make(), RECIPE)
    code = card.split("```python\n")[1].split("```")[0]
    compile(code, "card", "exec")
    assert f"{auto}.from_pretrained" in code


def test_an_encoder_decoder_has_the_tag_into_which_the_hub_merged_text2text():
    card = render_card(language_model() | {"task": "seq2seq"}, RECIPE)
    assert _front_matter(card)["pipeline_tag"] == "text-generation"
    assert "AutoModelForSeq2SeqLM.from_pretrained" in card


def test_the_card_keeps_what_the_run_does_not_show():
    card = render_card(language_model(), RECIPE)
    assert card.count("\n- ") >= len(failed_claims(language_model()))
    assert "inherits the errors" in card and RECIPE.strip() in card


def test_every_line_of_the_table_has_the_same_number_of_cells():
    results = language_model()
    results["metrics"]["perplexity"]["title"] = "a | b"
    lines = [
        line.replace(r"\|", "") for line in render_card(results, RECIPE).splitlines() if line.startswith("| ")
    ]
    assert len({line.count("|") for line in lines}) == 1


def test_a_recipe_with_a_code_fence_in_it_does_not_end_the_block():
    assert fenced("a\n```\nb").startswith("````\n")


def test_missing_parts_are_left_out_of_the_card():
    results = language_model() | {
        "controls": {}, "gains": {}, "gain_over_hard_only": None, "floor": None, "machine": {}, "stages": {}, "data": {},
        "licence": {}, "retention": {"value": None, "note": None}, "retentions": {},
    }  # fmt: skip
    card = render_card(results, RECIPE)
    assert "None was" in card and "None " not in card.replace("None was", "")


def test_the_card_says_which_tasks_training_rows_were_not_searched_for():
    results = language_model()
    assert "not searched" not in render_card(results, RECIPE)
    results["data"]["not_looked_for"] = ["arc_easy", "piqa"]
    said = "Documents of arc_easy and piqa could not be read, and training rows were not searched for them."
    assert said in render_card(results, RECIPE).replace("\\", "")

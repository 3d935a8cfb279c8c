"""What may train others: the table, the refusal, and the student's licence."""

import json
from datetime import date
from html import unescape
from types import SimpleNamespace

import pytest

import tiny
from report_fixtures import language_model
from stillhouse.errors import RecipeError
from stillhouse.progress import Silent
from stillhouse.recipe import parse_recipe
from stillhouse.report.card import render_card
from stillhouse.report.html import render_html
from stillhouse.sources.terms import of_licence, of_provider, refuse_disallowed, student_licence, table
from stillhouse.static import static_checks
from stillhouse.steps.finish import licences
from stillhouse.steps.reading import read_rows


def test_every_line_of_the_table_has_a_verdict_a_reason_and_a_source() -> None:
    lines = [*table()["licences"].items(), *table()["providers"].items()]
    assert len(lines) > 30
    for name, line in lines:
        assert line["training_others"] in ("allowed", "disallowed", "unknown"), name
        assert line["why"] and line["source"].startswith("https://"), name
    assert date.fromisoformat(table()["drawn_up"] + "-01") > date(2026, 1, 1)


@pytest.mark.parametrize("spelt", ["Apache-2.0", "apache 2.0", "Apache License 2.0", "MIT License"])
def test_licences_are_found_however_their_cards_spell_them(spelt) -> None:
    assert of_licence(spelt).verdict == "allowed"


def test_what_is_not_known_is_unknown_and_stops_nothing() -> None:
    for terms in (of_licence(None), of_licence("my own"), of_provider("https://api.example.org/v1")):
        assert terms.verdict == "unknown"
        refuse_disallowed([terms], None)
    assert of_provider("http://127.0.0.1:8000/v1").verdict == "unknown"
    assert of_provider("https://api.openai.com/v1").verdict == "disallowed"
    assert of_provider("https://api.openai.com.evil.org/v1").verdict == "unknown"


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("https://mine.openai.azure.com/openai/v1", "Azure OpenAI"),
        ("https://bedrock-runtime.eu-west-1.amazonaws.com/openai/v1", "Amazon Bedrock"),
        ("https://europe-west4-aiplatform.googleapis.com/v1", "Google Vertex AI"),
        ("https://aiplatform.googleapis.com/v1", "Google Vertex AI"),
        ("https://eu.api.openai.com/v1", "OpenAI"),
        ("https://ec2-1-2-3-4.compute.amazonaws.com/v1", "ec2-1-2-3-4.compute.amazonaws.com"),
        ("https://notopenai.azure.com/v1", "notopenai.azure.com"),
        ("https://openai.azure.com.evil.org/v1", "openai.azure.com.evil.org"),
    ],
)
def test_a_provider_is_known_at_every_host_below_its_own(address: str, name: str) -> None:
    """Each customer or region has a host of its own, none of which was in the table."""
    found = of_provider(address)
    assert found.subject == name
    assert bool(found.source) == (name != address.split("/")[2])
    assert (found.verdict == "disallowed") == (name == "OpenAI")


def test_a_line_of_the_table_says_when_it_was_drawn_up() -> None:
    when = f"as known in {table()['drawn_up']}"
    assert (
        when in of_licence("mit").sentence() and when in of_provider("https://api.openai.com/v1").sentence()
    )
    assert "as known in" not in of_licence("my own").sentence()


@pytest.mark.parametrize(
    ("provider", "line"),
    [
        ("api.openai.com", "training others on OpenAI: disallowed"),
        ("api.mistral.ai", "training others on Mistral AI: unknown"),
        ("127.0.0.1", "the licence of the model it serves decides"),
        (None, "training others on past answers of big: unknown"),
    ],
)
def test_the_terms_of_an_apis_provider_stand_in_the_results_the_card_and_the_report(provider, line) -> None:
    teacher = SimpleNamespace(is_local=False, provider=provider, name="big", terms_accepted="A. Person did")
    facts = {
        "teacher": {"licence": None}, "student": {"licence": "mit"}, "panel": None, "writer": None, "others": [],
        "judge": None, "licences": {"train": "mit"}, "evaluated": ["eval"],
    }  # fmt: skip
    found = licences(SimpleNamespace(licence=None, teacher=teacher, data=SimpleNamespace(apis={})), facts)
    assert len(found["terms"]) == 1 and line in found["terms"][0]
    assert "without a stated licence" not in str(found) and "not stated" not in str(found)
    assert found["computed"] is None
    if provider in table()["providers"]:
        assert table()["providers"][provider]["source"] in found["terms"][0]
        assert f"as known in {table()['drawn_up']}" in found["terms"][0]
    results = language_model() | {"licence": found}
    page = unescape(render_html(results, "name: x", "stillhouse run x.yaml", []))
    assert found["terms"][0] in page and "A. Person did" in page
    assert line.split(":")[0] in render_card(results, "name: x").replace("\\", "")


@pytest.mark.parametrize("name", ["train", "extra"])
def test_data_whose_licence_forbids_it_stops_validate_and_prepare_unless_it_is_accepted(
    tmp_path, name
) -> None:
    """Rows that a model wrote carry its licence: those of llama3 may not improve other models."""
    recipe = tiny.language_recipe(tmp_path)
    folder = tmp_path / "written"
    folder.mkdir()
    rows = "".join(json.dumps({"text": text}) + "\n" for text in tiny.sentences(40, seed=4))
    (folder / "rows.jsonl").write_text(rows)
    recipe["data"] = {**recipe["data"], name: {"source": str(folder)}}
    read_rows(parse_recipe(recipe), Silent())
    card(folder, "llama3")
    for look in (lambda one: static_checks(one, tmp_path / "run"), lambda one: read_rows(one, Silent())):
        with pytest.raises(RecipeError, match=rf"data\.{name}: .*disallowed.*other data.*terms_accepted"):
            look(parse_recipe(recipe))
    accepted = {**recipe["teacher"], "terms_accepted": "A. Person: a study that is not published"}
    for look in (lambda one: static_checks(one, tmp_path / "run"), lambda one: read_rows(one, Silent())):
        look(parse_recipe({**recipe, "teacher": accepted}))


def card(folder, licence):
    (folder / "README.md").write_text(f"---\nlicense: {licence}\n---\n", encoding="utf-8")


def test_a_teacher_that_forbids_it_stops_validate_unless_the_recipe_accepts_in_writing(tmp_path) -> None:
    recipe = tiny.language_recipe(tmp_path)
    card(tmp_path / "teacher", "llama3")
    with pytest.raises(RecipeError, match="disallowed.*terms_accepted"):
        static_checks(parse_recipe(recipe), tmp_path / "run")
    recipe["teacher"] = {**recipe["teacher"], "terms_accepted": "A. Person: a study that is not published"}
    notes = static_checks(parse_recipe(recipe), tmp_path / "run")
    assert any("llama3: disallowed" in note for note in notes)


def test_the_stage_refuses_as_well_and_what_was_accepted_stands_in_the_results(tmp_path) -> None:
    facts = {
        "teacher": {"licence": "llama3"}, "student": None, "panel": None, "writer": None, "others": [], "judge": None,
        "licences": {"train": "mit"}, "evaluated": ["eval"],
    }  # fmt: skip
    teacher = SimpleNamespace(is_local=True, terms_accepted="A. Person said so", provider=None)
    recipe = SimpleNamespace(licence=None, teacher=teacher, data=SimpleNamespace(apis={}))
    found = licences(recipe, facts)
    assert found["accepted"] == "A. Person said so"
    assert "disallowed" in found["terms"][0]
    assert json.dumps(found)


@pytest.mark.parametrize("name", ["extra", "unlabelled", "writer"])
def test_the_licence_of_everything_that_is_learned_from_counts(name) -> None:
    """What only the evaluation reads asks nothing of the student."""
    mit = {"licence": "mit"}
    facts = {
        "teacher": mit,
        "student": None,
        "panel": None,
        "writer": None,
        "licences": {"train": "mit", "eval": None},
        "evaluated": ["eval"],
    }
    facts |= {"others": [], "judge": None}
    teacher = SimpleNamespace(is_local=True, terms_accepted=None, provider=None)
    recipe = SimpleNamespace(licence=None, teacher=teacher, data=SimpleNamespace(apis={}))
    assert licences(recipe, facts)["student"] == "mit"
    if name == "writer":
        facts["writer"] = {"licence": "cc-by-nc-4.0"}
    else:
        facts["licences"] = {**facts["licences"], name: "cc-by-nc-4.0"}
    found = licences(recipe, facts)
    assert found["student"] == "cc-by-nc-4.0"
    assert found["data"] == ("mit" if name == "writer" else "mit / cc-by-nc-4.0")


@pytest.mark.parametrize(
    ("weights", "others", "expected"),
    [
        ("MIT", ["Apache-2.0", "mit"], "mit"),
        ("apache-2.0", ["gemma", "mit"], "gemma"),
        ("apache-2.0", ["cc-by-nc-4.0"], "cc-by-nc-4.0"),
        ("gemma", ["llama3.1"], None),
        ("apache-2.0", [None], None),
        ("apache-2.0", ["something else"], None),
    ],
)
def test_the_students_licence_follows_from_its_weights_its_teachers_and_its_data(
    weights, others, expected
) -> None:
    found = student_licence(weights, others)
    assert found.licence == expected
    assert found.why

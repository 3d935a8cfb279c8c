"""The page asks nobody for anything, runs nothing, and shows what is there."""

import re
from html.parser import HTMLParser
from typing import Any

import pytest

from report_fixtures import RECIPE, classifier, curves, language_model, ten_thousand_rows
from stillhouse.report.glance import figures
from stillhouse.report.html import render_html
from stillhouse.report.verdict import verdict_parts

EVIL = '<script>alert(1)</script><img src="https://example.com/x.png" onerror="alert(2)"> {{ 7 * 7 }} </pre>'


class _Page(HTMLParser):
    """Every tag with its attributes, and which tags were left open."""

    VOID = ("meta", "br", "img", "link", "input", "hr")

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def _page(results: dict[str, Any]) -> str:
    return render_html(results, RECIPE, "stillhouse run quickstart.yaml", curves())


@pytest.fixture(scope="module", params=[language_model, classifier])
def page(request) -> str:
    return _page(request.param())


def test_the_page_refers_to_nothing_outside_itself(page):
    for tag, attributes in _Page(page).tags:
        for name in ("src", "href", "xlink:href", "action", "data", "srcset", "poster"):
            assert (attributes.get(name) or "#").startswith(("#", "data:")), (tag, attributes)
    assert all(target.startswith("#") for target in re.findall(r"url\(\s*['\"]?([^)]*)", page))
    assert "@import" not in page and "http://" not in page and "https://" not in page


def test_the_policy_forbids_scripts_and_there_are_none(page):
    tags = _Page(page).tags
    policy = [
        attributes["content"]
        for _, attributes in tags
        if attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policy == ["default-src 'none'; style-src 'unsafe-inline'; img-src data:"]
    assert not [
        tag
        for tag, attributes in tags
        if tag == "script" or any(name.startswith("on") for name in attributes)
    ]


def test_every_tag_is_closed_and_every_label_points_somewhere(page):
    parsed = _Page(page)
    assert parsed.open == []
    ids = [attributes["id"] for _, attributes in parsed.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {each["aria-labelledby"] for _, each in parsed.tags if "aria-labelledby" in each} <= set(ids)


def test_markup_and_templates_in_any_text_stay_text():
    results = language_model()
    results["samples"][0] = {"prompt": EVIL, "teacher": EVIL, "student": EVIL, "hard_only": EVIL}
    results["description"] = results["teacher"]["name"] = results["data"]["example"] = results["floor"][
        "name"
    ] = EVIL
    results["data"]["dropped"] = {EVIL: 1}
    results["data"]["not_looked_for"] = [EVIL]
    results["metrics"]["perplexity"]["title"] = EVIL
    results["machine"]["cpu"] = EVIL
    page = render_html(results, EVIL, EVIL, curves())
    assert not [tag for tag, _ in _Page(page).tags if tag in ("script", "img")]
    assert "{{ 7 * 7 }}" in page


def test_the_sections_come_in_the_order_in_which_they_are_read():
    page = _page(language_model())
    order = [page.index(part) for part in (
        "<h1>", 'class="glance"', 'id="h-charts"', 'id="h-results"', 'id="h-samples"', 'id="h-data"', 'id="h-time"', 'id="h-again"', 'id="h-read"',
    )]  # fmt: skip
    assert order == sorted(order)
    assert verdict_parts(language_model())[0].split(" (")[0].replace(" %", "\u00a0%") in page


def test_a_sample_says_who_was_right():
    page = _page(classifier())
    assert page.count("✓ right") == 4 and page.count("✗ wrong") == 2


def test_a_teacher_that_was_asked_is_right_by_its_label_and_not_by_its_words():
    results = classifier()
    some = next(one for one in results["samples"] if one["kind"] == "student fails")
    some["teacher"] = "That one is good."
    page = _page(results)
    assert page.count("✓ right") == 4 and page.count("✗ wrong") == 2
    assert re.findall(r'class="sample ([^"]+)"', page) == ["few both-right", "few student-fails"]


def test_the_first_numbers_are_those_of_the_results_and_a_loss_is_no_gain():
    told = {each.what: each for each in figures(language_model())}
    assert told["kept"].value == "91 %" and told["kept"].share == pytest.approx(0.91)
    assert told["better"].value == "+0.04"  # bits per byte fell by 0.04
    assert told["of the size"].value == "60 %" and told["the generation speed"].value == "1.7×"
    worse = language_model()
    worse["gain_over_hard_only"] |= {"value": 0.04, "low": 0.02, "high": 0.06, "better": False}
    assert {each.what: each.value for each in figures(worse)}["worse"] == "−0.04"


def test_rows_are_told_apart_by_who_failed_and_each_choice_counts_its_rows():
    page = _page(classifier())
    assert re.findall(r'class="sample ([^"]+)"', page) == ["few both-right", "few student-fails"]
    assert re.findall(r'<label for="rows-([a-z-]+)">[^<]*<span>(\d+)</span>', page) == [
        ("sample", "2"),
        ("student-fails", "1"),
        ("both-right", "1"),
    ]


def test_the_page_says_which_tasks_training_rows_were_not_searched_for():
    results = language_model()
    said = "<dt>not looked for in training rows</dt><dd>arc_easy, whose documents could not be read"
    assert said not in _page(results)
    results["data"]["not_looked_for"] = ["arc_easy"]
    assert said in _page(results)


def test_many_samples_are_cut_and_the_page_says_so():
    page = _page(ten_thousand_rows())
    assert page.count('<article class="sample') == 300
    assert "The first 300 of 400; all of them are in results.json." in page


def _without_controls(results: dict[str, Any]) -> None:
    results.update(controls={}, gain_over_hard_only=None, gains={})
    for sample in results["samples"]:
        del sample["hard_only"]


def _without_intervals(results: dict[str, Any]) -> None:
    for model in (results["teacher"], results["student"], *results["controls"].values()):
        for metrics in model["metrics"].values():
            for each in metrics.values():
                each.update(low=None, high=None)
    for metrics in results["gains"].values():
        for gain in metrics.values():
            gain.update(low=None, high=None)
    results["retention"] = results["retentions"]["eval"] = {
        "value": 0.9,
        "low": None,
        "high": None,
        "note": None,
    }


def _without_the_rest(results: dict[str, Any]) -> None:
    results.update(
        samples=[],
        stages={},
        reliability=None,
        floor=None,
        licence={},
        description="",
        data={"rows": {"train": 1}},
    )
    results["retention"] = {"value": None, "low": None, "high": None, "note": None}
    for model in (results["teacher"], results["student"], *results["controls"].values()):
        model.update(throughput=None, peak_memory_bytes=None, parameters=None)


def _without_further_data_sets(results: dict[str, Any]) -> None:
    for part in (results["datasets"], results["gains"], results["retentions"], results["floor"]["metrics"]):
        part.pop("year_2889", None)


@pytest.mark.parametrize(
    ("make", "cut"),
    [
        (language_model, _without_controls),
        (language_model, _without_intervals),
        (language_model, _without_further_data_sets),
        (classifier, _without_controls),
        (classifier, _without_the_rest),
    ],
)
def test_a_run_with_missing_parts_still_gets_its_page(make, cut):
    results = make()
    cut(results)
    page = _page(results)
    assert _Page(page).open == []
    assert "None" not in page and not re.search(r"\bnan\b", page)


def test_answers_of_language_models_can_be_chosen_by_who_was_right():
    results = language_model()
    results["samples"] = [
        {
            "prompt": f"prompt {n}", "reference": "<b>42</b>", "teacher": "42", "student": answer, "kind": kind,
            "right": {"teacher": True, "student": kind == "both right"},
        }
        for n, (answer, kind) in enumerate((("42", "both right"), ("41", "student fails")))
    ]  # fmt: skip
    page = render_html(results, RECIPE, "stillhouse run x.yaml")
    for kind in ("both-right", "student-fails"):
        assert page.count(f'id="rows-{kind}"') == 1
    assert "student fails, teacher does not <span>1</span>" in page
    assert page.count("✗ wrong") == 1 and page.count("✓ right") == 3
    assert "Answer in the data: &lt;b&gt;42&lt;/b&gt;" in page
    assert 'id="rows-same"' not in page

"""The pages as a person sees them: in a real browser, light and dark, on a phone and on paper, with nothing that runs."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import browser
from report_fixtures import RECIPE, classifier, curves, language_model, plan, plan_row, ten_thousand_rows
from stillhouse.report.html import render_html
from stillhouse.report.plan_page import render_plan

EVIL = '<script>document.title = "pwned"</script><img src=x onerror="document.title = \'pwned\'">'

if browser.found() is None:
    pytestmark = [pytest.mark.slow]


@pytest.fixture(scope="module")
def tab() -> Iterator[browser.Tab]:
    if browser.found() is None:
        pytest.skip(
            f"there is none of {', '.join(browser.NAMES)} here; install Chromium to look at the pages"
        )
    with browser.chromium() as found:
        yield found


def poisoned(results: dict[str, Any]) -> dict[str, Any]:
    """Markup wherever data, models and recipes can put it."""
    results["samples"][0] |= {
        "prompt": EVIL,
        "text": EVIL,
        "teacher": EVIL,
        "student": EVIL,
        "hard_only": EVIL,
    }
    results["description"] = results["teacher"]["name"] = results["data"]["example"] = EVIL
    results["data"]["dropped"] = {EVIL: 1}
    results["metrics"][results["metric"]]["title"] = EVIL
    return results


def write(folder: Path, name: str) -> Path:
    """One of the pages."""
    if name == "plan":
        text = render_plan(plan(True), EVIL)
    else:
        make = {"language": language_model, "classifier": classifier, "large": ten_thousand_rows}[name]
        text = render_html(poisoned(make()), EVIL + RECIPE, f"stillhouse run {EVIL}", curves())
    page = folder / f"{name}.html"
    page.write_text(text, encoding="utf-8")
    return page


@pytest.mark.parametrize("name", ["language", "classifier", "large", "plan"])
def test_nothing_runs_nothing_leaves_and_every_picture_has_words(
    tab: browser.Tab, tmp_path: Path, name: str
) -> None:
    page = write(tmp_path, name)
    for look in ({}, {"dark": True}, {"width": 390, "height": 844}):
        tab.open(page, **look)
        assert tab.said("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown") == []
        asked = {each["request"]["url"] for each in tab.said("Network.requestWillBeSent")}
        assert asked == {page.as_uri()}
        assert tab.value("document.title") != "pwned"
        assert tab.value("document.scripts.length + document.images.length") == 0
        assert tab.value("document.documentElement.scrollWidth <= innerWidth"), look
        assert tab.value(
            "[...document.querySelectorAll('svg')].every(e => e.getAttribute('role') == 'img' && e.getAttribute('aria-label'))"
        )
    assert tab.value("document.querySelectorAll('svg').length") >= 1
    assert tab.pdf(tmp_path / "page.pdf").stat().st_size > 10_000


def test_the_page_of_ten_thousand_rows_is_small_and_opens_at_once(tab: browser.Tab, tmp_path: Path) -> None:
    page = write(tmp_path, "large")
    assert page.stat().st_size < 3_000_000
    assert (
        min(tab.open(page) for _ in range(3)) < 1_000
    )  # of some, for the machine may be busy with other tests


def test_a_plans_table_fits_an_ordinary_screen(tab: browser.Tab, tmp_path: Path) -> None:
    shares = {"value": 0.914, "low": 0.8912, "high": 0.9334, "note": None}
    runs = [
        plan_row(f"train.learning_rate={rate}, objective.0.weight={weight}", 0.81, 134_515_008)
        | {
            "retention": shares,
            "gain": {"value": -0.0312, "low": -0.0401, "high": -0.0212},
            "builds_on": ["train.learning_rate=1e-4"],
        }
        for rate in ("0.0001", "0.00032")
        for weight in ("0.25", "0.75")
    ]
    for one in runs:
        one |= {"also": dict.fromkeys(("emails", "reviews"), one["quality"]), "seconds": 4000.0}
    page = tmp_path / "plan.html"
    page.write_text(render_plan(plan(True, runs=runs), RECIPE), encoding="utf-8")
    tab.open(page, width=1200)
    widths = "(e => [e.scrollWidth, e.clientWidth])(document.querySelector('.scroll'))"
    needed, given = tab.value(widths)
    assert needed <= given


def test_dark_mode_reaches_paper_ink_and_charts(tab: browser.Tab, tmp_path: Path) -> None:
    page = write(tmp_path, "classifier")
    colours = []
    for dark in (False, True):
        tab.open(page, dark=dark)
        style = "getComputedStyle(document.{}).{}"
        paper, ink = (
            tab.value(style.format(*what))
            for what in (("body", "backgroundColor"), ("querySelector('svg text')", "fill"))
        )
        colours.append([brightness(each) for each in (paper, ink)])
    (light, on_light), (dark_, on_dark) = colours
    assert light > 200 > 90 > on_light
    assert dark_ < 90 < 200 < on_dark


def brightness(colour: str) -> float:
    """rgb(1, 2, 3) -> their mean."""
    return sum(float(each) for each in colour[colour.index("(") + 1 : -1].split(",")[:3]) / 3


def test_rows_can_be_chosen_without_a_script(tab: browser.Tab, tmp_path: Path) -> None:
    tab.open(write(tmp_path, "large"))
    shown = "[...document.querySelectorAll('.sample')].filter(e => getComputedStyle(e).display != 'none')"
    total = tab.value("document.querySelectorAll('.sample').length")
    few = tab.value(f"{shown}.length")
    assert 0 < few < total
    tab.value("document.getElementById('rows-sample').click()")
    assert tab.value(f"{shown}.length") == total
    tab.value("document.querySelector('label[for=rows-student-fails]').click()")
    assert 0 < tab.value(f"{shown}.length") < total
    rights = tab.value(
        f"{shown}.map(e => [...e.querySelectorAll('.teacher .right, .student .wrong')].length)"
    )
    assert set(rights) == {2}

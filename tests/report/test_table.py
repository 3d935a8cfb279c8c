"""Numbers keep their meaning when they become strings."""

import math

import pytest

from report_fixtures import classifier, language_model
from stillhouse.report.numbers import MISSING, count, duration, number, percent, size, with_interval
from stillhouse.report.table import result_table


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (count(134_515_008), "134.5M"), (count(999_960), "1M"), (count(12), "12"), (count(1.5e9), "1.5B"),
        (size(269e6), "269 MB"), (size(512), "512 B"), (duration(3.14), "3.1 s"), (duration(59.97), "1 min 00 s"),
        (duration(125), "2 min 05 s"), (duration(3599.9), "1 h 00 min"), (number(-0.0123), "−0.0123"), (number(0), "0.00"),
        (number(1e-9), "1.0e−09"), (number(12345.6), "12,346"), (percent({"value": 0.913}), "91 %"),
    ],
)  # fmt: skip
def test_numbers_read_as_people_write_them(shown, expected):
    assert shown == expected


def test_digits_follow_the_width_of_the_interval():
    assert with_interval({"value": 1.02, "low": 0.99, "high": 1.05}) == "1.02 [0.99, 1.05]"
    assert with_interval({"value": 1.02}) == "1.02"
    assert with_interval({"value": 0.5, "low": None, "high": None}) == "0.500"


def test_turning_an_interval_around_keeps_low_before_high():
    assert with_interval({"value": -0.04, "low": -0.06, "high": -0.02}, -1.0) == "0.04 [0.02, 0.06]"


@pytest.mark.parametrize("value", [None, math.nan, math.inf, "high"])
def test_what_is_not_a_number_is_a_dash_and_never_the_word_nan(value):
    assert {count(value), size(value), duration(value), number(value), with_interval({"value": value})} == {
        MISSING
    }


def test_the_table_has_everyone_that_was_measured_and_the_floor():
    table = result_table(language_model())
    assert [row[0] for row in table.rows] == [
        "teacher",
        "student",
        "hard targets only",
        "student before",
        "floor",
    ]
    assert all(len(row) == len(table.columns) == len(table.groups) for row in table.rows)


def test_metrics_of_different_data_sets_do_not_share_a_column():
    table = result_table(language_model())
    assert len(set(zip(table.groups, table.columns, strict=True))) == len(table.columns)
    assert set(table.groups) == {"", "eval, 64 rows", "year_2889, 41 rows"}


def test_turned_on_its_side_the_table_has_the_same_cells():
    table = result_table(classifier())
    cells = sorted(cell for row in table.rows for cell in row[1:])
    assert cells == sorted(cell for _, lines in table.bodies() for line in lines for cell in line[1:])


def test_a_column_nobody_has_a_number_for_is_left_out():
    results = language_model()
    for model in (results["teacher"], results["student"], *results["controls"].values()):
        model["peak_memory_bytes"] = None
    assert "peak memory" not in result_table(results).columns


def test_every_speed_says_at_which_batch_and_an_older_run_that_kept_none_says_nothing():
    columns = result_table(language_model()).columns
    assert [one for one in columns if "tokens/s" in one] == [
        "generation at batch 1, tokens/s",
        "generation at batch 8, tokens/s",
        "reading at batch 2, tokens/s",
    ]
    assert "speed at batch 32, rows/s" in result_table(classifier()).columns
    older = classifier()
    for model in (older["teacher"], older["student"], *older["controls"].values()):
        del model["throughput"]["batch"]
    assert "speed, rows/s" in result_table(older).columns


def test_speeds_and_waits_stand_between_their_limits_and_what_is_exact_stands_alone():
    results = language_model()
    student = results["student"]
    student["throughput"] |= {
        "generate": 50.0,
        "intervals": {"generate": {"value": 50.0, "low": 48.0, "high": 51.0}},
    }
    student["latency"] = {
        "what": "first token", "p50": 0.021, "p95": 0.04,
        "intervals": {"p50": {"value": 0.021, "low": 0.02, "high": 0.03}, "p95": {"value": 0.04, "low": 0.03, "high": None}},
    }  # fmt: skip
    table = result_table(results)
    row = dict(zip(table.columns, table.rows[1], strict=True))
    assert row["generation at batch 1, tokens/s"] == "50.0 [48.0, 51.0]"
    assert row["time to first token, p50"] == "21 ms [20 ms, 30 ms]"
    assert row["time to first token, p95"] == "40 ms [30 ms, –]"
    assert "[" not in row["parameters"] + row["on disk"] + row["peak memory"]

"""When a student has paid for itself, by hand."""

import pytest

from stillhouse.measure.economics import economics


def test_break_even_by_hand() -> None:
    found = economics(10.0, 100.0, 7200.0, machine_per_hour=3.6, units_per_request=1000)
    assert found["teacher_per_million"] == pytest.approx(100.0)
    assert found["student_per_million"] == pytest.approx(10.0)
    assert found["making"] == pytest.approx(7.2)
    assert found["break_even_requests"] == pytest.approx(7.2 / 0.09)


def test_a_price_elsewhere_replaces_the_machines() -> None:
    found = economics(10.0, 100.0, 3600.0, machine_per_hour=3.6, teacher_per_million=20.0)
    assert found["break_even_requests"] == pytest.approx(3.6 / 10e-6)


def test_a_student_that_is_not_cheaper_never_pays() -> None:
    found = economics(10.0, 100.0, 3600.0, machine_per_hour=3.6, teacher_per_million=5.0)
    assert found["break_even_requests"] is None
    assert "never pays" in found["note"]


def test_without_a_speed_nothing_is_said() -> None:
    found = economics(None, None, 1.0, machine_per_hour=1.0)
    assert "neither the teacher's speed nor its price" in found["note"]
    assert "no speed" in economics(None, None, 1.0, machine_per_hour=1.0, teacher_per_million=1.0)["note"]


def test_what_apis_were_paid_is_earned_back_too() -> None:
    alone = economics(10.0, 100.0, 7200.0, machine_per_hour=3.6, units_per_request=1000)
    found = economics(10.0, 100.0, 7200.0, machine_per_hour=3.6, units_per_request=1000, paid=1.8)
    assert (found["machine"], found["making"]) == pytest.approx((7.2, 9.0))
    assert found["break_even_requests"] == pytest.approx(alone["break_even_requests"] * 9.0 / 7.2)

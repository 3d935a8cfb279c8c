"""The rules of waiting, as functions of a clock that is handed to them."""

import time
from email.utils import formatdate

import pytest

from stillhouse.asking.endpoint import retry_after
from stillhouse.asking.pace import FIRST_WAIT, LONGEST_WAIT, Breaker, Rate, Width, back_off


def test_back_off_doubles_up_to_a_bound_and_is_spread_over_all_of_it() -> None:
    """Without jitter a thousand clients that failed together come back together."""
    for attempt in (0, 1, 3, 50):
        ceiling = min(LONGEST_WAIT, FIRST_WAIT * 2**attempt)
        waits = [back_off(0, f"key {number}", attempt) for number in range(400)]
        assert 0 <= min(waits) < 0.1 * ceiling
        assert 0.9 * ceiling < max(waits) <= ceiling
        assert sum(waits) / len(waits) == pytest.approx(ceiling / 2, rel=0.15)


def test_back_off_is_a_function_of_seed_key_and_attempt() -> None:
    assert back_off(1, "a", 2) == back_off(1, "a", 2)
    assert len({back_off(1, "a", 2), back_off(2, "a", 2), back_off(1, "b", 2), back_off(1, "a", 3)}) == 4


@pytest.mark.parametrize("per_minute", [1, 60, 5000])
def test_no_minute_has_more_than_its_share_and_one(per_minute: int) -> None:
    rate, now, sent = Rate(per_minute), 0.0, []
    for _ in range(200):
        now += rate.wait(now)
        rate.take(now, 1)
        sent.append(now)
    for start in sent:
        assert sum(start <= one < start + 60 for one in sent) <= per_minute + 1


def test_tokens_that_were_not_used_are_given_back() -> None:
    rate = Rate(600)
    rate.take(0.0, 100)
    assert rate.wait(0.0) == pytest.approx(10.0)
    rate.correct(-90)
    assert rate.wait(0.0) == pytest.approx(1.0)


def test_an_idle_rate_saves_nothing_up() -> None:
    """A bucket that fills while nobody asks would burst over the provider's limit."""
    rate = Rate(60)
    rate.take(0.0, 1)
    rate.take(1000.0, 1)
    assert rate.wait(1000.0) == pytest.approx(1.0)


def test_a_rate_without_a_limit_never_waits() -> None:
    rate = Rate(None)
    rate.take(0.0, 1e9)
    assert rate.wait(0.0) == 0.0


def test_a_few_throttled_requests_do_not_narrow_it() -> None:
    """Halving at every 429 leaves one request under way where one in ten is throttled at random."""
    width = Width(64)
    for number in range(1000):
        if number % 10:
            width.answered()
        else:
            width.throttled(0.0)
    assert int(width.now) == 64


def test_a_burst_of_429s_among_many_requests_is_no_reason_for_all_to_rest() -> None:
    """64 sent at once: the six that are throttled come back in a row, before the first answer."""
    width = Width(64, known=True)
    for _ in range(6):
        width.throttled(99.0)
    assert width.rest_until == 0.0
    narrow = Width(4)
    for _ in range(4):
        narrow.throttled(99.0)
    assert narrow.rest_until == 99.0


def test_it_is_as_wide_as_it_may_be_after_two_rounds_and_at_once_where_it_was_answered_before() -> None:
    """Growing by half from eight took six rounds, each time that a run went on."""
    width = Width(64)
    for _ in range(int(width.now)):
        width.answered()
    for _ in range(int(width.now)):
        width.answered()
    assert int(width.now) == 64 == int(Width(64, known=True).now)
    assert int(Width(4).now) == 4


def test_an_endpoint_that_throttles_most_is_asked_less_and_then_more_again() -> None:
    width = Width(64)
    for _ in range(500):
        width.answered()
    assert int(width.now) == 64
    for _ in range(500):
        width.throttled(7.0)
    assert int(width.now) == 1
    assert width.rest_until == 7.0, "all rest when nobody is answered"
    for _ in range(500):
        width.answered()
    assert int(width.now) == 64


def test_the_breaker_opens_looks_with_one_and_closes() -> None:
    breaker = Breaker()
    for _ in range(Breaker.IN_A_ROW):
        assert breaker.width(0.0, 64) == 64
        breaker.failed(0.0)
    assert breaker.width(0.5, 64) == 0
    breaker.failed(0.6)  # one that was under way
    assert breaker.width(1.0, 64) == 1
    breaker.failed(1.1)
    assert breaker.looks == 1
    assert breaker.width(2.0, 64) == 0
    assert breaker.width(3.2, 64) == 1
    breaker.answered()
    assert breaker.width(3.3, 64) == 64


def test_the_breaker_gives_up_after_about_two_minutes_and_not_before() -> None:
    breaker, now = Breaker(), 0.0
    while not breaker.gave_up:
        if breaker.width(now, 1):
            breaker.failed(now)
        now += 0.1
    assert 100 < now < 200


def test_retry_after_is_read_in_all_its_forms() -> None:
    now = time.time()
    assert retry_after({"Retry-After": "3"}, now) == 3.0
    assert retry_after({"retry-after": "0.5"}, now) == 0.5
    assert retry_after({"retry-after-ms": "250", "retry-after": "9"}, now) == 0.25
    assert retry_after({"Retry-After": "-4"}, now) == 0.0
    assert retry_after({}, now) is None
    assert retry_after({"Retry-After": "soon"}, now) is None


def test_a_date_is_read_against_the_servers_own_clock() -> None:
    """Our clock may be minutes off, and the wait then too short."""
    headers = {"Date": formatdate(1_000_000, usegmt=True), "Retry-After": formatdate(1_000_030, usegmt=True)}
    assert retry_after(headers, now=1_000_025.0) == 30.0
    del headers["Date"]
    assert retry_after(headers, now=1_000_025.0) == pytest.approx(5.0)
    assert retry_after(headers, now=1_000_999.0) == 0.0

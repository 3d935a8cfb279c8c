"""How fast one may ask: rates, width, and when to leave an endpoint alone.  Everything is a function of the clock it is handed."""

from ..seeds import draw_seed

FIRST_WAIT, LONGEST_WAIT = 0.25, 30.0
"""Seconds: the ceiling of the first wait, which doubles at each further attempt, and the ceiling of all."""


def back_off(seed: int, key: str, attempt: int) -> float:
    """Seconds before attempt number `attempt` + 1: exponential, with full jitter, so that clients do not come back together.

    Source: Brooker 2015, "Exponential Backoff And Jitter" (AWS Architecture Blog).
    """
    ceiling = min(LONGEST_WAIT, FIRST_WAIT * 2.0 ** min(attempt, 20))
    return ceiling * (draw_seed(seed, "back-off", key, attempt) / 2**63)


class Rate:
    """So many units a minute, evenly spread: no minute has more than its share and one request."""

    def __init__(self, per_minute: int | None) -> None:
        self._seconds = 0.0 if per_minute is None else 60.0 / per_minute
        self._free_at = 0.0

    def wait(self, now: float) -> float:
        """Seconds until the next request may leave."""
        return max(0.0, self._free_at - now)

    def take(self, now: float, units: float) -> None:
        """A request of so many units leaves."""
        self._free_at = max(self._free_at, now) + units * self._seconds

    def correct(self, units: float) -> None:
        """It used so many more (or, negative, fewer) than was taken."""
        self._free_at += units * self._seconds


class Width:
    """How many requests may be under way: wider while all goes well, narrower while a good part of them is throttled.

    A few 429s are weather: what was throttled waits for its own Retry-After, and the others go on.  A quarter of them
    means that the endpoint is slower than we are; as many in a row without an answer, that it wants a rest.  (A 429 comes at
    once and an answer takes its time, so that a few in a row say nothing where many are under way.)
    It begins narrow and doubles until it was too wide once, as TCP does; where an earlier run was answered by this endpoint
    it begins as wide as it may be.
    """

    SHARE, IN_A_ROW = 0.25, 4

    def __init__(self, most: int, known: bool = False) -> None:
        self.most = most
        self.now: float = most if known else min(most, max(8, most // 4))
        self._wider = 2.0
        self._seen = self._throttled = self._row = 0
        self.rest_until = 0.0

    def answered(self) -> None:
        """An attempt ended in anything but a throttle."""
        self._row = 0
        self._count(False)

    def throttled(self, until: float) -> None:
        """One was throttled until then."""
        self._row += 1
        if self._row >= max(self.IN_A_ROW, self.SHARE * self.now):
            self.rest_until = max(self.rest_until, until)
        self._count(True)

    def _count(self, throttled: bool) -> None:
        self._seen += 1
        self._throttled += throttled
        if self._seen < max(8, int(self.now)):
            return
        factor = self._wider
        if self._throttled > self.SHARE * self._seen:
            factor, self._wider = 0.6, 1.5
        self.now = min(float(self.most), max(1.0, self.now * factor))
        self._seen = self._throttled = 0


class Breaker:
    """Leaves a failing endpoint alone, looks again with one request at a time, and at last gives up."""

    IN_A_ROW, LOOKS = 8, 7

    def __init__(self) -> None:
        self.failures = self.looks = 0
        self.open_until: float | None = None
        """None while all is well."""

    @property
    def gave_up(self) -> bool:
        """Whether it looked often enough: about two minutes after the first failures."""
        return self.looks >= self.LOOKS

    def answered(self) -> None:
        """Something came back that makes sense."""
        self.failures = self.looks = 0
        self.open_until = None

    def failed(self, now: float) -> None:
        """A request failed; those that were under way when it opened are not counted again."""
        self.failures += 1
        if self.open_until is None:
            if self.failures >= self.IN_A_ROW:
                self.open_until = now + 1.0
        elif now >= self.open_until:  # this was a look
            self.looks += 1
            self.open_until = now + 2.0**self.looks

    def width(self, now: float, wanted: int) -> int:
        """Requests that may be under way."""
        if self.open_until is None:
            return wanted
        return 1 if now >= self.open_until else 0

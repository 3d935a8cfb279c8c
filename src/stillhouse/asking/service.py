"""Requests -> answers in their order: each is asked until it has one final answer, and never again.

One loop sends, waits and writes down; nothing else touches the ledger.  A request that must wait (Retry-After, back-off)
holds no place: others go meanwhile.  Until something was answered requests go one at a time, so a wrong key, URL or model
costs one request; only if nothing comes back, good or bad, another one leaves every two seconds.  Where an earlier run was
answered the first one goes a quarter of a second ahead of the others, which is time enough to refuse a key.

What arrived is in the ledger before anything else is done about it: a refusal (4xx) too, so that a run that is killed does not
ask again for what was refused.  What was under way at the kill cannot be known, and is asked again.
"""

import asyncio
import heapq
import time
from collections import deque
from collections.abc import Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from ..errors import ResourceError, TeacherError
from ..progress import Silent, Watch
from ..recipe import Api
from ..stopping import asked, good_moments
from .endpoint import Endpoint, Fatal, Reply, Retry, price_of
from .ledger import Ledger
from .messages import Answer, Request
from .pace import Breaker, Rate, Width, back_off

ATTEMPTS = 12
"""Of one request, until this run gives it up; the next run tries again."""
EMPTY_TWICE = 2
REFUSALS, SHARE_OF_ELSEWHERE = 5, 0.1
"""Requests refused before anything was answered: then it is not about the rows.  More are about the rows where others have answers
of the model's already, from a file or from where it was before: so many as this share of those."""
PROBE = 2.0
"""Seconds without any answer, after which one more request may be under way."""
REFUSED_WITHIN = 0.25
"""Seconds in which an endpoint says that a key is wrong, which needs no model: one that has answered before is trusted after that."""
LONGEST = 900.0
"""Seconds of Retry-After that are waited for."""
SECONDS_AN_ANSWER = 2.0
"""Of an endpoint that nobody has measured."""


def ask(
    api: Api,
    requests: Sequence[Request],
    ledger: Ledger,
    watch: Watch | None = None,
    *,
    seed: int = 0,
    field: str = "teacher.api",
) -> list[Answer | None]:
    """One answer a request, in their order; None only where `api` has no endpoint and the ledger no answer.

    Args: seed: of the jitter; field: where the recipe names `api`.
    Raises: TeacherError if the endpoint cannot be used, or did not answer everything; ResourceError at `max_cost`.
        What was answered until then is kept.
    """
    watch = watch or Silent()
    ledger.plan(requests)
    unique = list({one.key: one for one in requests}.values())
    known = ledger.answers(unique)
    missing = [one for one in unique if one.key not in known]
    if missing and api.base_url is not None:
        if len(missing) < len(unique):
            watch.note(f"  {len(unique) - len(missing):,} answers are there, {len(missing):,} are asked for")
        for line in forecast(api, missing, ledger, field):
            watch.note(f"  {line}")
        with good_moments():
            _run(_Loop(api, missing, ledger, watch, seed, field).run())
        known = ledger.answers(unique)
    return [known.get(one.key) for one in requests]


def forecast(api: Api, missing: Sequence[Request], ledger: Ledger, field: str = "teacher.api") -> list[str]:
    """What `missing` will take, as lines for a person.

    Raises: ResourceError if what the teacher must read alone costs more than is left of `max_cost`.
    """
    read = sum(one.size for one in missing)
    most = sum(one.max_tokens for one in missing)
    most_read = sum(one.most_read for one in missing)
    usual, _, _ = ledger.typical(*_like(api, missing))
    lines = [f"{len(missing):,} requests: about {read:,} tokens to read, at most {most:,} to write"]
    if api.price is not None:
        low, high = price_of(api.price, read, 0), price_of(api.price, most_read, most)
        assert low is not None
        assert high is not None
        line = f"cost: at most ${high:,.2f}"
        if usual:
            expected = price_of(api.price, read, min(most, usual * len(missing))) or 0.0
            line = f"cost: about ${expected:,.2f}, by the answers so far; at most ${high:,.2f}"
        lines.append(line)
        if api.max_cost is not None:
            left = api.max_cost - ledger.spent()
            if low > left:
                raise ResourceError(
                    f"{field}.max_cost: what the model must read alone costs ${low:,.4f}, and ${max(0.0, left):,.4f} of "
                    f"${api.max_cost:g} are left; raise it, or ask about fewer rows."
                )
            if high > left:
                lines.append(f"asking stops at max_cost, ${api.max_cost:g}, of which ${left:,.4f} are left")
    return lines


def _like(api: Api, requests: Sequence[Request]) -> tuple[str, str, set[str]]:
    """Where, whom and what for: by what the ledger knows answers such as these will have."""
    return api.base_url or "", api.model, {one.purpose for one in requests}


def takes(api: Api, missing: Sequence[Request]) -> dict[str, Any]:
    """{"requests", "seconds", "dollars": at most, or None without a price} that `missing` will take."""
    read, write = sum(one.size for one in missing), sum(one.max_tokens for one in missing)
    waits = [len(missing) * SECONDS_AN_ANSWER / api.concurrency]
    waits += [60 * len(missing) / api.requests_per_minute] if api.requests_per_minute else []
    waits += [60 * (read + write) / api.tokens_per_minute] if api.tokens_per_minute else []
    return {
        "requests": len(missing),
        "seconds": 2.0 + max(waits) if api.base_url is not None else 2.0,
        "dollars": price_of(api.price, sum(one.most_read for one in missing), write),
    }


@dataclass(order=True)
class _Job:
    """A request on its way to an answer."""

    ready_at: float
    place: int
    request: Request
    tries: int = 0
    empty: int = 0
    """Answers that were empty."""
    refused: int = 0
    """Tries that the endpoint refused: it may be overloaded.  An answer that is lost on the way does not say so."""
    form: str = ""
    """What was wrong with the form of its last answer."""


class _Loop:
    """The state of one call of `ask`."""

    def __init__(
        self, api: Api, missing: Sequence[Request], ledger: Ledger, watch: Watch, seed: int, field: str
    ) -> None:
        self.field = field
        self.api, self.ledger, self.watch, self.seed = api, ledger, watch, seed
        self.fresh = deque(_Job(0.0, place, request) for place, request in enumerate(missing))
        self.waiting: list[_Job] = []
        self.flying: dict[asyncio.Task[Reply], tuple[_Job, int, float, float]] = {}
        """task -> (job, attempt, when it was sent, dollars it may cost)"""
        self.requests, self.tokens = Rate(api.requests_per_minute), Rate(api.tokens_per_minute)
        self.width = Width(api.concurrency, known=ledger.knows(api.base_url or ""))
        self.breaker = Breaker()
        self.total, self.done, self.answered = len(missing), 0, 0
        self.given_up: list[tuple[_Job, str]] = []
        self.stop: TeacherError | ResourceError | None = None
        _, self.usual, self.answers = ledger.typical(*_like(api, missing))
        """Dollars of a mean answer so far, which are what one that was lost counts as; and of how many with a price."""
        source = (api.base_url or "", api.model)
        self.heard = ledger.knows(*source)
        """Whether this model has answered anything here, now or in an earlier run."""
        self.trusted = self.heard
        """Whether an earlier run was answered by it: then a key that is wrong now is all that one request is sent ahead for."""
        self.elsewhere = 0 if self.heard else ledger.count(api.model, api.base_url or "")
        """How many answers of its there are all the same: from a file, or from where it was before."""
        self.held = [] if self.heard else ledger.refusals(*source)
        """(question, why) of its refusals before that: if all are refused, it is not about the rows, and they are forgotten."""
        self.counts = True
        """Whether its answers say how many tokens they took."""
        if buried := ledger.bury():
            watch.note(
                f"  {buried} requests were under way when an earlier run was killed; they are asked again"
            )
        self.spent = ledger.spent()
        self.began = self.silent_since = 0.0

    async def run(self) -> None:
        """Until everything is answered, given up, stopped or unaffordable.  Raises: TeacherError or ResourceError at the end."""
        endpoint = Endpoint(self.api, self.field)
        self.began = self.silent_since = time.monotonic()
        try:
            while self.flying or (self.stop is None and not asked() and (self.fresh or self.waiting)):
                pause = self._send(endpoint)
                if not self.flying:
                    if self.stop is None and pause is not None:
                        await asyncio.sleep(min(pause, 0.25))  # a signal is looked for in between
                    continue
                finished, _ = await asyncio.wait(
                    self.flying, timeout=pause, return_when=asyncio.FIRST_COMPLETED
                )
                for task in finished:
                    self._land(task)
        finally:
            await endpoint.close()
        if self.held and not self.stop and not self.elsewhere:
            self._refused_all()
        if self.stop is not None:
            raise self.stop
        if self.given_up:
            job, reason = self.given_up[0]
            raise TeacherError(
                f"{self.field}: {len(self.given_up):,} of {self.total:,} requests have no answer after {job.tries} attempts "
                f"(row {job.request.row}: {reason}); the others are kept. Run the same command to ask for these again."
            )

    # ── sending ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _send(self, endpoint: Endpoint) -> float | None:
        """Send what may leave now.  Returns: seconds until more may; None if only an answer can change that."""
        while self.stop is None and not asked():
            now = time.monotonic()
            if (pause := self._pause(now)) is None or pause > 0:
                return pause
            job = heapq.heappop(self.waiting) if self._is_ready(now) else self.fresh.popleft()
            ceiling = price_of(self.api.price, job.request.most_read, job.request.max_tokens) or 0.0
            if not self._affordable(ceiling):
                heapq.heappush(self.waiting, replace(job, ready_at=now))
                if not self.flying:
                    self._stop_at_cost()
                return None
            self.requests.take(now, 1)
            self.tokens.take(now, self._weight(job.request))
            attempt = self.ledger.begin(job.request, ceiling or None)
            task = asyncio.ensure_future(endpoint.send(job.request))
            self.flying[task] = (job, attempt, now, ceiling)
        return None

    def _pause(self, now: float) -> float | None:
        """Seconds until the next request may leave; None while that hangs on one that is under way."""
        silent = now - self.silent_since
        probe = REFUSED_WITHIN if self.trusted else PROBE
        wanted = int(self.width.now)
        if not self.answered and not (self.trusted and silent >= probe):
            wanted = min(wanted, 1 + int(silent / probe))
        allowed = self.breaker.width(now, wanted)
        if self.breaker.open_until is not None and allowed == 0:
            return self.breaker.open_until - now
        if len(self.flying) >= allowed:
            return None if self.answered else probe - silent % probe
        if not self.fresh and not self.waiting:
            return None
        ready = now if self.fresh else self.waiting[0].ready_at
        return max(
            ready - now, self.width.rest_until - now, self.requests.wait(now), self.tokens.wait(now), 0.0
        )

    def _is_ready(self, now: float) -> bool:
        return bool(self.waiting) and (self.waiting[0].ready_at <= now or not self.fresh)

    def _weight(self, request: Request) -> float:
        """Tokens that a request will take, about: what providers count towards a limit."""
        return request.size + request.max_tokens

    def _affordable(self, ceiling: float) -> bool:
        if self.api.max_cost is None:
            return True
        reserved = sum(cost for *_, cost in self.flying.values())
        return self.spent + reserved + ceiling <= self.api.max_cost

    def _stop_at_cost(self) -> None:
        self.stop = ResourceError(
            f"{self.field}.max_cost: ${self.spent:,.4f} of ${self.api.max_cost:g} are spent, and the next request may cost more "
            f"than is left, with {self.total - self.done:,} to go; what was answered is kept. Raise it and run again."
        )

    # ── landing ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _land(self, task: "asyncio.Task[Reply]") -> None:
        """Write down what came of an attempt, and decide what to do next."""
        job, attempt, sent, ceiling = self.flying.pop(task)
        try:
            reply = task.result()
        except Exception as error:  # what cannot even be sent must not cost the others under way
            reply = Retry(f"the request cannot be sent ({type(error).__name__})", by_form=True)
        now = self.silent_since = time.monotonic()
        job.tries += 1
        match reply:
            case Answer():
                self._answered(job, reply, attempt, now - sent)
            case Retry():
                lost = self._lost(reply, ceiling) if reply.billed else None
                self.spent += lost or 0.0
                self.ledger.end(attempt, now - sent, reply.reason, lost)
                self.tokens.correct(-self._weight(job.request))
                self._again(job, reply, now)
            case Fatal(sentence):
                self.ledger.end(attempt, now - sent, sentence, None)
                self.stop = self.stop or TeacherError(
                    f"{self.field}: {self.api.base_url} cannot be used: {sentence.rstrip('.')}; mend {self.field} and run again."
                )
        self._tell()

    def _answered(self, job: _Job, answer: Answer, attempt: int, seconds: float) -> None:
        """Keep it, unless it is empty for the first time."""
        request = job.request
        self.spent += answer.cost or 0.0
        self.width.answered()
        self.breaker.answered()
        used = answer.input_tokens + answer.output_tokens
        self.tokens.correct((used or request.size) - self._weight(request))
        if not answer.counted and self.counts and self.api.price is not None:
            self.counts = False
            self.watch.note(
                f"  {self.api.base_url} does not say how many tokens an answer takes (usage): costs are counted by the texts"
            )
        job.empty += answer.status == "empty"
        if answer.status == "empty" and job.empty < EMPTY_TWICE:
            self.ledger.end(attempt, seconds, "empty", answer.cost)
            self._wait(job, 0.0)
            return
        self.done += 1
        self.ledger.keep(request, answer, self.api.base_url or "")
        if answer.status != "refused":
            self.heard = True
            self.answered += 1
            if answer.cost is not None:
                self.answers += 1
                self.usual = (self.usual or 0.0) + (answer.cost - (self.usual or 0.0)) / self.answers
        self.ledger.end(attempt, seconds, answer.status, answer.cost)
        if self.heard:
            self.held.clear()
            return
        self.held.append((request.question, answer.reason))
        if len(self.held) >= REFUSALS + SHARE_OF_ELSEWHERE * self.elsewhere:
            self._refused_all()

    def _lost(self, reply: Retry, ceiling: float) -> float | None:
        """Dollars that an answer took which was made and lost: as it says, as most do, or as much as it may."""
        return next((cost for cost in (reply.cost, self.usual) if cost is not None), ceiling or None)

    def _refused_all(self) -> None:
        self.ledger.forget([question for question, _ in self.held], self.api.base_url or "")
        self.stop = self.stop or TeacherError(
            f"{self.field}: {self.api.base_url} refused {len(self.held)} requests and answered none ({self.held[0][1]}); "
            f"mend {self.field} and run again."
        )

    def _again(self, job: _Job, reply: Retry, now: float) -> None:
        """Put it back, for a time that depends on what went wrong."""
        job.refused += not reply.billed
        again = reply.by_form and job.form == reply.reason
        job.form = reply.reason if reply.by_form else ""
        wait = back_off(self.seed, job.request.key, job.refused)
        if reply.after is not None:
            wait += reply.after
        if reply.throttled:
            self.width.throttled(now + wait)
        else:
            self.width.answered()
            self.breaker.failed(now)
        if self.breaker.gave_up:
            self.stop = self.stop or TeacherError(
                f"{self.field}: {self.api.base_url} does not answer ({reply.reason}); what was answered is kept. "
                "Run the same command when it is back."
            )
        elif reply.after is not None and reply.after > LONGEST:
            self.stop = self.stop or TeacherError(
                f"{self.field}: {self.api.base_url} asks to come back in {reply.after / 60:,.0f} minutes ({reply.reason}); "
                "what was answered is kept. Run the same command then."
            )
        if job.tries >= ATTEMPTS or again:
            self.given_up.append((job, reply.reason))
        else:
            self._wait(job, wait)

    def _wait(self, job: _Job, seconds: float) -> None:
        heapq.heappush(self.waiting, replace(job, ready_at=time.monotonic() + seconds))

    def _tell(self) -> None:
        rate = self.done / max(1e-9, time.monotonic() - self.began)
        cost = f", ${self.spent:,.4f}" if self.api.price is not None else ""
        self.watch.step(
            "asking", self.done, self.total, f"{rate:,.1f} answers/s, {len(self.flying)} under way{cost}"
        )


def _run(work: Coroutine[Any, Any, None]) -> None:
    """`asyncio.run`, in a thread of its own where a loop runs already (a notebook)."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        asyncio.run(work)
        return
    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, work).result()

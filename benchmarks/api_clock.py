"""The storm of api_storm.py on a clock of its own: what the loop that asks loses by its own rules, whatever the machine does.

    python benchmarks/api_clock.py

The real loop and the real ledger run; only time (it jumps to the next event) and the endpoint (the same shares of faults) stand in.
Starting Python after a kill takes no time here.  Prints seconds and their ratio to the ideal, rows × latency ÷ concurrency, which
knows of no faults: hangs, and answers lost on the way, alone bring it to about 1.35.
"""

import asyncio
import random
import selectors
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any
from unittest import mock

from common import arguments

from stillhouse.asking import Answer, Ledger, Request, chat, service
from stillhouse.asking.endpoint import Retry
from stillhouse.progress import Silent
from stillhouse.recipe import Api, Price

FAULTS = {"throttled": 0.10, "broken": 0.10, "garbage": 0.05, "hang": 0.03, "dropped": 0.02, "empty": 0.01}
REFUSED = 0.01


class Clock(asyncio.SelectorEventLoop):
    """A loop that does not wait: where nothing is ready its time jumps to what comes next."""

    def __init__(self) -> None:
        self.now = 0.0
        clock = self

        class Selector(selectors.SelectSelector):
            def select(self, timeout: float | None = None) -> Any:
                ready = super().select(0)
                clock.now += 0.0 if ready or not timeout else timeout
                return ready

        super().__init__(Selector())

    def time(self) -> float:
        """Seconds since the loop was made."""
        return self.now


class Weather:
    """An endpoint whose faults follow from (row, number of the attempt)."""

    def __init__(self, latency: float, timeout: float, seed: int) -> None:
        self.latency, self.timeout, self.seed, self.tries = latency, timeout, seed, Counter[str]()

    async def close(self) -> None:
        """Nothing to let go of."""

    async def send(self, request: Request) -> Any:
        """As the endpoint of the tests answers; 429 and 5xx come at once, and half of the 429 say how long to wait."""
        if random.Random(f"{self.seed} {request.row}").random() < REFUSED:
            return Answer("refused", "", "HTTP 400")
        self.tries[request.row] += 1
        drawn = random.Random(f"{self.seed} {request.row} {self.tries[request.row]}")
        fault = drawn.choices([*FAULTS, ""], [*FAULTS.values(), 1 - sum(FAULTS.values())])[0]
        if fault == "throttled":
            return Retry("HTTP 429", drawn.choice([None, None, 1.0, 1.5]), throttled=True)
        if fault == "broken":
            return Retry("HTTP 500")
        await asyncio.sleep(self.timeout if fault == "hang" else self.latency)
        return Retry(fault, billed=True) if fault else Answer("answered", "said", "", (), 4, 2, 1e-5)


def seconds(rows: int, api: Api, weather: Weather, kills: int, seed: int) -> float:
    """Of all processes together."""
    requests = [chat(api, f"row {number}", row=str(number), purpose="train") for number in range(rows)]
    ideal, draw, total = rows * weather.latency / api.concurrency, random.Random(seed), 0.0
    with TemporaryDirectory() as folder, Ledger(Path(folder) / "ledger.sqlite") as ledger:
        ledger.plan(requests)
        for number in range(kills + 1):
            known = ledger.answers(requests)
            clock = Clock()
            until = draw.uniform(0.1, 0.25) * ideal if number < kills else None
            stand_ins = {"time": SimpleNamespace(monotonic=clock.time), "Endpoint": lambda *_: weather}
            with mock.patch.dict(vars(service), stand_ins):
                loop = service._Loop(
                    api,
                    [one for one in requests if one.key not in known],
                    ledger,
                    Silent(),
                    seed,
                    "teacher.api",
                )
                clock.run_until_complete(_until(loop.run(), until))
            total += clock.now
            for task in asyncio.all_tasks(clock):
                task.cancel()
            clock.run_until_complete(asyncio.sleep(0))
            clock.close()
    return total


async def _until(work: Any, seconds: float | None) -> None:
    try:
        await asyncio.wait_for(work, seconds)
    except TimeoutError:
        return  # killed


def main() -> None:
    """Without kills, and with five."""
    asked = arguments(__doc__ or "", rows=10_000, concurrency=64, latency=1.0, timeout=5.0, seed=0)
    api = Api(
        base_url="http://127.0.0.1:9/v1", model="storm", concurrency=asked.concurrency, timeout=asked.timeout,
        price=Price(input=1.0, output=2.0),
    )  # fmt: skip
    ideal = asked.rows * asked.latency / asked.concurrency
    for kills in (0, 5):
        took = seconds(asked.rows, api, Weather(asked.latency, asked.timeout, asked.seed), kills, asked.seed)
        print(f"  {kills} kills: {took:6.1f} s, {took / ideal:.2f} × the ideal {ideal:.1f} s", flush=True)


if __name__ == "__main__":
    main()

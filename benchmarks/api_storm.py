"""A teacher behind a bad endpoint: what is lost, bought twice, or asked too early, and how long it takes.

    python benchmarks/api_storm.py                      # 10,000 prompts, five kills
    python benchmarks/api_storm.py --kills 0            # for the time
    python benchmarks/api_storm.py --max-cost 0.1       # for the overshoot

The endpoint (tests/endpoint.py) is a process of its own and counts what it answered; so is the client, which is killed with
SIGKILL at seeded moments and started again.  Prints one line of JSON.  What is under way at a kill cannot be known: it is asked
again, and may be delivered twice or be refused once more.  Starting Python and its packages six times is counted apart.
"""

import argparse
import json
import random
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

ENDPOINT = Path(__file__).parents[1] / "tests" / "endpoint.py"
WEATHER = {
    "throttled": 0.10,
    "broken": 0.10,
    "garbage": 0.05,
    "hang": 0.03,
    "dropped": 0.02,
    "empty": 0.01,
    "too_long": 0.01,
}
PRICE = {"input": 1.0, "output": 2.0}


def client(settings: dict[str, Any]) -> None:
    """Ask everything once, and tell what came back."""
    import openai  # noqa: F401  # a package that starts, as torch is: asking loads it late

    from stillhouse.asking import Ledger, ask, chat
    from stillhouse.errors import ResourceError
    from stillhouse.pipeline import peak_memory
    from stillhouse.recipe import Api

    api = Api(model="storm", **settings["api"])
    requests = [
        chat(api, f"row {number}", row=str(number), purpose="train") for number in range(settings["rows"])
    ]
    start = time.perf_counter()
    with Path(settings["started"]).open("a", encoding="utf-8") as handle:
        handle.write(f"{time.time()}\n")
    said: list[Any] = []
    with Ledger(Path(settings["ledger"])) as ledger:
        try:
            said = ask(api, requests, ledger, seed=settings["seed"])
        except ResourceError as error:
            print(error, file=sys.stderr)
        spent = ledger.spent()
    good = [answer is not None and answer.text == f"Said: row {number}" for number, answer in enumerate(said)]
    found = {
        "seconds": round(time.perf_counter() - start, 1),
        "answers": sum(answer is not None for answer in said),
        "refused": sum(answer is not None and answer.status == "refused" for answer in said),
        "in_their_place": sum(good),
        "dollars": spent,
        "peak_megabytes": round((peak_memory() or 0) / 1e6),
    }
    print(json.dumps(found))


def main() -> None:
    """The driver."""
    parse = argparse.ArgumentParser(description=__doc__)
    parse.add_argument("--rows", type=int, default=10_000)
    parse.add_argument("--concurrency", type=int, default=64)
    parse.add_argument("--latency", type=float, default=1.0)
    parse.add_argument("--timeout", type=float, default=5.0)
    parse.add_argument("--kills", type=int, default=5)
    parse.add_argument("--seed", type=int, default=0)
    parse.add_argument("--max-cost", type=float)
    wanted = parse.parse_args()
    weather = {**WEATHER, "latency": wanted.latency, "seed": wanted.seed}
    server = subprocess.Popen(
        [sys.executable, str(ENDPOINT), json.dumps(weather)], stdout=subprocess.PIPE, text=True
    )
    assert server.stdout is not None
    url = server.stdout.readline().strip()
    ideal = wanted.rows * wanted.latency / wanted.concurrency
    draw = random.Random(wanted.seed)
    with TemporaryDirectory() as folder:
        api = {"base_url": url, "concurrency": wanted.concurrency, "timeout": wanted.timeout, "price": PRICE}
        api |= {} if wanted.max_cost is None else {"max_cost": wanted.max_cost, "max_tokens": 16}
        settings = {"api": api, "rows": wanted.rows, "seed": wanted.seed, "ledger": f"{folder}/ledger.sqlite"}
        settings["started"] = f"{folder}/started"
        words = [sys.executable, __file__, "--client", json.dumps(settings)]
        start = time.perf_counter()
        begun = []
        for _ in range(wanted.kills):
            begun.append(time.time())
            running = subprocess.Popen(words, stdout=subprocess.DEVNULL)
            time.sleep(draw.uniform(0.1, 0.25) * ideal)
            running.kill()
            running.wait()
        begun.append(time.time())
        last = subprocess.run(words, capture_output=True, text=True, check=True)
        seconds = time.perf_counter() - start
        starting = _starting(begun, [float(line) for line in Path(f"{folder}/started").read_text().split()])
        print(last.stderr, file=sys.stderr)
    with urllib.request.urlopen(f"{url.removesuffix('/v1')}/stats") as answer:
        seen = json.load(answer)
    server.kill()
    faults = seen["outcomes"].get("hang", 0) * wanted.timeout
    faults += sum(seen["outcomes"].get(name, 0) for name in ("garbage", "dropped", "empty")) * wanted.latency
    print(
        json.dumps(
            {
                "rows": wanted.rows,
                "last_client": json.loads(last.stdout),
                "seconds_in_all": round(seconds, 1),
                "seconds_of_it_starting": round(starting, 1),
                "of_ideal": round((seconds - starting) / ideal, 2),
                "ideal_seconds": round(ideal, 1),
                "ideal_seconds_with_what_faults_take": round(ideal + faults / wanted.concurrency, 1),
                "delivered_per_row": round(seen["billed"].get("delivered", 0) / wanted.rows, 4),
                "endpoint": seen,
            }
        )
    )


def _starting(begun: list[float], asked: list[float]) -> float:
    """Seconds from the start of each process until it asked, or until it was killed before that."""
    ends = [*begun[1:], float("inf")]
    firsts = [
        min([at for at in asked if begin <= at < end], default=end)
        for begin, end in zip(begun, ends, strict=True)
    ]
    return sum(first - begin for begin, first in zip(begun, firsts, strict=True))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--client"]:
        client(json.loads(sys.argv[2]))
    else:
        main()

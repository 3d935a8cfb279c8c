"""Asking through real HTTP on loopback: nothing lost, nothing bought twice, nothing asked too early."""

import asyncio
import json
import signal
import socket
import sqlite3
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from endpoint import Endpoint, Weather, prompt_of
from stillhouse.asking import Answer, Ledger, Request, ask, chat, service, takes
from stillhouse.asking.messages import most_tokens, read_answer, usage_of
from stillhouse.errors import RecipeError, ResourceError, TeacherError
from stillhouse.progress import Silent
from stillhouse.recipe import Api
from typed import start

STORM = Weather(
    seed=1, throttled=0.1, broken=0.1, garbage=0.05, dropped=0.03, empty=0.03, too_long=0.03, latency=0.01,
    retry_after=0.2,
)  # fmt: skip
PRICE = {"input": 20.0, "output": 200.0}


class Notes(Silent):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, line: str) -> None:
        self.lines.append(line)


def api(server: Endpoint, **more: Any) -> Api:
    return Api(base_url=server.url, model="big", **{"timeout": 30.0, **more})


def prompts(of: Api, count: int, purpose: str = "train") -> list[Request]:
    return [chat(of, f"row {number}", row=str(number), purpose=purpose) for number in range(count)]


def test_a_storm_loses_doubles_and_shifts_nothing(ledger: Ledger) -> None:
    with Endpoint(weather=STORM) as endpoint:
        answers = ask(api(endpoint), prompts(api(endpoint), 100), ledger, seed=1)
    refused = {number for number, answer in enumerate(answers) if answer and answer.status == "refused"}
    assert 0 < len(refused) < 20
    assert all(
        answer and answer.text == ("" if number in refused else f"Said: row {number}")
        for number, answer in enumerate(answers)
    )
    seen = endpoint.seen
    assert {"429", "500", "503", "garbage", "dropped", "empty", "400"} <= set(seen.outcomes), "the storm came"
    assert set(seen.delivered.values()) == {1}
    assert (seen.too_early, seen.after_refusal) == (0, 0)


def test_a_request_that_hangs_is_asked_again(ledger: Ledger) -> None:
    with Endpoint(weather=Weather(hang=1.0)) as endpoint:
        settings = api(endpoint, timeout=0.3)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("stillhouse.asking.service.ATTEMPTS", 2)
            with pytest.raises(
                TeacherError, match=r"1 of 1 requests have no answer after 2 attempts .*within 0.3 s"
            ):
                ask(settings, prompts(settings, 1), ledger)
    assert endpoint.seen.outcomes == {"hang": 2}


def test_what_the_ledger_has_is_not_asked_again(ledger: Ledger) -> None:
    with Endpoint() as endpoint:
        settings = api(endpoint)
        first = ask(settings, prompts(settings, 20), ledger)
        moved = settings.model_copy(update={"base_url": "http://127.0.0.1:9/v1"})
        again = ask(moved, prompts(moved, 20, "eval"), ledger)
    assert again == first
    assert len(endpoint.bodies) == 20
    assert {row["purpose"]: row["requests"] for row in ledger.summary()} == {"train": 20, "eval": 20}


def test_rows_with_one_question_share_an_answer_and_other_seeds_get_their_own(ledger: Ledger) -> None:
    with Endpoint() as endpoint:
        settings = api(endpoint)
        same = [chat(settings, "one", row=str(number), purpose="train") for number in range(5)]
        others = [chat(settings, "one", row="0", purpose="more", seed=number) for number in range(3)]
        ask(settings, same + others, ledger)
    assert len(endpoint.bodies) == 4


def test_a_wrong_key_costs_one_request_and_is_not_repeated_aloud(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_KEY", "sk-very-secret")
    with Endpoint(key="another") as endpoint, pytest.raises(TeacherError, match="key is refused") as error:
        ask(api(endpoint, api_key_env="SOME_KEY"), prompts(api(endpoint), 50), ledger)
    assert endpoint.seen.outcomes == {"401": 1}
    assert "sk-very-secret" not in str(error.value)
    assert error.value.exit_code == 4


def test_where_it_answered_before_one_request_goes_ahead_for_a_moment_and_the_others_follow(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that was killed waited a whole answer long for its first one, each time; a key that is wrong by now still costs one."""
    monkeypatch.setenv("SOME_KEY", "right")
    with Endpoint(weather=Weather(latency=0.8), key="right") as endpoint:
        settings = api(endpoint, api_key_env="SOME_KEY", concurrency=8)
        ask(settings, prompts(settings, 1), ledger)
        monkeypatch.setenv("SOME_KEY", "wrong")
        with pytest.raises(TeacherError, match="key is refused"):
            ask(settings, prompts(settings, 9), ledger)
        assert endpoint.seen.outcomes["401"] == 1
        monkeypatch.setenv("SOME_KEY", "right")
        assert endpoint.seen.most_at_once == 1
        ask(settings, prompts(settings, 9), ledger)
    assert endpoint.seen.most_at_once == 8, "the first alone and then the others would be seven at once"


def test_a_key_of_another_host_is_never_sent(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client library would take OPENAI_API_KEY from the environment, whatever the host."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    with Endpoint(key="none") as endpoint:
        assert ask(api(endpoint), prompts(api(endpoint), 1), ledger)
    assert endpoint.seen.outcomes == {"200": 1}


def test_a_variable_that_is_not_there_is_named(ledger: Ledger) -> None:
    with pytest.raises(RecipeError, match="the environment has no NO_SUCH_KEY"):
        ask(Api(base_url="http://127.0.0.1:9/v1", model="m", api_key_env="NO_SUCH_KEY"), prompts(Api(base_url="http://x/v1", model="m"), 1), ledger)  # fmt: skip


@pytest.mark.parametrize(
    ("status", "body", "says"),
    [
        (404, {"error": {"message": "The model `big` does not exist"}}, "no such model"),
        (402, {"error": {"message": "Insufficient balance"}}, "no credit"),
        (
            429,
            {"error": {"message": "You exceeded your quota", "code": "insufficient_quota"}},
            "quota is used up",
        ),
    ],
)
def test_what_no_request_escapes_stops_at_the_first(
    ledger: Ledger, status: int, body: dict[str, Any], says: str
) -> None:
    with (
        Endpoint(script=[(status, {}, json.dumps(body))] * 9) as endpoint,
        pytest.raises(TeacherError, match=says),
    ):
        ask(api(endpoint), prompts(api(endpoint), 9), ledger)
    assert len(endpoint.bodies) == 1


def test_an_endpoint_that_refuses_everything_is_told_after_a_few_and_nothing_is_kept(ledger: Ledger) -> None:
    """An unknown parameter is refused with 400 for each row; once it is mended on the server, the rows must be asked again."""
    refusal = (400, {}, json.dumps({"error": {"message": "logprobs are not supported"}}))
    with Endpoint(script=[refusal] * 5) as endpoint:
        settings = api(endpoint)
        with pytest.raises(TeacherError, match="refused 5 requests and answered none .*logprobs"):
            ask(settings, prompts(settings, 50), ledger)
        assert len(endpoint.bodies) == 5
        assert all(ask(settings, prompts(settings, 50), ledger))


@pytest.mark.parametrize(
    ("status", "asked"), [(400, 1), (413, 1), (422, 1), (408, 2), (409, 2), (429, 2), (503, 2)]
)
def test_only_what_may_pass_is_asked_again(ledger: Ledger, status: int, asked: int) -> None:
    with Endpoint() as endpoint:
        settings = api(endpoint)
        ask(settings, prompts(settings, 1, "warm"), ledger)
        endpoint.script.append((status, {}, json.dumps({"error": {"message": "no"}})))
        (answer,) = ask(settings, [chat(settings, "another", row="x", purpose="train")], ledger)
    assert len(endpoint.bodies) == 1 + asked
    assert answer is not None
    assert answer.status == ("refused" if asked == 1 else "answered")


def test_answers_that_are_cut_or_filtered_are_kept_flagged_and_not_bought_again(ledger: Ledger) -> None:
    filtered = {"choices": [{"message": {"content": None}, "finish_reason": "content_filter"}], "usage": {}}
    with Endpoint(lambda body: "one two three four", script=[(200, {}, json.dumps(filtered))]) as endpoint:
        settings = api(endpoint, max_tokens=2)
        found = ask(settings, prompts(settings, 2), ledger)
        assert ask(settings, prompts(settings, 2), ledger) == found
    assert [answer and answer.status for answer in found] == ["filtered", "truncated"]
    assert found[1] is not None and found[1].text == "one two"
    assert len(endpoint.bodies) == 2


def test_an_empty_answer_is_asked_for_once_more(ledger: Ledger) -> None:
    with Endpoint(lambda body: " ") as endpoint:
        (answer,) = ask(api(endpoint), prompts(api(endpoint), 1), ledger)
    assert answer is not None and answer.status == "empty"
    assert len(endpoint.bodies) == 2


def test_what_was_lost_on_the_way_is_no_empty_answer(ledger: Ledger) -> None:
    """A 503 and an empty answer were two tries, and the row was lost for good."""
    lost, empty = (503, {}, "busy"), said(" ")
    with Endpoint(lambda body: "whole", script=[lost, empty]) as endpoint:
        (answer,) = ask(api(endpoint), prompts(api(endpoint), 1), ledger)
    assert answer is not None and (answer.status, answer.text) == ("answered", "whole")
    assert len(endpoint.bodies) == 3


def test_the_cost_never_passes_its_bound_and_the_rest_is_asked_for_later(ledger: Ledger) -> None:
    with Endpoint(weather=Weather(latency=0.01)) as endpoint:
        settings = api(endpoint, price=PRICE, max_tokens=4, max_cost=0.05)
        with pytest.raises(ResourceError, match=r"max_cost: \$0\.0\d+ of \$0\.05 are spent"):
            ask(settings, prompts(settings, 200), ledger)
        bought = len(endpoint.bodies)
        assert 10 < bought < 200
        assert 0.04 < ledger.spent() <= 0.05
        with pytest.raises(ResourceError, match="what the model must read alone costs"):
            ask(settings, prompts(settings, 200), ledger)
        assert len(endpoint.bodies) == bought, "the forecast comes before the first request"
        ask(settings.model_copy(update={"max_cost": 9.0}), prompts(settings, 200), ledger)
    assert len(endpoint.bodies) == 200


def test_an_endpoint_that_is_gone_is_given_up_in_a_sentence(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stillhouse.asking import pace

    monkeypatch.setattr(pace.Breaker, "LOOKS", 2)
    settings = Api(base_url="http://127.0.0.1:9/v1", model="m", timeout=1.0)
    with pytest.raises(TeacherError, match="does not answer .*what was answered is kept"):
        ask(settings, prompts(settings, 20), ledger)


def test_a_retry_after_of_hours_is_not_waited_for(ledger: Ledger) -> None:
    hours = (429, {"Retry-After": "7200"}, "{}")
    with Endpoint(script=[hours]) as endpoint, pytest.raises(TeacherError, match="come back in 120 minutes"):
        ask(api(endpoint), prompts(api(endpoint), 3), ledger)


def test_no_more_are_under_way_than_the_recipe_allows(ledger: Ledger) -> None:
    with Endpoint(weather=Weather(latency=0.02)) as endpoint:
        ask(api(endpoint, concurrency=3), prompts(api(endpoint), 40), ledger)
    assert endpoint.seen.most_at_once == 3


CLIENT = """
import sys
from pathlib import Path
from stillhouse.asking import Ledger, ask, chat
from stillhouse.recipe import Api
api = Api(base_url=sys.argv[1], model="big", concurrency=8, price={"input": 1.0, "output": 1.0})
with Ledger(Path(sys.argv[2])) as ledger:
    ask(api, [chat(api, f"row {n}", row=str(n), purpose="train") for n in range(60)], ledger)
"""


def test_a_killed_client_goes_on_where_it_was(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    with Endpoint(weather=Weather(latency=0.05)) as endpoint:
        client = start(endpoint.url, path, script=CLIENT)
        while len(endpoint.seen.delivered) < 20 and client.poll() is None:
            time.sleep(0.01)
        client.send_signal(signal.SIGKILL)
        client.communicate()
        before = len(endpoint.seen.delivered)
        with Ledger(path) as ledger:
            settings = Api(base_url=endpoint.url, model="big", price={"input": 1.0, "output": 1.0})
            answers = ask(settings, prompts(settings, 60), ledger)
            attempts = ledger.attempts()
    assert before < 60, "the kill came in time"
    assert [answer and answer.text for answer in answers] == [f"Said: row {number}" for number in range(60)]
    twice = sum(endpoint.seen.delivered.values()) - 60
    assert twice <= 8, "at most what was under way when the kill came"
    assert attempts["answered"] >= 59, "a kill between an answer and the end of its attempt leaves one"
    assert 0 < attempts.get("killed", 0) <= 8, "the ledger knows what may have been billed"


def test_a_refusal_is_in_the_ledger_before_anything_was_answered_and_a_kill_does_not_undo_it(
    tmp_path: Path,
) -> None:
    """Refusals once waited in memory for the first answer; whoever was killed meanwhile asked again for what was refused."""
    refusal = (400, {}, json.dumps({"error": {"message": "maximum context length"}}))
    path = tmp_path / "ledger.sqlite"
    with Endpoint(weather=Weather(hang=1.0), script=[refusal, refusal]) as endpoint:
        patient = "from stillhouse.asking import service\nservice.PROBE = 60.0\n"
        client = start(endpoint.url, path, script=patient + CLIENT)
        while not endpoint.seen.outcomes["hang"] and client.poll() is None:
            time.sleep(0.01)
        client.send_signal(signal.SIGKILL)
        client.communicate()
    with Endpoint() as endpoint, Ledger(path) as ledger:
        answers = ask(api(endpoint), prompts(api(endpoint), 60), ledger)
    assert [answer and answer.status for answer in answers[:3]] == ["refused", "refused", "answered"]
    assert len(endpoint.bodies) == 58


@pytest.mark.parametrize("origin", ["another address", "a file"])
def test_the_last_rows_may_be_refused_where_the_others_were_answered_elsewhere(
    ledger: Ledger, origin: str
) -> None:
    """Their refusals were forgotten, and each rerun asked for them again and ended in the same sentence."""
    refusal = (400, {}, json.dumps({"error": {"message": "maximum context length"}}))
    with Endpoint() as old, Endpoint(script=[refusal] * 9) as new:
        some, rest = prompts(api(new), 50)[:47], prompts(api(new), 50)[47:]
        if origin == "a file":
            ledger.plan(some)
            for one in some:
                ledger.keep(one, Answer("answered", "x"), "past.jsonl")
        else:
            ask(api(old), some, ledger)
        for _ in range(2):
            answers = ask(api(new), some + rest, ledger)
            assert [answer and answer.status for answer in answers] == ["answered"] * 47 + ["refused"] * 3
        assert len(new.bodies) == 3, "and not once more"


def test_a_new_address_that_refuses_everything_is_told_though_the_old_one_answered(ledger: Ledger) -> None:
    """Or a parameter that it does not know would cost all rows that are left, for good."""
    refusal = (400, {}, json.dumps({"error": {"message": "extra inputs: seed"}}))
    with Endpoint() as old, Endpoint(script=[refusal] * 7) as new:
        ask(api(old), prompts(api(old), 20), ledger)
        with pytest.raises(TeacherError, match="refused 7 requests and answered none"):
            ask(api(new), prompts(api(new), 50), ledger)
        answers = ask(api(new), prompts(api(new), 50), ledger)
    assert {answer.status for answer in answers if answer} == {"answered"}


def test_refusals_of_a_killed_run_count_when_the_next_one_is_refused_altogether(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusal = (400, {}, json.dumps({"error": {"message": "logprobs are not supported"}}))
    with Endpoint(script=[refusal] * 5) as endpoint:
        settings = api(endpoint)
        many = prompts(settings, 50)
        ledger.plan(many)
        for one in many[:3]:
            ledger.keep(one, Answer("refused", "", "HTTP 400: logprobs"), endpoint.url)
        with pytest.raises(TeacherError, match="refused 5 requests and answered none"):
            ask(settings, many, ledger)
        assert len(endpoint.bodies) == 2
        endpoint.script.clear()
        assert {answer.status for answer in ask(settings, many, ledger) if answer} == {"answered"}


def test_a_first_request_that_hangs_does_not_hold_up_the_others(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stillhouse.asking.service.PROBE", 0.1)
    monkeypatch.setattr("stillhouse.asking.service.ATTEMPTS", 1)
    with Endpoint(weather=Weather(hang=1.0)) as endpoint:
        settings = api(endpoint, timeout=1.5)
        began = time.monotonic()
        with pytest.raises(TeacherError, match="4 of 4 requests"):
            ask(settings, prompts(settings, 4), ledger)
    assert time.monotonic() - began < 4.0, "one after the other takes 6 s"


def test_a_file_that_is_no_ledger_is_refused_in_a_sentence(tmp_path: Path) -> None:
    from stillhouse.errors import DataError

    (tmp_path / "a.sqlite").write_bytes(b"no database at all, but long enough to look like one" * 10)
    with pytest.raises(DataError, match="is no ledger that can be read"):
        Ledger(tmp_path / "a.sqlite")
    sqlite3.connect(tmp_path / "b.sqlite").execute("PRAGMA user_version = 99").connection.close()
    with pytest.raises(DataError, match="another version"):
        Ledger(tmp_path / "b.sqlite")


def test_log_probabilities_come_back_as_they_were_told_and_from_ledgers_that_kept_them_as_json(
    ledger: Ledger, tmp_path: Path
) -> None:
    told = (("a", {"a": -0.123456789, "bytes:\\xe2\\x82": -12.5}), ("€", {"€": -1e-9}))
    settings = Api(model="big", answers="past.jsonl")
    old, new = (chat(settings, text, row=text, purpose="train") for text in ("old", "new"))
    ledger.plan([old, new])
    ledger.keep(new, Answer("answered", "a€", tokens=told), "here")
    with sqlite3.connect(tmp_path / "ledger.sqlite") as base:
        values = (old.question, "", "", "answered", "a€", "", json.dumps(told), 1, 2, None, "here", 0.0)
        base.execute(f"INSERT INTO answers VALUES ({', '.join('?' * len(values))})", values)
    base.close()
    for answer in ask(settings, [old, new], ledger):
        assert answer is not None
        assert [name for name, _ in answer.tokens] == ["a", "€"]
        for (_, found), (_, expected) in zip(answer.tokens, told, strict=True):
            assert found == pytest.approx(expected, abs=5e-6)


def test_the_endpoint_for_completions_gets_plain_text(ledger: Ledger) -> None:
    with Endpoint(lambda body: f"after {prompt_of(body)}") as endpoint:
        settings = api(endpoint, endpoint="completions", top_logprobs=3)
        (answer,) = ask(settings, [chat(settings, "a prompt", row="0", purpose="train")], ledger)
    assert endpoint.bodies[0]["prompt"] == "a prompt"
    assert endpoint.bodies[0]["logprobs"] == 3
    assert answer is not None and answer.text == "after a prompt"


def said(
    content: Any, finish: str | None = "stop", usage: tuple[int, int] | None = None
) -> tuple[int, dict[str, str], str]:
    """A whole reply, with or without what it took."""
    body: dict[str, Any] = {
        "choices": [{"message": {"role": "assistant", "content": content}, "finish_reason": finish}]
    }
    if usage is not None:
        body["usage"] = {"prompt_tokens": usage[0], "completion_tokens": usage[1]}
    return 200, {}, json.dumps(body)


def test_max_cost_holds_where_the_endpoint_does_not_say_what_an_answer_took(tmp_path: Path) -> None:
    with Endpoint(script=[said("x" * 4000)] * 50) as endpoint, Ledger(tmp_path / "ledger.sqlite") as ledger:
        settings = api(endpoint, price={"input": 0.0, "output": 1e6}, max_cost=40.0, concurrency=1)
        some = [chat(settings, f"q{n}", str(n), "train", max_tokens=16) for n in range(50)]
        watch = Notes()
        with pytest.raises(ResourceError, match=r"\$32.0000 of \$40 are spent"):
            ask(settings, some, ledger, watch)
    assert len(endpoint.bodies) == 2, "each may have cost $16"
    assert sum("does not say how many tokens" in line for line in watch.lines) == 1


def test_an_answer_without_its_tokens_does_not_undo_what_a_lost_one_counts_as(ledger: Ledger) -> None:
    script = [said("a", usage=(0, 10)), said("b", usage=(0, 0)), (200, {}, "{"), said("c", usage=(0, 10))]
    with Endpoint(script=script) as endpoint:
        settings = api(endpoint, price={"input": 0.0, "output": 1e6}, concurrency=1)
        ask(settings, [chat(settings, f"q{n}", str(n), "train", max_tokens=50) for n in range(3)], ledger)
    assert ledger.spent() == pytest.approx(10.0 + 2.0 + 6.0 + 10.0), "one of no tokens is counted by its text"


def test_half_a_surrogate_pair_is_written_down_and_bought_once(ledger: Ledger) -> None:
    tokens = {"content": [{"token": "\ud83d", "logprob": -0.1, "top_logprobs": []}]}
    whole = json.loads(said("half \ud83d")[2])
    whole["choices"][0]["logprobs"] = tokens
    with Endpoint(
        script=[(200, {}, json.dumps(whole)), (400, {}, json.dumps({"error": {"message": "\udc00"}}))]
    ) as endpoint:
        settings = api(endpoint, concurrency=1)
        answers = [ask(settings, prompts(settings, 2), ledger) for _ in range(2)]
    assert answers[0] == answers[1]
    first, second = answers[0]
    assert first and first.text == "half \ufffd" and first.tokens == (("\ufffd", {"\ufffd": -0.1}),)
    assert second and second.reason == "HTTP 400: \ufffd"
    assert len(endpoint.bodies) == 2


def test_a_reply_that_breaks_our_reading_costs_no_other_answer(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(body: Any) -> Any:
        return read_answer(body) if "row 1" not in str(body) else 1 / 0

    monkeypatch.setattr("stillhouse.asking.endpoint.read_answer", read)
    with Endpoint() as endpoint:
        settings = api(endpoint)
        with pytest.raises(
            TeacherError, match="1 of 3 requests have no answer after 2 attempts .*ZeroDivision"
        ):
            ask(settings, prompts(settings, 3), ledger)
    assert len(ledger.answers(prompts(settings, 3))) == 2


@pytest.mark.parametrize("finish", ["length", "max_tokens", "MAX_TOKENS", "model_length", "a_new_word"])
def test_an_answer_that_did_not_end_by_itself_is_not_whole(finish: str) -> None:
    found = read_answer(json.loads(said("The capital of", finish)[2]))
    assert isinstance(found, Answer) and found.status == "truncated"


@pytest.mark.parametrize("finish", [None, "stop", "STOP", "eos", "end_turn", "stop_sequence", "COMPLETE"])
def test_an_answer_that_ended_by_itself_is_whole(finish: str | None) -> None:
    found = read_answer(json.loads(said("Paris.", finish)[2]))
    assert isinstance(found, Answer) and found.usable


@pytest.mark.parametrize("finish", ["error", "abort", "network_error"])
def test_an_answer_that_broke_off_is_asked_for_again(ledger: Ledger, finish: str) -> None:
    with Endpoint(script=[said("The cap", finish), said("The cap", finish), said("Paris.")]) as endpoint:
        settings = api(endpoint)
        (answer,) = ask(settings, prompts(settings, 1), ledger)
    assert answer and (answer.status, answer.text) == ("answered", "Paris.")


@pytest.mark.parametrize("apart", ["endpoint", "model"])
def test_refusals_of_one_model_are_no_answers_of_another(ledger: Ledger, apart: str) -> None:
    """Once the first had answered, the second's unknown parameter was kept as a refusal of each row, for ever."""
    refusal = (422, {}, json.dumps({"error": {"message": "extra inputs: seed"}}))
    with Endpoint() as good, Endpoint(script=[refusal] * 5) as bad:
        first = api(good if apart == "endpoint" else bad)
        if apart == "model":
            bad.script = []
        ask(first, prompts(first, 1), ledger)
        bad.script = [refusal] * 5
        second = api(bad).model_copy(update={"model": "other"})
        with pytest.raises(TeacherError, match="refused 5 requests and answered none"):
            ask(second, prompts(second, 30), ledger)
        answers = ask(second, prompts(second, 30), ledger)
    assert {answer.status for answer in answers if answer} == {"answered"}


def test_the_most_that_a_request_may_take_counts_every_limit_and_every_answer() -> None:
    own = {"price": {"input": 0.0, "output": 1e6}}
    settings = Api(base_url="http://x/v1", model="m", extra_body={"max_completion_tokens": 8000}, **own)
    assert takes(settings, [chat(settings, "q", "0", "train", max_tokens=16)])["dollars"] == 8000
    settings = Api(
        base_url="http://x/v1", model="m", endpoint="completions", extra_body={"best_of": 8}, **own
    )
    assert takes(settings, [chat(settings, "q", "0", "train", max_tokens=16)])["dollars"] == 8 * 16


def test_the_other_limit_is_sent_alone_and_not_beside_a_field_of_its_own() -> None:
    """Models that know no other refuse a request with `max_tokens` in it."""
    own = {"base_url": "http://x/v1", "model": "m", "extra_body": {"max_completion_tokens": 8000}}
    body = chat(Api(**own), "q", "0", "train", max_tokens=16).body
    assert body["max_completion_tokens"] == 8000 and "max_tokens" not in body
    with pytest.raises(ValidationError, match="in the place of max_tokens"):
        Api(**own, max_tokens=9)


@pytest.mark.parametrize("text", ["😀🏽‍🚀" * 50, "မြန်မာ" * 50, "አማርኛ" * 50, "Ünïcödé", "ελληνικά", "17", "a"])
def test_at_most_is_a_byte_a_token_where_tokenizers_fall_back_to_bytes(text: str) -> None:
    bound = len(text) if text.isdigit() else len(text.encode())
    plain = sum(one.isascii() and not one.isdigit() for one in text)
    assert most_tokens(text) >= bound - plain
    request = chat(Api(base_url="http://x/v1", model="m"), text, "0", "train")
    assert request.most_read >= most_tokens(text) + 4, "and what is around a turn"


def test_at_most_asks_no_three_tokens_for_each_character_of_ordinary_chinese() -> None:
    assert most_tokens("蒸馏让小模型学会大模型。") == 2 * 12
    assert most_tokens("plain words") == 6, "two bytes a token"


def test_a_usage_of_zero_is_no_free_answer(ledger: Ledger) -> None:
    """Some servers send a usage of zeros; `max_cost` never stopped there."""
    script = [said("x" * 40, usage=usage) for usage in ((0, 0), (9, 0), (0, 9), (9, 9))]
    with Endpoint(script=script) as endpoint:
        settings = api(endpoint, price={"input": 1e6, "output": 1e6}, concurrency=1)
        some = [chat(settings, f"q{n}", str(n), "train", max_tokens=50) for n in range(4)]
        answers = [answer for answer in ask(settings, some, ledger) if answer]
    found = [(answer.input_tokens, answer.output_tokens) for answer in answers]
    read, written = some[0].most_read, 21
    assert found == [(read, written), (9, written), (read, 9), (9, 9)]
    lost = json.loads(said([{"type": "image"}], usage=(0, 0))[2])
    assert usage_of(lost)[0] is None, "nor is a lost one"


def test_a_key_that_cannot_be_sent_is_refused_before_anything_is_booked(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key in ("sk–typographic", "sk-two\nlines"):
        monkeypatch.setenv("SOME_KEY", key)
        with (
            Endpoint() as endpoint,
            pytest.raises(RecipeError, match="SOME_KEY has a character that no key has") as error,
        ):
            ask(api(endpoint, api_key_env="SOME_KEY"), prompts(api(endpoint), 5), ledger)
        assert key not in str(error.value)
    assert ledger.spent() == 0.0


def test_a_request_that_cannot_be_sent_costs_nothing(ledger: Ledger) -> None:
    with Endpoint() as endpoint:
        settings = api(endpoint, price=PRICE)
        odd = chat(settings, "q", row="odd", purpose="train", user=b"no JSON")
        odd.__dict__.update(key="odd", question="odd")
        ledger._base.execute("INSERT INTO requests VALUES ('odd', '', '{}')")
        loop = service._Loop(settings, [odd], ledger, Silent(), 0, "teacher.api")
        with pytest.raises(TeacherError, match="no answer after 2 attempts .*the request cannot be sent"):
            asyncio.run(loop.run())
    assert endpoint.bodies == [] and ledger.spent() == 0.0


def test_a_connection_that_never_comes_up_is_not_billed(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A port whose backlog is full took all of `max_cost`, and nothing had left this machine."""
    monkeypatch.setattr(service, "ATTEMPTS", 2)
    with socket.socket() as port, ExitStack() as stack:
        port.bind(("127.0.0.1", 0))
        port.listen(0)
        for _ in range(4):
            one = stack.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(port.getsockname())
        settings = Api(
            base_url=f"http://127.0.0.1:{port.getsockname()[1]}/v1",
            model="m",
            timeout=0.5,
            price=PRICE,
            max_cost=1.0,
        )
        with pytest.raises(TeacherError, match="no connection within 0.15 s"):
            ask(settings, prompts(settings, 2), ledger)
    assert ledger.spent() == 0.0


@pytest.mark.parametrize(("text", "tokens"), [("8139 2" * 100, 500), ("汉字" * 300, 600)])
def test_digits_and_chinese_are_not_read_for_half_their_price(text: str, tokens: int) -> None:
    settings = Api(base_url="http://x/v1", model="m", price={"input": 1e6, "output": 0.0})
    assert takes(settings, [chat(settings, text, "0", "train")])["dollars"] >= 0.6 * tokens


def test_a_content_in_parts_is_read_without_its_thoughts(ledger: Ledger) -> None:
    parts = [
        {"type": "thinking", "thinking": []},
        {"type": "text", "text": "Par"},
        {"type": "text", "text": "is."},
    ]
    with Endpoint(script=[said(parts)]) as endpoint:
        (answer,) = ask(api(endpoint), prompts(api(endpoint), 1), ledger)
    assert answer and answer.text == "Paris."


def test_an_answer_of_no_known_form_is_booked_and_not_asked_for_a_third_time(tmp_path: Path) -> None:
    for usage, spent in [((5, 5), 10.0), (None, 2 * 50.0)]:
        with (
            Endpoint(script=[said([{"type": "image"}], usage=usage)] * 9) as endpoint,
            Ledger(tmp_path / f"{spent}.sqlite") as ledger,
        ):
            settings = api(endpoint, price={"input": 0.0, "output": 1e6})
            with pytest.raises(TeacherError, match="no answer after 2 attempts .*content is no text"):
                ask(settings, [chat(settings, "q", "0", "train", max_tokens=50)], ledger)
            assert len(endpoint.bodies) == 2
            assert ledger.spent() == pytest.approx(spent)


def answered(
    ledger: Ledger, url: str, model: str, purpose: str, costs: list[float], began: float = 0.0
) -> None:
    """Answers of 10 tokens a dollar: each is asked for when the one before has been under way for a second, and takes two."""
    settings = Api(base_url=url, model=model)
    for number, cost in enumerate(costs):
        request = chat(settings, f"{purpose} {cost}", row=str(number), purpose=purpose)
        ledger.plan([request])
        attempt = ledger.begin(request)
        ledger.end(attempt, 2.0, "answered", cost)
        ledger.keep(request, Answer("answered", "x", output_tokens=int(10 * cost), cost=cost), url)
        ledger._base.execute("UPDATE attempts SET sent = ? WHERE id = ?", (began + number, attempt))


HERE, THERE = "http://here/v1", "http://there/v1"


def test_a_typical_answer_is_one_of_that_model_there_to_such_a_question(ledger: Ledger) -> None:
    answered(ledger, HERE, "big", "train", [1.0, 3.0])
    answered(ledger, HERE, "big", "eval", [8.0])
    answered(ledger, HERE, "big", "paraphrase", [100.0])
    answered(ledger, HERE, "small", "train", [0.1])
    answered(ledger, THERE, "big", "validation", [50.0])
    assert ledger.typical(HERE, "big", ["train"]) == (20.0, 2.0, 2)
    assert ledger.typical(HERE, "big", {"train", "eval"}) == (40.0, 4.0, 3)
    assert ledger.typical(HERE, "small", {"train"}) == (1.0, 0.1, 1)
    assert ledger.typical(THERE, "big", {"train"}) == (0.0, None, 0)


def test_a_bill_with_an_answer_that_came_without_a_price_is_not_known(ledger: Ledger) -> None:
    """A price that was added to the recipe afterwards summed nothing, which read as: for nothing."""
    answered(ledger, HERE, "big", "train", [1.0, 3.0])
    settings = Api(base_url=HERE, model="big")
    priced, free, no = (chat(settings, text, "r", "train") for text in ("train 3.0", "free", "no"))
    assert ledger.bill(settings, [priced.question]) == 3.0
    ledger.keep(free, Answer("answered", "x", output_tokens=1000), HERE)
    assert ledger.bill(settings, [priced.question, free.question]) is None
    ledger.keep(no, Answer("refused", "", "400"), HERE)
    assert ledger.bill(settings, [priced.question, no.question]) == 3.0


def test_a_dollar_a_token_is_told_by_answers_that_have_a_price_alone(ledger: Ledger) -> None:
    answered(ledger, HERE, "big", "train", [1.0, 3.0])
    free = chat(Api(base_url=HERE, model="big"), "free", row="r", purpose="train")
    ledger.plan([free])
    ledger.keep(free, Answer("answered", "x", output_tokens=1000), HERE)
    assert ledger.typical(HERE, "big", ["train"]) == (20.0, 2.0, 2)


def test_answers_without_a_price_do_not_make_a_lost_one_cheap(ledger: Ledger) -> None:
    """A price was added to the recipe after 90 answers: each later one weighed a ninetieth in what a lost one counts as."""
    with Endpoint(script=[said("a", usage=(1, 10)), (200, {}, "{")]) as endpoint:
        free = api(endpoint, concurrency=1)
        settings = api(endpoint, concurrency=1, price={"input": 0.0, "output": 1e6})
        many = prompts(free, 92)
        ledger.plan(many)
        for one in many[:90]:
            ledger.keep(one, Answer("answered", "x", output_tokens=10), endpoint.url)
        assert ledger.typical(endpoint.url, "big", ["train"]) == (10.0, None, 0)
        ask(settings, many, ledger)
    lost = ledger._base.execute("SELECT cost FROM attempts WHERE outcome LIKE '%JSON%'").fetchall()
    assert lost == [(10.0,)]


def test_the_forecast_and_lost_answers_are_priced_by_answers_of_that_kind(ledger: Ledger) -> None:
    """Long texts of the same model, and another model's, say nothing of what a label costs."""
    with Endpoint(script=[(200, {}, "{")]) as endpoint:
        settings = api(endpoint, price=PRICE)
        answered(ledger, endpoint.url, "big", "paraphrase", [70.0])
        answered(ledger, endpoint.url, "small", "train", [90.0])
        answered(ledger, endpoint.url, "big", "train", [0.5])
        notes = Notes()
        ask(settings, prompts(settings, 2), ledger, notes)
        read = sum(one.size for one in prompts(settings, 2))
    expected = (read * 20.0 + 2 * 5 * 200.0) / 1e6
    assert any(f"cost: about ${expected:,.2f}, by" in line for line in notes.lines)
    booked = ledger._base.execute("SELECT cost FROM attempts WHERE outcome != 'answered'").fetchall()
    assert booked == [(0.5,)]


def test_an_attempt_that_a_kill_left_costs_as_much_as_an_answer_of_its_own_kind(ledger: Ledger) -> None:
    answered(ledger, HERE, "big", "train", [1.0, 3.0])
    answered(ledger, HERE, "big", "paraphrase", [100.0])
    answered(ledger, HERE, "small", "train", [0.1])
    for model, purpose in (("big", "train"), ("small", "train"), ("big", "paraphrase"), ("new", "train")):
        request = chat(Api(base_url=HERE, model=model), f"left {purpose}", row="r", purpose=purpose)
        ledger.plan([request])
        ledger.begin(request, 7.0)
    before = ledger.spent()
    assert ledger.bury() == 4 and ledger.bury() == 0
    costs = ledger._base.execute("SELECT cost FROM attempts WHERE outcome = 'killed' ORDER BY id").fetchall()
    assert costs == [(2.0,), (0.1,), (100.0,), (7.0,)], (
        "before an answer of its kind: the most that it may cost"
    )
    assert ledger.spent() == pytest.approx(before + 109.1), "what is under way is not spent yet"


def test_a_run_that_is_killed_before_its_first_answer_cannot_go_beyond_max_cost_unseen(
    tmp_path: Path,
) -> None:
    price = {"price": {"input": 0.0, "output": 1e6}, "max_cost": 25.0, "max_tokens": 10}
    path = tmp_path / "ledger.sqlite"
    with Endpoint(weather=Weather(hang=1.0)) as endpoint:
        client = CLIENT.replace('price={"input": 1.0, "output": 1.0}', f"**{price}")
        for _ in range(2):
            seen = endpoint.seen.outcomes["hang"]
            process = start(endpoint.url, path, script=client)
            while endpoint.seen.outcomes["hang"] == seen and process.poll() is None:
                time.sleep(0.01)
            process.send_signal(signal.SIGKILL)
            process.communicate()
        settings = api(endpoint, **price)
        with Ledger(path) as ledger, pytest.raises(ResourceError, match=r"\$20.0000 of \$25 are spent"):
            ask(settings, prompts(settings, 60), ledger)
    assert endpoint.seen.outcomes == {"hang": 2}


def test_the_pace_is_that_of_the_attempts_and_nobody_asks_between_two_runs(ledger: Ledger) -> None:
    """Five answers in six seconds, a day later three in four; what another model took does not count."""
    assert ledger.pace(HERE, "big", ["train"]) is None
    answered(ledger, HERE, "big", "train", [1.0, 2.0, 3.0, 4.0, 5.0])
    answered(ledger, HERE, "big", "eval", [6.0, 7.0, 8.0], began=86400.0)
    answered(ledger, HERE, "small", "train", [9.0], began=3.0)
    assert ledger.pace(HERE, "big", ["train"]) == pytest.approx(5 / 6)
    assert ledger.pace(HERE, "big", ["train", "eval"]) == pytest.approx(8 / 10)


def test_a_wait_for_the_limit_a_minute_counts_towards_the_pace(ledger: Ledger) -> None:
    for number in range(3):
        answered(ledger, HERE, "big", f"train {number}", [1.0], began=30.0 * number)
    assert ledger.pace(HERE, "big", [f"train {number}" for number in range(3)]) == pytest.approx(3 / 62)

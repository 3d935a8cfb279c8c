"""An API's log-probabilities over HTTP: kept as the model's own, bought once, and refused where they are another tokenizer's."""

import json
import math
import sqlite3
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny
import tongues
from endpoint import Endpoint, prompt_of
from partly import labelled
from speaker import Speaker
from stillhouse import run
from stillhouse.asking import Ledger
from stillhouse.data.encode import Example, read_examples
from stillhouse.errors import RecipeError
from stillhouse.files import read_json, write_json
from stillhouse.losses import forward_kl_topk
from stillhouse.pipeline import run_pipeline
from stillhouse.progress import Silent
from stillhouse.recipe import parse_recipe
from stillhouse.stages import STAGES
from stillhouse.static import static_checks
from stillhouse.steps.told import Told
from stillhouse.teachers import TopK
from stillhouse.teachers.cache import SoftTargetCache
from stillhouse.teachers.codec import STEP
from typed import hurried

K = 5


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save_language_model(tmp_path_factory.mktemp("teacher") / "model", layers=2, seed=5)


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save_language_model(tmp_path_factory.mktemp("student") / "model", layers=1, seed=1)


def values(
    place: Path, url: str | None, student: Path, chats: bool = True, rows: int = 8, **api: Any
) -> dict[str, Any]:
    """A recipe that learns the answers to some questions; two more are for measuring."""
    asked = [f"{text} Why?" for text in tiny.sentences(rows + 2)]
    lines = [{"messages": [{"role": "user", "content": one}]} if chats else {"prompt": one} for one in asked]
    for name, some in (("train", lines[:-2]), ("eval", lines[-2:])):
        (place / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in some))
    files = {name: {"source": str(place / f"{name}.jsonl")} for name in ("train", "eval")}
    where = {} if url is None else {"base_url": url}
    return {
        "name": "told", "task": "causal_lm", "student": {"model": str(student)},
        "teacher": {"api": {**where, "model": "big", "max_tokens": 20, "top_logprobs": K, **api}},
        "data": {**files, "max_length": 128}, "objective": [{"kind": "forward_kl"}],
        "train": {"steps": 40, "batch_size": 4, "learning_rate": 1e-2, "precision": "float32"},
        "evaluate": {"resamples": 200, "speed": False}, "report": {"samples": 1},
    }  # fmt: skip


def kept(folder: Path, result: dict[str, Any]) -> list[tuple[Example, TopK]]:
    """Every example that the student learns from, with its targets."""
    cache = SoftTargetCache(folder / result["cache"], result["meta"])
    found = []
    for example in read_examples(folder / result["train"]):
        targets = cache.get(example.key)
        assert isinstance(targets, TopK)
        found.append((example, targets))
    return found


def are_the_models_own(pairs: list[tuple[Example, TopK]], speaker: Speaker, ends: bool) -> None:
    """Within the codec's bound of the model's k best; an end that was not told is a hard target."""
    for example, targets in pairs:
        own = speaker.own(example)
        best = own.topk(K)
        told = slice(None) if ends else slice(-1)
        assert torch.equal(targets.ids[told].sort(-1).values, best.indices[told].sort(-1).values)
        mass = best.values.logsumexp(-1, keepdim=True).abs()
        error = (targets.log_p - own.gather(-1, targets.ids)).abs()[told]
        assert (error <= STEP + 2**-11 * mass[told] + 1e-4).all()
        if not ends:
            assert targets.ids[-1, 0] == speaker.tokenizer.eos_token_id
            assert targets.log_p[-1].tolist() == [0.0] + [-math.inf] * (K - 1)


@pytest.mark.parametrize(("chats", "ends"), [(True, True), (True, False), (False, True)])
def test_what_is_kept_are_the_models_own_probabilities_at_every_position(
    tmp_path: Path, teacher: Path, student: Path, chats: bool, ends: bool
) -> None:
    speaker = Speaker(teacher, ends=ends)
    more = {} if chats else {"endpoint": "completions"}
    with Endpoint(speaker) as endpoint:
        result = labelled(values(tmp_path, endpoint.url, student, chats, **more), tmp_path / "run")
        asked = endpoint.bodies[0]
    assert (asked["top_logprobs"], asked["logprobs"]) == (K, True) if chats else asked["logprobs"] == K
    pairs = kept(tmp_path / "run", result)
    assert len(pairs) == 8 and all(example.counted == 7 for example, _ in pairs)
    are_the_models_own(pairs, speaker, ends)
    assert result["told"]["soft"] == result["told"]["rows"] == 8


def test_nothing_is_bought_twice_and_the_ledger_keeps_it_small(
    tmp_path: Path, teacher: Path, student: Path
) -> None:
    with Endpoint(Speaker(teacher)) as endpoint:
        plain = values(tmp_path, endpoint.url, student)
        first = labelled(plain, tmp_path / "run")
        changed = {**plain, "objective": [{"kind": "hard"}, {"kind": "js"}]}
        for path in (tmp_path / "run" / "label").rglob("*.parquet"):
            path.unlink()
        again = labelled(changed, tmp_path / "run")
        assert set(endpoint.seen.delivered.values()) == {1} and len(endpoint.seen.delivered) == 10
    assert again["cache"] == first["cache"]
    with sqlite3.connect(tmp_path / "run" / "ledger.sqlite") as base:
        ((size, tokens),) = base.execute("SELECT AVG(LENGTH(tokens)), COUNT(*) FROM answers").fetchall()
    base.close()
    assert tokens == 10
    assert size < 6 * (K + 1) * 16, "bytes of an answer of six tokens; JSON has about 35 an alternative"


def test_past_answers_in_a_file_have_their_probabilities_too(
    tmp_path: Path, teacher: Path, student: Path
) -> None:
    speaker = Speaker(teacher)
    with Endpoint(speaker) as endpoint:
        plain = values(tmp_path, endpoint.url, student)
        bought = labelled(plain, tmp_path / "bought")
        stored = []
        for body in endpoint.bodies:
            stored.append(
                {"request": body, "response": json.loads(endpoint._answered(body, prompt_of(body)))}
            )
    (tmp_path / "past.jsonl").write_text("".join(json.dumps(one) + "\n" for one in stored))
    taken = values(tmp_path, None, student, answers=str(tmp_path / "past.jsonl"))
    result = labelled(taken, tmp_path / "taken")
    assert result["told"] == bought["told"] and result["told"]["soft"] == 8
    are_the_models_own(kept(tmp_path / "taken", result), speaker, False)


def test_rows_whose_tokens_differ_are_learned_as_text_and_counted(
    tmp_path: Path, teacher: Path, student: Path
) -> None:
    """Two of eight answers come in letters, as a teacher that samples sometimes writes; one has no log-probabilities."""
    speaker = Speaker(teacher)

    def answer(body: dict[str, Any]) -> Any:
        said = speaker(body)
        number = int(prompt_of(body).split()[0])
        if number == 3:
            return said[0]
        if number < 2:
            return said[0], [(letter, {letter: -0.1}) for letter in said[0]]
        return said

    with Endpoint(answer) as endpoint:
        result = labelled(values(tmp_path, endpoint.url, student), tmp_path / "run")
    told = result["told"]
    assert (told["rows"], told["soft"], told["silent"]) == (8, 5, 1)
    assert told["note"].startswith("5 of 8 answers of the teacher's are soft targets")
    assert "1 came without any and 2 are cut into other tokens" in told["note"]
    hard = [
        targets
        for _, targets in kept(tmp_path / "run", result)
        if (targets.log_p[:, 0] == 0.0).all() and (targets.log_p[:, 1:] == -math.inf).all()
    ]
    assert len(hard) == 3


def test_another_tokenizer_is_refused_before_everything_is_paid(
    tmp_path: Path, teacher: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stillhouse.steps.hearing.LOOKED_AT", 4)
    other = tongues.save_other_student(tmp_path / "other")
    with Endpoint(Speaker(teacher)) as endpoint:
        plain = values(tmp_path, endpoint.url, other)
        with pytest.raises(RecipeError, match="0 of 4 answers are cut into the tokens of the student's tokenizer, so") as error:  # fmt: skip
            labelled(plain, tmp_path / "run")
        assert len(endpoint.seen.delivered) == 4
        assert "objective: [{kind: hard}]" in str(error.value) and "cross_tokenizer" in str(error.value)
        with Ledger(tmp_path / "run" / "ledger.sqlite") as ledger:
            assert ledger.attempts() == {"answered": 4} and ledger.count("big") == 4, "what was paid is kept"


def test_a_server_without_log_probabilities_is_refused_in_a_sentence(tmp_path: Path, student: Path) -> None:
    with (
        Endpoint(lambda body: "the old river") as endpoint,
        pytest.raises(RecipeError, match="none of 8 answers came with log-probabilities"),
    ):
        labelled(values(tmp_path, endpoint.url, student), tmp_path / "run")


def test_the_forecast_counts_nothing_more_for_them(tmp_path: Path, student: Path) -> None:
    price = {"price": {"input": 1.0, "output": 2.0}}
    bills = []
    for number, change in enumerate(({"top_logprobs": K}, {"top_logprobs": None})):
        (place := tmp_path / str(number)).mkdir()
        plain = values(tmp_path, "http://127.0.0.1:9/v1", student, **price, **change)
        if number:
            plain["objective"] = [{"kind": "hard"}]
        write_json(place / "machine.json", {"bfloat16": False})
        with hurried():
            run_pipeline(parse_recipe(plain), STAGES, place, Silent(), until="plan")
        bills.append(read_json(place / "plan" / "plan.json"))
    soft, hard = bills
    assert soft["requests"] == hard["requests"] == 10
    assert soft["money"] == hard["money"] > 0
    assert soft["seconds"]["label"] == hard["seconds"]["label"]
    assert soft["soft_target_bytes"] > 0 == hard["soft_target_bytes"]
    assert soft["disk_bytes"] == hard["disk_bytes"] + soft["soft_target_bytes"], "the kept targets"


def test_a_whole_run_learns_from_them_and_says_so(tmp_path: Path, teacher: Path, student: Path) -> None:
    speaker = Speaker(teacher, ends=True)
    with Endpoint(speaker) as endpoint, hurried():
        folder = tmp_path / "run"
        folder.mkdir()
        write_json(folder / "machine.json", {"bfloat16": False})
        found = run(parse_recipe(values(tmp_path, endpoint.url, student, rows=12)), folder)
    assert "12 of 12 answers of the teacher's are soft targets" in found["data"]["asked"]
    assert "12 of 12 answers of the teacher" in (folder / "report.html").read_text()
    assert "12 of 12 answers" in (folder / "student" / "README.md").read_text()
    bits = {
        name: found["controls"][name]["metrics"]["eval"]["bits_per_byte"]["value"]
        for name in found["controls"]
    }
    after = found["student"]["metrics"]["eval"]["bits_per_byte"]["value"]
    assert after < bits["initial"]
    result = read_json(folder / "label" / "DONE.json")["result"]
    pairs = kept(folder, result)
    before, now = (apart(Speaker(model), pairs) for model in (student, folder / "student"))
    assert now < 0.5 * before, (before, now)


def apart(speaker: Speaker, pairs: list[tuple[Example, TopK]]) -> float:
    """Mean KL in nats of the kept targets from a model: hard targets alone would raise it, for the teacher is not sure."""
    each = [forward_kl_topk(speaker.own(one), targets.ids, targets.log_p) for one, targets in pairs]
    return float(torch.cat(each).mean())


def test_a_note_tells_only_what_happened() -> None:
    assert Told([[], []], 2, 0).note.endswith("by the log-probabilities of their tokens")
    assert Told([[], None], 2, 1).note.endswith("1 came without any, and are learned as text alone")
    assert "; 1 begin beyond data.max_length, and are" in Told([[], None], 2, 0, 1).note


def test_validate_says_what_is_not_known_before_somebody_answers(tmp_path: Path, student: Path) -> None:
    plain = values(tmp_path, "http://127.0.0.1:9/v1", student)
    notes = static_checks(parse_recipe(plain), tmp_path / "run")
    assert any(
        "5 log-probabilities a token become soft targets if its tokenizer is" in note for note in notes
    )
    hard = static_checks(parse_recipe({**plain, "objective": [{"kind": "hard"}]}), tmp_path / "run")
    assert not any("log-probabilities" in note for note in hard)

"""Several processes write the same texts: each text once, by whoever's it is, and nobody waits for ever."""

import threading
import time
from pathlib import Path

import pytest

from stillhouse.errors import ResourceError
from stillhouse.files import read_jsonl, write_jsonl
from stillhouse.locks import is_locked, locked
from stillhouse.models.continuous import Sampling
from stillhouse.progress import Silent
from stillhouse.teachers import together, writer
from stillhouse.teachers.parts import part_name, share_of
from stillhouse.teachers.texts import Texts
from stillhouse.teachers.together import Enough, Together
from stillhouse.teachers.writer import write_kept

GREEDY = Sampling(8)
PROMPTS = [f"prompt {n}" for n in range(150)]


class Fake:
    """Says who it is and what it was asked; in another process it says something else."""

    identity = "fake"

    def __init__(self, name: str) -> None:
        self.name, self.asked = name, []

    def write(self, prompts, sampling, seeds):
        for number in reversed(range(len(prompts))):
            self.asked.append(prompts[number])
            yield number, f"{self.name} on {prompts[number]}"


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    monkeypatch.setattr(together, "LOOK", 0.01)
    monkeypatch.setattr(together, "PATIENCE", 0.1)
    monkeypatch.setattr(writer, "SHARD", 10)


def one_of(folder: Path, number: int, of: int = 2, rounds: int = 1) -> Together:
    part = (number, of)
    return Together(folder, part, rounds, Texts(folder, part_name(part)), 0, Silent())


def all_of(folder: Path, who: Fake, prompts=PROMPTS) -> list:
    """What a run finds there, and has written where something is missing."""
    return write_kept(who, prompts, GREEDY, 0, Texts(folder), Silent(), "texts")


def test_every_text_is_written_once_and_belongs_to_its_prompt_whoever_wrote_it(tmp_path):
    fakes = [Fake(f"part {number}") for number in (1, 2, 3)]
    for number, fake in enumerate(fakes, 1):
        with pytest.raises(Enough):
            one_of(tmp_path, number, of=3).write([fake], PROMPTS, GREEDY, "texts")
        assert not is_locked(tmp_path / part_name((number, 3)))
    assert sorted(prompt for fake in fakes for prompt in fake.asked) == sorted(PROMPTS)
    assert all(30 < len(fake.asked) < 70 for fake in fakes), "the shares are even"
    run = Fake("run")
    texts = all_of(tmp_path, run)
    assert run.asked == [] and not list(tmp_path.glob("*.jsonl"))
    assert [text.partition(" on ")[2] for text in texts] == PROMPTS
    assert {text.partition(" on ")[0] for text in texts} == {"part 1", "part 2", "part 3"}


def test_the_run_writes_what_no_part_wrote_and_no_more(tmp_path):
    with pytest.raises(Enough):
        one_of(tmp_path, 2).write([first := Fake("part 2")], PROMPTS, GREEDY, "texts")
    run = Fake("run")
    texts = all_of(tmp_path, run)
    assert [text.partition(" on ")[2] for text in texts] == PROMPTS
    assert sorted(run.asked + first.asked) == sorted(PROMPTS)
    again = Fake("again")
    with pytest.raises(Enough):
        one_of(tmp_path, 1).write([again], PROMPTS, GREEDY, "texts")
    assert again.asked == [], "what the run wrote is no part's to write"


def test_a_damaged_line_of_a_part_is_written_again_and_only_that(tmp_path):
    for number in (1, 2):
        with pytest.raises(Enough):
            one_of(tmp_path, number).write([Fake("part")], PROMPTS, GREEDY, "texts")
    file = next(tmp_path.glob("part-2-of-2/*.jsonl"))
    file.write_text(file.read_text().replace("part on", "port on", 1))
    run = Fake("run")
    texts = all_of(tmp_path, run)
    assert len(run.asked) == 1
    assert [text.partition(" on ")[2] for text in texts] == PROMPTS


def test_of_two_texts_for_one_prompt_the_same_stays_whenever_it_is_read(tmp_path):
    """A run that began too early wrote what a part wrote as well; its rows must not change when they are prepared again."""
    first = all_of(tmp_path, Fake("run"))
    (tmp_path / "aside").mkdir()
    for path in tmp_path.glob("*.jsonl"):
        path.rename(tmp_path / "aside" / path.name)
    with pytest.raises(Enough):
        one_of(tmp_path, 1).write([Fake("part")], PROMPTS, GREEDY, "texts")
    for path in (tmp_path / "aside").glob("*.jsonl"):
        path.rename(tmp_path / path.name)
    assert all_of(tmp_path, Fake("again")) == first


def test_what_goes_on_from_texts_waits_for_those_of_the_others(tmp_path):
    def both_rounds(one: Together, fake: Fake, seen: list) -> None:
        one.write([fake], PROMPTS, GREEDY, "first")
        texts = all_of(tmp_path, Fake("nobody"))  # all of them are there now
        seen += texts
        with pytest.raises(Enough):
            one.write([fake], [f"more of {text}" for text in texts], GREEDY, "second")

    fakes, seen = [Fake("part 1"), Fake("part 2")], ([], [])
    running = threading.Thread(
        target=both_rounds, args=(one_of(tmp_path, 1, rounds=2), fakes[0], seen[0]), daemon=True
    )
    together.PATIENCE = 20.0
    running.start()
    time.sleep(0.2)
    assert running.is_alive() and not seen[0], "it went on before the others' texts were there"
    assert not is_locked(tmp_path / part_name((1, 2))), "who waits holds no lock"
    both_rounds(one_of(tmp_path, 2, rounds=2), fakes[1], seen[1])
    running.join(timeout=20)
    assert seen[0] == seen[1] and "nobody" not in " ".join(seen[0])
    assert len(fakes[0].asked) + len(fakes[1].asked) == 2 * len(PROMPTS)


def test_one_waits_as_long_as_another_is_at_work_and_not_for_one_who_never_comes(tmp_path):
    one = one_of(tmp_path, 1, rounds=2)
    theirs = tmp_path / part_name((2, 2))
    theirs.mkdir()
    ended: list[float] = []

    def write() -> None:
        with pytest.raises(Enough):
            one.write([Fake("part 1")], PROMPTS, GREEDY, "first")
        ended.append(time.monotonic())

    running = threading.Thread(target=write, daemon=True)
    with locked(theirs):
        running.start()
        time.sleep(5 * together.PATIENCE)
        assert running.is_alive(), "the other was at work"
        left = time.monotonic()
    running.join(timeout=20)
    assert ended and ended[0] - left < 5
    assert (one.rounds, len(one.keys)) == (1, 150)
    assert one.written == sum(share_of(key, 2) == 1 for key in one.keys)


def test_after_the_last_round_nobody_waits(tmp_path):
    together.PATIENCE = 60.0
    began = time.monotonic()
    with pytest.raises(Enough):
        one_of(tmp_path, 1).write([Fake("part 1")], PROMPTS, GREEDY, "texts")
    assert time.monotonic() - began < 10


def test_of_several_writers_a_share_of_each_is_written_before_anybody_waits(tmp_path):
    first, second = Fake("first"), Fake("second")
    second.identity = "another"
    with pytest.raises(Enough):
        one_of(tmp_path, 1, rounds=2).write([first, second], PROMPTS, GREEDY, "answers")
    assert first.asked and second.asked


def test_two_processes_on_one_part_are_refused(tmp_path):
    mine = tmp_path / part_name((1, 2))
    mine.mkdir()
    with locked(mine), pytest.raises(ResourceError, match="part-1-of-2: another stillhouse is at work"):
        one_of(tmp_path, 1).write([Fake("part 1")], PROMPTS, GREEDY, "texts")


def test_what_a_killed_process_left_is_swept_from_its_own_part_alone(tmp_path):
    for number in (1, 2):
        (tmp_path / part_name((number, 2))).mkdir()
        write_jsonl(tmp_path / part_name((number, 2)) / ".00000.jsonl.0123abcd.part", [{"key": "x"}])
    with pytest.raises(Enough):
        one_of(tmp_path, 1).write([Fake("part 1")], PROMPTS, GREEDY, "texts")
    left = [path.parent.name for path in tmp_path.glob("part-*/.*.part")]
    assert left == ["part-2-of-2"], "another may be writing there now"
    assert all(len(read_jsonl(path)) <= 10 for path in tmp_path.glob("part-1-of-2/*.jsonl"))

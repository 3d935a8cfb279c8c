"""Kept soft targets: believed only when they are whole, found by content, asked for once."""

import os
from concurrent.futures import wait
from pathlib import Path
from threading import Event

import pytest
import torch

import tiny
from stillhouse.data.encode import Example
from stillhouse.errors import DataError
from stillhouse.files import read_json
from stillhouse.losses import topk_log_probs
from stillhouse.models.load import load_tokenizer
from stillhouse.progress import Silent
from stillhouse.tasks import make_task
from stillhouse.teachers import TopK, labelling
from stillhouse.teachers import cache as cache_module
from stillhouse.teachers.cache import CachedTeacher, Entry, SoftTargetCache, cache_fault, folder_name
from stillhouse.teachers.codec import STEP, encoded
from stillhouse.teachers.keys import Keys
from stillhouse.teachers.labelling import Writer, ask, label_examples
from stillhouse.teachers.local import LocalTeacher
from stillhouse.train.given import as_examples

META = {
    "teacher": "tiny", "temperature": 2.0, "top_k": 16, "samples": None, "outcomes": 448, "dtype": "float32",
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny.save_language_model(tmp_path_factory.mktemp("teacher") / "model", layers=1)


@pytest.fixture(scope="module")
def task(folder):
    return make_task("causal_lm", load_tokenizer(folder), 64)


@pytest.fixture(scope="module")
def examples(task):
    return as_examples(tiny.completions(20), task)


class Counting(LocalTeacher):
    """Remembers which examples it was asked about."""

    def __init__(self, model, task):
        super().__init__(model, task)
        self.asked: list[str] = []

    def topk(self, batch, k, temperature):
        self.asked += batch["keys"]
        return super().topk(batch, k, temperature)


@pytest.fixture
def teacher(folder, task):
    return Counting(task.load(folder), task)


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr(labelling, "SHARD_VALUES", 30 * 16)


def label(
    place: Path, teacher: Counting, task, examples: list[Example], said: list[str] | None = None
) -> SoftTargetCache:
    """Ask for what is missing, as the label stage does."""
    cache = SoftTargetCache(place, META, (said if said is not None else []).append)
    ask(cache, teacher, task, [e for e in examples if e.key not in cache], 4, Silent())
    return cache


def keys_in(place: Path, file: str) -> set[str]:
    import pandas

    return set(pandas.read_parquet(place / file)["key"])


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [truncate, flip, Path.unlink])
def test_a_bad_shard_is_found_at_opening_and_only_its_rows_are_asked_for_again(
    tmp_path, teacher, task, examples, small_shards, damage
):
    cache = label(tmp_path, teacher, task, examples)
    assert len(cache) == len(teacher.asked) == 20
    shards = [shard["file"] for shard in read_json(tmp_path / "index.json")["shards"]]
    assert len(shards) >= 3
    lost = keys_in(tmp_path, shards[1])
    before = {name: (tmp_path / name).read_bytes() for name in shards if name != shards[1]}
    kept = {example.key: cache.get(example.key) for example in examples}

    damage(tmp_path / shards[1])
    teacher.asked.clear()
    said: list[str] = []
    cache = label(tmp_path, teacher, task, examples, said)
    assert set(teacher.asked) == lost
    assert len(teacher.asked) == len(lost)
    assert len(said) == 1
    assert shards[1] in said[0]
    assert all((tmp_path / name).read_bytes() == content for name, content in before.items())
    for example in examples:
        assert len(cache.get(example.key)) == example.counted
        # asked for again in another batch, a log-probability may round to the next step
        torch.testing.assert_close(
            cache.get(example.key).log_p, kept[example.key].log_p, rtol=0, atol=2.1 * STEP
        )


def test_a_second_run_asks_for_nothing(tmp_path, teacher, task, examples):
    label(tmp_path, teacher, task, examples)
    teacher.asked.clear()
    label(tmp_path, teacher, task, examples)
    assert teacher.asked == []


def test_the_teacher_is_not_even_loaded_when_nothing_is_missing(tmp_path, folder, task, examples):
    label_examples(tmp_path / "c", META, folder, task, examples, 4, Silent())
    nowhere = tmp_path / "no teacher here"
    assert len(label_examples(tmp_path / "c", META, nowhere, task, examples, 4, Silent())) == 20


def test_a_shard_that_is_not_in_the_index_does_not_exist(tmp_path, teacher, task, examples, small_shards):
    """Killed between writing the shard and naming it."""
    label(tmp_path, teacher, task, examples[:8])
    index = (tmp_path / "index.json").read_bytes()
    label(tmp_path, teacher, task, examples)
    (tmp_path / "index.json").write_bytes(index)
    (tmp_path / ".00009.parquet.0badf00d.part").write_bytes(b"half")
    teacher.asked.clear()
    cache = label(tmp_path, teacher, task, examples)
    assert set(teacher.asked) == {example.key for example in examples[8:]}
    assert len(cache) == 20
    named = {shard["file"] for shard in read_json(tmp_path / "index.json")["shards"]}
    assert {path.name for path in tmp_path.iterdir()} == named | {"index.json"}


def test_a_run_killed_while_it_asks_goes_on_after_the_last_whole_shard(
    tmp_path, teacher, task, examples, small_shards
):
    class Killed(Counting):
        def topk(self, batch, k, temperature):
            if len(self.asked) >= 12:
                raise KeyboardInterrupt
            return super().topk(batch, k, temperature)

    with pytest.raises(KeyboardInterrupt):
        label(tmp_path, Killed(teacher.model, task), task, examples)
    there = {e.key for e in examples if e.key in SoftTargetCache(tmp_path, META)}
    assert there
    cache = label(tmp_path, teacher, task, examples)
    assert set(teacher.asked) == {example.key for example in examples} - there
    assert len(cache) == 20


def test_a_cache_of_other_targets_is_refused(tmp_path, teacher, task, examples):
    label(tmp_path, teacher, task, examples)
    for changed in ({"temperature": 1.0}, {"teacher": "other"}, {"top_k": 8}, {"dtype": "bfloat16"}):
        with pytest.raises(DataError, match="holds soft targets of"):
            SoftTargetCache(tmp_path, {**META, **changed})


def test_an_unreadable_index_is_a_sentence_and_nothing_is_thrown_away(tmp_path, teacher, task, examples):
    label(tmp_path, teacher, task, examples)
    truncate(tmp_path / "index.json")
    there = {path.name for path in tmp_path.iterdir()}
    with pytest.raises(DataError, match=r"index\.json.*remove the folder"):
        SoftTargetCache(tmp_path, META)
    assert {path.name for path in tmp_path.iterdir()} == there


def test_an_example_that_was_never_labelled_is_an_error_and_not_zeros(tmp_path, teacher, task, examples):
    cache = label(tmp_path, teacher, task, examples[:4])
    with pytest.raises(DataError, match="no soft targets for the example"):
        CachedTeacher(cache).signal(task.collate(examples[3:5]))


def test_what_is_kept_is_the_teachers_log_probability_over_all_outcomes_within_a_step(
    tmp_path, teacher, task, examples
):
    cache = label(tmp_path, teacher, task, examples)
    for example in examples:
        found = cache.get(example.key)
        ids, log_p = found.ids, found.log_p
        with torch.no_grad():
            logits = teacher.model(torch.tensor([example.input_ids])).logits[0, :, : task.outcomes].double()
        at = [n - 1 for n, token in enumerate(example.labels) if n and token != -100]
        exact = torch.log_softmax(logits[at] / 2.0, -1)
        assert ids.shape == (len(at), 16)
        own = exact.gather(1, ids)
        assert ((log_p.double() - own).abs() <= STEP + 1e-2).all()
        torch.testing.assert_close(
            own.sort(-1, descending=True).values, exact.topk(16).values, rtol=1e-4, atol=1e-4
        )
        torch.testing.assert_close(log_p.double().logsumexp(-1), own.logsumexp(-1), rtol=2**-10, atol=1e-6)


def test_pandas_reads_a_shard(tmp_path, teacher, task, examples):
    import pandas

    label(tmp_path, teacher, task, examples)
    table = pandas.read_parquet(tmp_path / "00000.parquet")
    assert list(table.columns) == ["key", "row", "positions", "ids_0", "ids_1", "steps_0", "steps_1", "mass"]
    assert len(table) == 20
    for row in table.itertuples():
        assert len(row.ids_0) == len(row.ids_1) == len(row.steps_0) == len(row.steps_1) == 16 * row.positions
        assert len(row.mass) == row.positions


def test_rows_of_different_groups_and_lengths_come_back_as_they_went_in(tmp_path):
    """More rows than one Parquet row group, and lists that share buffers."""
    generator = torch.Generator().manual_seed(0)
    entries, said = [], []
    meta = {**META, "top_k": 3}
    for number in range(21):
        positions = number % 4  # none at all, too
        example = Example(f"key{number}", str(number), [1], [-100, *[1] * positions, -100], [0], 0)
        logits = 3 * torch.randn(positions, 448, generator=generator)
        said.append(TopK(*topk_log_probs(logits, 3), 2.0))
        entries.append(Entry(example, encoded(said[-1], [positions], meta)[0]))
    cache = SoftTargetCache(tmp_path, meta)
    cache.add(entries[:13])
    cache.add(entries[13:])
    again = SoftTargetCache(tmp_path, meta)
    for entry, first in zip(reversed(entries), reversed(said), strict=True):
        for opened in (cache, again):
            found = opened.get(entry.example.key)
            assert found.ids.shape == (entry.positions, 3)
            assert torch.equal(found.ids.sort(-1).values, first.ids.sort(-1).values)
            torch.testing.assert_close(found.log_p, first.log_p, rtol=0, atol=STEP + 1e-2)


def test_classifiers_are_kept_too(tmp_path):
    folder = tiny.save_classifier(tmp_path / "model", layers=1)
    task = make_task("classification", load_tokenizer(folder), 40, ["bad", "good"])
    examples = as_examples(tiny.opinions(9), task)
    teacher = Counting(task.load(folder), task)
    cache = SoftTargetCache(tmp_path / "cache", {**META, "top_k": 16, "outcomes": 2})
    ask(cache, teacher, task, examples, 4, Silent())
    batch = task.collate(examples[::-1])
    kept, exact = CachedTeacher(cache).signal(batch), teacher.topk(batch, 16, 2.0)
    assert kept.ids.tolist() == [[0, 1]] * len(batch["keys"])
    torch.testing.assert_close(kept.log_p.gather(-1, exact.ids), exact.log_p, rtol=2**-11, atol=1e-6)


def test_several_processes_label_at_once_and_each_row_is_asked_for_once(tmp_path, folder, task, examples):
    meta = {**META, "outcomes": task.outcomes}
    whole = label_examples(tmp_path / "whole", meta, folder, task, examples, 4, Silent())
    sizes = []
    for number in (1, 2, 3):
        before = len(SoftTargetCache(tmp_path / "parts", meta, part=f"part-{number}-of-3"))
        mine = label_examples(tmp_path / "parts", meta, folder, task, examples, 4, Silent(), part=(number, 3))
        sizes.append(len(mine) - before)
    assert sum(sizes) == len(examples)
    assert min(sizes) > 0
    merged = SoftTargetCache(tmp_path / "parts", meta)
    assert not list((tmp_path / "parts").glob("*.parquet"))  # nothing was left for the one who merges
    for example in examples:
        one, other = merged.get(example.key), whole.get(example.key)
        # a product of other rows beside it may round differently
        torch.testing.assert_close(one.log_p, other.log_p, rtol=0, atol=2.1 * STEP)
        same = one.ids.sort(-1).values == other.ids.sort(-1).values
        assert same.float().mean() > 0.9


def test_another_versions_cache_is_a_fault_and_the_run_asks_again_in_another_folder(
    tmp_path, teacher, task, examples, monkeypatch
):
    label(tmp_path / folder_name(META), teacher, task, examples[:4])
    assert cache_fault(tmp_path / folder_name(META)) is None
    before = folder_name(META)
    monkeypatch.setattr(cache_module, "FORMAT", cache_module.FORMAT + 1)
    assert "another version's format" in (cache_fault(tmp_path / before) or "")
    with pytest.raises(DataError, match="another version's format; remove it"):
        SoftTargetCache(tmp_path / before, META)
    assert folder_name(META) != before


def test_a_part_that_was_damaged_or_given_up_is_made_good_by_the_run_itself(
    tmp_path, teacher, task, examples, small_shards
):
    cache = SoftTargetCache(tmp_path, META, part="part-1-of-2")
    ask(cache, teacher, task, examples[:12], 4, Silent())
    flip(tmp_path / "part-1-of-2" / "00000.parquet")
    assert "damaged" in (cache_fault(tmp_path) or "")
    lost = len(cache) - len(SoftTargetCache(tmp_path, META, lambda _: None))
    assert 0 < lost < 12
    teacher.asked.clear()
    label(tmp_path, teacher, task, examples)
    assert len(teacher.asked) == 8 + lost
    assert cache_fault(tmp_path) is None
    assert len(SoftTargetCache(tmp_path, META)) == 20


def test_keys_are_found_again_by_the_hundred_thousand_and_a_later_one_wins():
    keys = Keys()
    names = [f"{number:032x}" for number in range(150_000)]
    for shard in range(3):
        keys.add(names[shard * 50_000 : (shard + 1) * 50_000], shard)
    keys.add(names[:70_000], 7)
    assert len(keys) <= 150_000 + 70_000
    for number in (0, 69_999, 70_000, 99_999, 149_999):
        expected = (7, number) if number < 70_000 else (number // 50_000, number % 50_000)
        assert keys.find(names[number]) == expected
    assert keys.find("somebody else") is None


def test_a_row_that_answers_to_anothers_hash_is_not_taken_for_it(
    tmp_path, teacher, task, examples, monkeypatch
):
    cache = label(tmp_path, teacher, task, examples[:4])
    monkeypatch.setattr(cache._keys, "find", lambda key: (0, 0))
    first = cache._reader.block("00000.parquet", None).keys[0].as_py()
    assert len(cache.get(first)) > 0
    for example in examples[:4]:
        if example.key != first:
            with pytest.raises(DataError, match="has no soft targets"):
                cache.get(example.key)


def test_a_shard_that_cannot_be_written_stops_the_labelling_and_is_not_lost_in_a_thread(
    tmp_path, teacher, task, examples, small_shards, monkeypatch
):
    cache = SoftTargetCache(tmp_path, META)

    def full(entries, number):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache, "write", full)
    with pytest.raises(OSError, match="No space left"):
        ask(cache, teacher, task, examples, 4, Silent())


def test_shards_written_by_several_threads_are_named_in_the_order_in_which_they_came(tmp_path, monkeypatch):
    cache, written, second = SoftTargetCache(tmp_path, {**META, "top_k": 3}), SoftTargetCache.write, Event()

    def first_waits_for_the_second(self, entries, number):
        shard = written(self, entries, number)
        if number == 0:
            assert second.wait(30), "only one thread writes"
            assert not (tmp_path / "index.json").exists(), "the second was named before the first"
        second.set()
        return shard

    monkeypatch.setattr(SoftTargetCache, "write", first_waits_for_the_second)
    write_three(cache, threads=2)
    opened = SoftTargetCache(tmp_path, {**META, "top_k": 3})
    assert [shard["file"] for shard in read_json(tmp_path / "index.json")["shards"]] == [
        f"{number:05d}.parquet" for number in range(3)
    ]
    assert all(f"key{number}" in opened for number in range(3))


def test_a_shard_that_cannot_be_written_is_told_at_the_next_and_loses_none_that_can(tmp_path, monkeypatch):
    cache, written, third = SoftTargetCache(tmp_path, {**META, "top_k": 3}), SoftTargetCache.write, Event()

    def full(self, entries, number):
        if number == 1:
            assert third.wait(30)
            raise OSError(28, "No space left on device")
        shard = written(self, entries, number)
        if number == 2:
            third.set()
        return shard

    monkeypatch.setattr(SoftTargetCache, "write", full)
    with pytest.raises(OSError, match="No space"):
        write_three(cache, threads=3)
    assert [shard["file"] for shard in read_json(tmp_path / "index.json")["shards"]] == [
        "00000.parquet",
        "00002.parquet",
    ]
    assert len(SoftTargetCache(tmp_path, {**META, "top_k": 3})) == 2
    writer = Writer(SoftTargetCache(tmp_path, {**META, "top_k": 3}), threads=3)
    monkeypatch.setattr(SoftTargetCache, "write", lambda *_: full(cache, [], 1))
    writer.add([an_entry(3)])
    wait(writer._under_way)
    with pytest.raises(OSError, match="No space"):
        writer.add([an_entry(4)])


def write_three(cache: SoftTargetCache, threads: int) -> None:
    with Writer(cache, threads) as writer:
        for number in range(3):
            writer.add([an_entry(number)])


def an_entry(number: int) -> Entry:
    """Two positions of three outcomes."""
    example = Example(f"key{number}", str(number), [1], [-100, 1, 1, -100], [0], 0)
    logits = torch.randn(2, 448, generator=torch.Generator().manual_seed(number))
    return Entry(example, encoded(TopK(*topk_log_probs(logits, 3), 2.0), [2], {**META, "top_k": 3})[0])

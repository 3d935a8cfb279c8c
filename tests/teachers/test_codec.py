"""What is kept of a teacher comes back as it was, to the bounds that the codec states."""

import math
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

import tiny
from stillhouse.data.encode import Example
from stillhouse.losses.sparse import draw_sampled, topk_log_probs
from stillhouse.models.load import load_tokenizer
from stillhouse.progress import Silent
from stillhouse.recipe import Label
from stillhouse.tasks import make_task
from stillhouse.teachers import Sampled, TopK
from stillhouse.teachers.cache import CachedTeacher, Entry, SoftTargetCache
from stillhouse.teachers.codec import bytes_a_position, encoded
from stillhouse.teachers.gaps import Order, read_gaps, written_gaps
from stillhouse.teachers.labelling import ask, draws_of
from stillhouse.teachers.local import LocalTeacher
from stillhouse.teachers.targets import joined
from stillhouse.train.given import as_examples

DRAWN = {"temperature": 2.0, "top_k": None, "samples": 12, "seed": 3}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny.save_language_model(tmp_path_factory.mktemp("teacher") / "model", layers=1)


@pytest.fixture(scope="module")
def task(folder):
    return make_task("causal_lm", load_tokenizer(folder), 64)


@pytest.fixture(scope="module")
def examples(task):
    return as_examples(tiny.completions(20), task)


def cached(place, folder, task, examples, batch=4, **changes):
    cache = SoftTargetCache(place, {**DRAWN, "outcomes": task.outcomes, **changes})
    ask(cache, LocalTeacher(task.load(folder), task), task, examples, batch, Silent())
    return cache


def through_a_shard(place, targets, counted, meta):
    """What a new reader finds of targets that were written."""
    rows = [
        Entry(Example(str(number), "", [], [-100, *[0] * count, -100], [0], 0), values)
        for number, (count, values) in enumerate(zip(counted, encoded(targets, counted, meta), strict=True))
    ]
    SoftTargetCache(place, meta).add(rows)
    opened = SoftTargetCache(place, meta)
    return joined([opened.get(str(number)) for number in range(len(counted))], torch.device("cpu"))


def topk_meta(top_k, outcomes):
    return {"temperature": 2.0, "top_k": top_k, "samples": None, "outcomes": outcomes}


def sure_and_unsure(outcomes):
    """Teachers of many temperatures, one of which is nearly certain and one knows nothing."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(7, outcomes, generator=generator) * torch.tensor([[0.5, 1, 2, 4, 8, 0, 1]]).T
    logits[6, outcomes - 1] = 25.0
    return logits


@pytest.mark.parametrize(
    ("top_k", "outcomes"), [(1, 400), (5, 400), (399, 400), (64, 65_536), (1, 151_936), (64, 151_936), (1, 2)]
)
def test_top_k_comes_back_with_its_ids_within_a_sixteenth_of_a_nat_and_with_its_whole_mass(
    tmp_path, top_k, outcomes
):
    ids, log_p = topk_log_probs(sure_and_unsure(outcomes), top_k)
    found = through_a_shard(tmp_path, TopK(ids, log_p, 2.0), [3, 0, 4], topk_meta(top_k, outcomes))
    assert found.ids.shape == ids.shape
    assert found.temperature == 2.0
    for mine, theirs, values in zip(found.ids, ids, log_p, strict=True):
        assert set(mine.tolist()) == set(theirs.tolist())
        own = torch.zeros(outcomes).scatter_(0, theirs, values).gather(0, mine)
        bound = 1 / 16 + 2**-11 * values.double().logsumexp(-1).abs()
        assert ((found.log_p[found.ids.eq(mine).all(-1)] - own).abs().amin(0) <= bound + 1e-6).all()
    mass, told = (values.double().logsumexp(-1) for values in (log_p, found.log_p))
    torch.testing.assert_close(told, mass, rtol=2**-11, atol=2e-7)
    assert (found.log_p.diff(dim=-1) <= 0).all()
    tied = found.log_p.diff(dim=-1) == 0
    assert (found.ids.diff(dim=-1)[tied] > 0).all()


@pytest.mark.parametrize("top_k", [1, 16, 399])
def test_what_is_lost_of_top_k_is_a_divergence_below_an_eighth_of_a_steps_square(tmp_path, top_k):
    """The tail is the last of K + 1 outcomes, and a rounded best outcome of a sure teacher would be an error of it."""
    logits = sure_and_unsure(400)
    ids, log_p = topk_log_probs(logits, top_k)
    found = through_a_shard(tmp_path, TopK(ids, log_p, 2.0), [7], topk_meta(top_k, 400))
    exact = torch.log_softmax(logits.double(), -1)
    told = found.log_p.double()
    kept = exact.gather(-1, found.ids)
    lost = (kept.exp() * (kept - told)).sum(-1)
    tail, told_tail = (1 - values.exp().sum(-1) for values in (kept, told))
    tail = tail.clamp_min(0)
    lost += torch.special.xlogy(tail, tail / told_tail.clamp_min(1e-12))
    assert (lost <= (1 / 16) ** 2 / 8 + 1e-6).all()
    assert top_k == 1 or lost.max() > 1e-5


def test_outcomes_that_the_teacher_excludes_and_such_beyond_all_steps_are_told_apart(tmp_path):
    log_p = torch.tensor([[0.0, -9_000.0, -math.inf, -math.inf], [-0.5, -0.9327521, -math.inf, -math.inf]])
    ids = torch.tensor([[7, 2, 0, 99], [3, 1, 2, 0]])
    found = through_a_shard(tmp_path, TopK(ids, log_p, 2.0), [2], topk_meta(4, 100))
    assert found.ids.tolist() == [[7, 2, 0, 99], [3, 1, 0, 2]]
    assert found.log_p[:, 2:].tolist() == [[-math.inf] * 2] * 2
    assert found.log_p[0, :2].tolist() == [0.0, -(2**16 - 2) / 16]
    assert (found.log_p[1, :2] - log_p[1, :2]).abs().max() <= 1 / 16


@pytest.mark.parametrize(("top_k", "outcomes"), [("all", 400), (64, 2), (3, 3), ("all", 70_000)])
def test_where_all_outcomes_are_kept_no_ids_are_and_probabilities_come_back_within_float16(
    tmp_path, top_k, outcomes
):
    logits = sure_and_unsure(outcomes)
    logits[0, 1] = -math.inf
    ids, log_p = topk_log_probs(logits, outcomes)
    found = through_a_shard(tmp_path, TopK(ids, log_p, 2.0), [3, 0, 4], topk_meta(top_k, outcomes))
    names = pq.read_schema(tmp_path / "00000.parquet").names
    assert names == ["key", "row", "positions", "log_p"]
    assert torch.equal(found.ids, torch.arange(outcomes).expand(7, -1))
    told = found.log_p.gather(-1, ids)
    sure = log_p.isfinite()
    assert torch.equal(told.isfinite(), sure)
    assert ((told - log_p)[sure].abs() <= 2**-11 * log_p[sure].abs() + 2**-25).all()


@pytest.mark.parametrize("outcomes", [400, 65_536, 65_537, 262_144])
def test_gaps_give_every_list_back_empty_ones_and_the_largest_outcome_among_them(outcomes):
    draw = np.random.default_rng(0)
    width = np.array([0, 3, 0, 0, 9, 1, 0])
    ids = np.concatenate([draw.choice(outcomes, size, replace=False) for size in width])
    ids[:2] = outcomes - 1, 0
    order = Order.of([ids, ids[:5], ids[:2]], outcomes)
    assert np.array_equal(Order.unpacked(order.packed(), outcomes).ids, order.ids)
    assert sorted(order.ids.tolist()) == list(range(outcomes))
    position = np.repeat(np.arange(len(width)), width)
    count, planes, places = written_gaps(position, ids, len(width), order)
    assert count.tolist() == width.tolist()
    assert np.array_equal(read_gaps(count, planes, order), ids[places])
    assert np.array_equal(position[places], position)


def per_outcome(targets, outcomes):
    return torch.zeros(len(targets), outcomes).scatter_add_(1, targets.ids, targets.shares)


@pytest.mark.parametrize(("draws", "outcomes"), [(12, 400), (1, 400), (250, 70_000)])
def test_shares_come_back_exactly_and_the_entropy_of_each_row_in_the_mean(tmp_path, draws, outcomes):
    generator = torch.Generator().manual_seed(0)
    log_p = torch.log_softmax(4 * torch.randn(9, outcomes, generator=generator), -1)
    log_p[4] = torch.log_softmax(torch.zeros(outcomes), -1)
    log_p[5] = torch.log_softmax(torch.cat([torch.tensor([90.0]), torch.zeros(outcomes - 1)]), -1)
    ids, shares, _ = draw_sampled(log_p, torch.rand(9, generator=generator), draws)
    entropy = -(log_p.exp() * log_p).sum(-1)
    said = Sampled(ids, shares, entropy, 2.0)
    meta = {**DRAWN, "samples": draws, "outcomes": outcomes}
    counted = [1, 5, 3]
    found = through_a_shard(tmp_path, said, counted, meta)
    assert torch.equal(per_outcome(found, outcomes), per_outcome(said, outcomes))
    means = torch.cat([part.mean().expand(len(part)) for part in entropy.split(counted)])
    torch.testing.assert_close(found.entropy, means)


def test_what_is_drawn_follows_from_the_row_and_the_seed_and_not_from_its_batch(
    tmp_path, folder, task, examples
):
    one = cached(tmp_path / "one", folder, task, examples, batch=4)
    other = cached(tmp_path / "other", folder, task, examples[::-1], batch=7)
    third = cached(tmp_path / "third", folder, task, examples, batch=4, seed=4)
    same = []
    for example in examples:
        a, b, c = (cache.get(example.key) for cache in (one, other, third))
        assert torch.equal(a.ids, b.ids)
        assert torch.equal(a.shares, b.shares)
        same.append(a.ids.shape == c.ids.shape and torch.equal(a.ids, c.ids))
    assert not all(same)
    assert torch.equal(draws_of(examples[0], 3), draws_of(examples[0], 3))


def test_drawn_targets_are_the_teachers_and_a_batch_of_them_is_its_rows(tmp_path, folder, task, examples):
    cache = cached(tmp_path, folder, task, examples)
    batch = task.collate(examples[5:9])
    found = CachedTeacher(cache).signal(batch)
    exact = LocalTeacher(task.load(folder), task).signal(batch)
    p = torch.softmax(exact.logits(slice(None)) / 2.0, -1)
    assert len(found) == len(exact)
    shares = per_outcome(found, task.outcomes)
    assert ((shares - p).abs() < 1 / 12 + 1e-4).all()
    assert (shares > 0)[p > 1 / 12 + 1e-4].all()
    assert abs(shares.sum() / len(found) - 1) < 0.1
    entropy = -(p * p.log()).sum(-1)
    torch.testing.assert_close(found.entropy.sum(), entropy.sum(), rtol=1e-4, atol=0)


@pytest.mark.parametrize("label", [Label(top_k=16), Label(top_k="all"), Label(samples=12)])
def test_the_plans_bytes_are_near_those_on_disk(tmp_path, folder, task, label):
    """A teacher as sure of itself as real ones are."""
    texts = as_examples([{"text": text} for text in tiny.sentences(400)], task)
    model = task.load(folder)
    model.get_output_embeddings().weight.data.mul_(3.0)
    changes = {
        "top_k": None if label.samples else label.top_k,
        "samples": label.samples,
        "outcomes": task.outcomes,
    }
    cache = SoftTargetCache(tmp_path, {**DRAWN, **changes})
    ask(cache, LocalTeacher(model, task), task, texts, 16, Silent())
    size = sum(path.stat().st_size for path in tmp_path.glob("*.parquet"))
    positions = sum(example.counted for example in texts)
    assert 0.4 < bytes_a_position(label, task.outcomes) * positions / size < 2.5


def lines_of_the_docs(shard):
    """What the docs' lines define, run for this shard."""
    place = {"shard": shard}
    lines = (Path(__file__).parents[2] / "docs" / "teachers.md").read_text(encoding="utf-8")
    exec(lines.partition("```python\n# a shard")[2].partition("```")[0].partition("\n")[2], place)
    return place, {row.key: row for row in place["table"].itertuples()}


def test_pandas_reads_drawn_targets_by_the_lines_of_the_docs(tmp_path, folder, task, examples):
    cache = cached(tmp_path / "cache", folder, task, examples)
    place, rows = lines_of_the_docs(tmp_path / "cache" / "00000.parquet")
    assert len(rows) == len(examples)
    for example in examples:
        mine = cache.get(example.key)
        for position in range(len(mine)):
            kept, drawn = place["drawn_at"](rows[example.key], position)
            used = mine.shares[position] > 0
            expected = dict(
                zip(mine.ids[position][used].tolist(), mine.shares[position][used].tolist(), strict=True)
            )
            assert {**kept, **dict.fromkeys(drawn, 1 / 12)} == pytest.approx(expected)


def test_pandas_reads_top_k_targets_by_the_lines_of_the_docs(tmp_path, folder, task, examples):
    cache = cached(tmp_path / "cache", folder, task, examples, top_k=16, samples=None)
    place, rows = lines_of_the_docs(tmp_path / "cache" / "00000.parquet")
    for example in examples:
        mine = cache.get(example.key)
        for position in range(len(mine)):
            expected = dict(
                zip(mine.ids[position].tolist(), mine.log_p[position].exp().tolist(), strict=True)
            )
            assert place["topk_at"](rows[example.key], position) == pytest.approx(expected, rel=1e-5)


def test_pandas_reads_the_probabilities_of_all_outcomes_as_they_are(tmp_path, folder, task, examples):
    import pandas

    cache = cached(tmp_path, folder, task, examples, top_k="all", samples=None)
    for row in pandas.read_parquet(tmp_path / "00000.parquet").itertuples():
        assert (row.log_p.reshape(row.positions, -1) == cache.get(row.key).log_p.numpy()).all()

"""What is kept of a teacher comes back as it was, to the bounds that the codec states."""

import numpy as np
import pytest
import torch

import tiny
from stillhouse.models.load import load_tokenizer
from stillhouse.progress import Silent
from stillhouse.recipe import Label
from stillhouse.tasks import make_task
from stillhouse.teachers import Sampled, TopK
from stillhouse.teachers.cache import CachedTeacher, SoftTargetCache
from stillhouse.teachers.codec import bytes_a_position, decoded, encoded
from stillhouse.teachers.labelling import ask, draws_of
from stillhouse.teachers.local import LocalTeacher
from stillhouse.train.distiller import as_examples

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


@pytest.mark.parametrize("outcomes", [400, 65_536, 151_936])
def test_top_k_comes_back_within_float16_and_ids_of_every_vocabulary_exactly(outcomes):
    generator = torch.Generator().manual_seed(0)
    ids = torch.stack([torch.randperm(outcomes, generator=generator)[:5] for _ in range(7)])
    ids[0, 0] = outcomes - 1
    log_p = -torch.rand(7, 5, generator=generator).cumsum(-1) * 4
    meta = {"temperature": 2.0, "top_k": 5, "samples": None, "outcomes": outcomes}
    first, second = encoded(TopK(ids, log_p, 2.0), [3, 4], meta)
    for row, at in ((first, slice(0, 3)), (second, slice(3, 7))):
        found = decoded(row, at.stop - at.start, meta)
        assert torch.equal(found.ids, ids[at])
        assert ((found.log_p - log_p[at]).abs() <= 2**-11 * log_p[at].abs() + 1e-7).all()


def test_draws_come_back_exactly_with_rows_of_different_width():
    ids = torch.tensor([[4, 9, 0], [7, 0, 0], [1, 2, 8]])
    shares = torch.tensor([[9, 3, 0], [12, 0, 0], [5, 6, 1]]) / 12
    entropy = torch.tensor([0.51, 0.0, 2.25])
    meta = {**DRAWN, "outcomes": 400}
    rows = encoded(Sampled(ids, shares, entropy, 2.0), [1, 2], meta)
    found = [decoded(row, count, meta) for row, count in zip(rows, (1, 2), strict=True)]
    assert torch.equal(found[0].ids, ids[:1, :2])
    torch.testing.assert_close(found[0].shares, shares[:1, :2])
    assert torch.equal(found[1].ids, ids[1:])
    torch.testing.assert_close(found[1].shares, shares[1:])
    torch.testing.assert_close(torch.cat([one.entropy for one in found]), entropy, rtol=2**-11, atol=0)


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
    torch.testing.assert_close(found.shares.sum(-1), torch.ones(len(found)))
    mine = p.gather(-1, found.ids)
    assert ((found.shares - mine).abs() < 1 / 12 + 1e-4)[found.shares > 0].all()
    entropy = -(p * p.log()).sum(-1)
    torch.testing.assert_close(found.entropy, entropy, rtol=2**-10, atol=1e-4)


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


def test_pandas_reads_drawn_targets(tmp_path, folder, task, examples):
    import pandas

    cached(tmp_path, folder, task, examples)
    table = pandas.read_parquet(tmp_path / "00000.parquet")
    assert list(table.columns) == ["key", "row", "positions", "width", "ids", "counts", "entropy"]
    for row in table.itertuples():
        assert len(row.width) == len(row.entropy) == row.positions
        assert np.sum(row.width) == len(row.ids) == len(row.counts)
        assert np.sum(row.counts) == 12 * row.positions

"""Rows made of rows: without labels, from the seed, and never the rows themselves."""

import numpy as np
import pytest
import torch
from tokenizers import decoders

import tiny
from stillhouse.data.augment import NEIGHBOURS, _mistyped, augmented, neighbours
from stillhouse.models.load import load_tokenizer
from stillhouse.recipe import Augment
from stillhouse.tasks import make_task
from stillhouse.train.given import as_examples


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    folder = tiny.save_classifier(tmp_path_factory.mktemp("model") / "classifier")
    return make_task("classification", load_tokenizer(folder), 40, ["bad", "good"])


@pytest.fixture(scope="module")
def examples(task):
    return as_examples(tiny.opinions(30), task)


@pytest.fixture(scope="module")
def near(task, examples):
    embeddings = torch.randn(len(task.tokenizer), 16, generator=torch.Generator().manual_seed(0))
    return neighbours(embeddings, examples, task.tokenizer)


def test_neighbours_are_the_nearest_whole_words_by_cosine_and_never_the_word_itself(task, examples, near):
    embeddings = torch.randn(len(task.tokenizer), 16, generator=torch.Generator().manual_seed(0)).double()
    centred = embeddings - embeddings.mean(0)
    names = task.tokenizer.convert_ids_to_tokens(range(len(task.tokenizer)))
    assert near
    for word, found in near.items():
        assert names[word].isalpha()
        assert word not in found
        assert len(found) == min(NEIGHBOURS, len(near) - 1)
        cosines = {
            o: float(torch.cosine_similarity(centred[word], centred[o], dim=0)) for o in near if o != word
        }
        assert set(found) == set(sorted(cosines, key=cosines.get, reverse=True)[: len(found)])


def test_each_row_gives_its_copies_without_labels_and_none_is_a_row_that_is_there(task, examples, near):
    made = list(augmented(examples, Augment(copies=4), near, task.tokenizer, 0))
    assert 3 * len(examples) < len(made) <= 4 * len(examples)
    keys = [example.key for example in [*examples, *made]]
    assert len(set(keys)) == len(keys)
    for example in made:
        assert example.labels == [-100]
        assert example.counted == 1
        assert example.input_ids[0] == task.tokenizer.cls_token_id
        assert example.input_ids[-1] == task.tokenizer.sep_token_id
        assert len(example.input_ids) <= max(len(other.input_ids) for other in examples)
    assert {example.row.rpartition("~")[0] for example in made} == {example.row for example in examples}


def test_what_is_made_follows_from_the_seed_and_the_row_alone(task, examples, near):
    wanted = Augment(copies=2, splice=0.0)
    once = {e.row: e.input_ids for e in augmented(examples, wanted, near, task.tokenizer, 0)}
    fewer = {e.row: e.input_ids for e in augmented(examples[10:], wanted, near, task.tokenizer, 0)}
    assert all(once[row] == ids for row, ids in fewer.items())
    other = {e.row: e.input_ids for e in augmented(examples, wanted, near, task.tokenizer, 1)}
    assert once != other


def test_about_the_share_asked_for_is_replaced_by_neighbours_or_masked(task, examples, near):
    wanted = Augment(copies=20, splice=0.0, replace=0.5, mask=0.2)
    words = replaced = masked = rest = 0
    whole = {example.row: example.input_ids for example in examples}
    for example in augmented(examples, wanted, near, task.tokenizer, 0):
        for before, after in zip(whole[example.row.rpartition("~")[0]], example.input_ids, strict=True):
            if before in near:
                words += 1
                replaced += after != before and after != task.tokenizer.mask_token_id
                assert after in (before, task.tokenizer.mask_token_id, *near[before])
                masked += after == task.tokenizer.mask_token_id
            else:
                rest += after not in (before, task.tokenizer.mask_token_id)
    assert replaced / words == pytest.approx(0.5, abs=0.05)
    assert masked / words == pytest.approx(0.2, abs=0.05)
    assert rest == 0


def test_joined_rows_are_a_beginning_and_an_end(task, examples, near):
    inner = [example.input_ids[1:-1] for example in examples]
    made = list(augmented(examples, Augment(copies=3, splice=1.0), near, task.tokenizer, 0))
    assert len(made) > len(examples)
    for example in made:
        own = example.input_ids[1:-1]
        starts = [n for n in range(len(own) + 1) if any(own[:n] == one[:n] for one in inner)]
        ends = [n for n in range(len(own) + 1) if any(_within(own[n:], one) for one in inner)]
        assert max(starts) >= min(ends)


def _within(part: list[int], whole: list[int]) -> bool:
    return any(whole[n : n + len(part)] == part for n in range(len(whole) - len(part) + 1))


def test_a_single_row_is_not_joined_with_itself_and_no_words_means_no_replacement(task, examples):
    made = list(augmented(examples[:1], Augment(copies=5, mask=0.5), {}, task.tokenizer, 0))
    assert made
    for example in made:
        changed = np.array(example.input_ids) != np.array(examples[0].input_ids)
        assert (np.array(example.input_ids)[changed] == task.tokenizer.mask_token_id).all()


def spoken(task, ids):
    """Its words; [UNK] where the tiny vocabulary does not know what a typo made."""
    return task.tokenizer.decode(ids[1:-1]).split()


def test_noise_mistypes_about_its_share_of_the_words_and_leaves_the_borders(task, examples, monkeypatch):
    joined = decoders.WordPiece()  # as tokenizers have that were not made for a test
    monkeypatch.setattr(task.tokenizer.backend_tokenizer, "decoder", joined)
    wanted = Augment(copies=20, splice=0.0, mask=0.0, noise=0.3)
    changed = words = 0
    known = {example.row: example for example in examples}
    for made in augmented(examples, wanted, {}, task.tokenizer, 0):
        assert made.input_ids[0] == task.tokenizer.cls_token_id
        assert made.input_ids[-1] == task.tokenizer.sep_token_id
        before, after = (
            spoken(task, ids) for ids in (known[made.row.rpartition("~")[0]].input_ids, made.input_ids)
        )
        changed += sum(a != b for a, b in zip(before, after, strict=True))
        words += sum(len(word) >= 3 for word in before)
    assert words > 5000
    assert changed / words == pytest.approx(
        0.3, abs=0.05
    )  # some letters are doubled or swapped with their like


def test_a_row_with_typos_is_no_longer_than_what_a_model_reads(task, examples):
    wanted = Augment(copies=5, splice=0.0, noise=1.0)
    made = list(augmented(examples, wanted, {}, task.tokenizer, 0, 18))
    assert max(len(one.input_ids) for one in made) == 18, "some would be longer"
    assert {one.input_ids[-1] for one in made} == {task.tokenizer.sep_token_id}


def test_noise_follows_from_seed_and_row_and_changes_nothing_else_that_is_drawn(task, examples, near):
    noisy = Augment(copies=2, noise=0.5)
    once = {e.row: e.input_ids for e in augmented(examples, noisy, near, task.tokenizer, 0)}
    again = {e.row: e.input_ids for e in augmented(examples, noisy, near, task.tokenizer, 0)}
    other = {e.row: e.input_ids for e in augmented(examples, noisy, near, task.tokenizer, 1)}
    assert once == again != other
    calm = {e.row: e.input_ids for e in augmented(examples, Augment(copies=2), near, task.tokenizer, 0)}
    barely = Augment(copies=2, noise=1e-9)
    assert calm == {e.row: e.input_ids for e in augmented(examples, barely, near, task.tokenizer, 0)}


def test_a_text_that_its_tokens_do_not_spell_stays_as_it_is(task):
    unknown = task.tokenizer.unk_token_id
    ids = [task.tokenizer.cls_token_id, unknown, unknown, task.tokenizer.sep_token_id]
    assert _mistyped(ids, 1.0, 40, task.tokenizer, np.random.default_rng(0)) == ids

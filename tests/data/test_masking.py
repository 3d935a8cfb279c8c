"""Which tokens of a text are hidden: how many, what they become, and that nothing but (seed, epoch, text) decides it."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import EsmTokenizer

import tiny
from stillhouse.data.encode import IGNORED, Example
from stillhouse.data.masking import Masking, unmasked
from stillhouse.errors import RecipeError

TOKENIZER = tiny.encoder_tokenizer()
MASKING = Masking(TOKENIZER, 32)
SPECIAL = set(TOKENIZER.all_special_ids)


def rows(count: int, seed: int = 0) -> list[dict[str, str]]:
    return [
        {"id": str(number), "where": f"row {number}", "text": text}
        for number, text in enumerate(tiny.sentences(count, seed))
    ]


def hidden(example: Example) -> list[int]:
    return [at for at, label in enumerate(example.labels) if label != IGNORED]


def test_a_long_text_is_cut_into_pieces_and_no_token_of_it_is_lost() -> None:
    text = " ".join(tiny.sentences(20))
    made = list(MASKING.encode([{"id": "a", "text": text}]))
    assert len(made) > 1
    assert all(len(example.input_ids) <= 32 for example in made)
    kept = [token for example in made for token in unmasked(example) if token not in SPECIAL]
    assert kept == TOKENIZER(text, add_special_tokens=False)["input_ids"]
    assert {example.row for example in made} == {"a"}


def test_as_many_tokens_are_hidden_as_the_source_says_and_never_a_special_one() -> None:
    made = list(MASKING.encode(rows(50)))
    for example in made:
        text = [token for token in unmasked(example) if token not in SPECIAL]
        assert len(hidden(example)) == max(1, round(0.15 * len(text))) == example.counted
        assert not SPECIAL & {example.labels[at] for at in hidden(example)}
        untouched = [at for at in range(len(example.labels)) if at not in hidden(example)]
        assert [example.input_ids[at] for at in untouched] == [unmasked(example)[at] for at in untouched]


def test_of_hidden_tokens_eight_in_ten_are_masked_one_is_another_and_one_stays() -> None:
    kinds = {"mask": 0, "same": 0, "other": 0}
    places: list[float] = []
    for example in MASKING.encode(rows(2000)):
        for at in hidden(example):
            read, was = example.input_ids[at], example.labels[at]
            kinds["mask" if read == TOKENIZER.mask_token_id else "same" if read == was else "other"] += 1
            assert read == TOKENIZER.mask_token_id or read not in SPECIAL
            places.append(at / len(example.labels))
    total = sum(kinds.values())
    spread = 4 * np.sqrt(0.25 / total)  # four standard errors at most
    assert total > 3000
    assert kinds["mask"] / total == pytest.approx(0.8, abs=spread)
    assert kinds["other"] / total == pytest.approx(0.1, abs=spread)
    assert kinds["same"] / total == pytest.approx(0.1, abs=spread)
    assert np.mean(places) == pytest.approx(0.5, abs=0.05)


def test_what_is_hidden_follows_from_seed_epoch_and_text_and_from_nothing_else() -> None:
    some = rows(30)
    made = list(MASKING.encode(some))
    state = torch.get_rng_state(), np.random.get_state()[1].copy()
    again = {example.row: example for example in MASKING.encode(some[::-1])}
    assert [again[example.row] for example in made] == made
    drawn = [MASKING.drawn(example, 3, 5) for example in made]
    assert [MASKING.drawn(MASKING.drawn(example, 1, 1), 3, 5) for example in made] == drawn
    assert [MASKING.drawn(example, 0, 0) for example in made] == made
    for other in ((3, 6), (4, 5)):
        apart = [MASKING.drawn(example, *other) for example in made]
        assert sum(hidden(one) == hidden(two) for one, two in zip(drawn, apart, strict=True)) < 5
        assert [unmasked(example) for example in apart] == [unmasked(example) for example in made]
        assert [example.counted for example in apart] == [example.counted for example in made]
    assert len({example.key for example in made + drawn}) == len(made + drawn)
    assert torch.equal(torch.get_rng_state(), state[0])
    assert (np.random.get_state()[1] == state[1]).all()


def test_a_tokenizer_without_a_mask_token_is_refused() -> None:
    with pytest.raises(RecipeError, match="needs a mask token"):
        Masking(tiny.language_tokenizer(), 32)


def test_a_slow_tokenizer_is_refused(tmp_path: Path) -> None:
    words = ["<cls>", "<pad>", "<eos>", "<unk>", *"ACDE", "<mask>"]
    (tmp_path / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    with pytest.raises(RecipeError, match="EsmTokenizer of the teacher is a slow one"):
        Masking(EsmTokenizer(tmp_path / "vocab.txt"), 8)

"""Which of several answers stays, and what is said when none does."""

import sys

import pytest

from stillhouse.data.choosing import best, checked_by, key_of, vote
from stillhouse.data.formats import with_id
from stillhouse.errors import DataError

FOURS = ["so 4", "the answer is 5", "it is 4 then", "four: 4"]


@pytest.mark.parametrize(
    ("texts", "least", "choice"),
    [
        (FOURS, 0.75, (0, "")),
        (FOURS, 0.8, (None, "samples disagree")),
        (["a", "b", "b", "a"], 0.5, (None, "samples tie")),
        (["a", "b"], 0.5, (None, "samples tie")),
        ([None, "b", "b", None], 0.5, (1, "")),
        ([None, "b", "b", None], 0.6, (None, "samples disagree")),
        ([None, " "], 0.5, (None, "all answers are cut off or empty")),
    ],
)
def test_the_commonest_stays_and_ties_and_cut_answers_are_told_apart(texts, least, choice) -> None:
    """A vote that counts only the whole answers calls one of three a majority; one that takes the first of a tie is a coin."""
    assert vote(texts, least) == choice


def test_the_best_score_stays_the_first_of_equal_ones_and_none_at_all_says_so() -> None:
    assert best([0.2, 0.9, None, 0.9], 0.0, "bad") == (1, "")
    assert best([0.0, None], 0.0, "bad") == (None, "bad")
    assert best([None, None], 0.0, "bad")[0] is None


@pytest.fixture
def mine(tmp_path, monkeypatch):
    (tmp_path / "mine_of_choosing.py").write_text(
        "def first_letter(text): return text[0].lower()\n"
        "def broken(text): return text[99]\n"
        "def short(row): return 1.0 / len(row['completion']) if 'no' not in row['completion'] else 'says no'\n"
        "def nothing(row): return None\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("mine_of_choosing", None)


def test_a_users_key_decides_what_agrees_and_its_fault_names_the_answer(mine) -> None:
    assert vote(["Yes.", "yellow", "no"], 0.5, key_of("mine_of_choosing:first_letter")) == (0, "")
    with pytest.raises(DataError, match="mine_of_choosing:broken raised IndexError.*'Yes.'"):
        vote(["Yes."], 0.5, key_of("mine_of_choosing:broken"))


def test_a_users_checker_scores_the_row_with_the_answer(mine) -> None:
    row = with_id({"where": "x:1", "prompt": "Well?", "completion": "old"})
    score = checked_by("mine_of_choosing:short")
    assert score(row, "ab") == 0.5 and score(row, "no") == 0.0 and score(row, None) is None
    with pytest.raises(DataError, match="x:1: mine_of_choosing:nothing returned NoneType"):
        checked_by("mine_of_choosing:nothing")(row, "a")

"""Two tokenizers on one text: spans cover the same bytes, and nothing is paired with what it is not."""

import pytest
from transformers import PreTrainedTokenizerFast

import tiny
import tongues
from stillhouse.data.alignment import Alignment, Tongue
from stillhouse.data.encode import IGNORED, encode_chat, encode_completion, encode_text
from stillhouse.data.vocabularies import Vocabularies, edit_distances
from stillhouse.errors import RecipeError

TEXTS = ["The old río keeps 東京 — naïve!\n\n  two  spaces", *tiny.sentences(6)]


@pytest.fixture(scope="module")
def pair():
    return Alignment(tiny.language_tokenizer(), tongues.other_tokenizer())


def counted(example):
    return [
        t
        for n, (t, label) in enumerate(zip(example.input_ids, example.labels, strict=True))
        if n and label != IGNORED
    ]


def both(pair, example, reading):
    """(my bytes, their bytes) of each span."""
    mine, theirs = counted(example), counted(reading.example)
    return [(pair.mine.spelled(mine[a:b]), pair.theirs.spelled(theirs[c:d])) for a, b, c, d in reading.spans]


@pytest.mark.parametrize("turned", [False, True])
def test_spans_cover_the_same_bytes_in_packed_and_cut_rows(pair, turned):
    side = Alignment(pair.theirs.tokenizer, pair.mine.tokenizer) if turned else pair
    rows = [{"id": str(n), "text": text} for n, text in enumerate(TEXTS)]
    for length in (7, 16, 64):  # rows cut anywhere, in the middle of letters too
        for example in encode_text(rows, side.mine.tokenizer, length):
            reading = side.read(example)
            pieces = both(side, example, reading)
            assert all(a == b for a, b in pieces), pieces
            firsts = [span[0] for span in reading.spans]
            assert firsts == sorted(set(firsts))
            assert reading.example.key == example.key


def test_nearly_all_of_a_plain_text_lies_in_spans_and_its_end_is_one(pair):
    (example,) = encode_text([{"id": "0", "text": TEXTS[1]}], pair.mine.tokenizer, 200)
    reading = pair.read(example)
    covered = b"".join(a for a, _ in both(pair, example, reading))
    assert len(covered) >= len(TEXTS[1].encode()) - 12  # all but the first token of each
    a, b, c, d = reading.spans[-1]
    assert (counted(example)[a:b], counted(reading.example)[c:d]) == (
        [pair.mine.tokenizer.eos_token_id],
        [pair.theirs.tokenizer.eos_token_id],
    )
    assert reading.example.input_ids[0] == pair.theirs.tokenizer.bos_token_id


def test_of_a_completion_the_prompt_is_not_compared(pair):
    row = {"id": "0", "where": "row 1", "prompt": "the teacher reads", "completion": " a small old book well"}
    example = encode_completion(row, pair.mine.tokenizer, 64)
    reading = pair.read(example)
    assert b"".join(a for a, _ in both(pair, example, reading)) == row["completion"].encode()
    labels = reading.example.labels
    assert pair.theirs.spelled([t for t in labels if t != IGNORED]) == row["completion"].encode()


def test_a_conversation_is_read_in_the_other_template_and_answers_are_compared_by_number(pair):
    said = [
        {"role": "user", "content": "who reads?"},
        {"role": "assistant", "content": "the quiet student reads "},
        {"role": "user", "content": "what?"},
        {"role": "assistant", "content": "a good book"},
    ]
    example = encode_chat({"id": "0", "where": "row 1", "messages": said}, pair.mine.tokenizer, 200)
    reading = pair.read(example, said)
    text = pair.theirs.tokenizer.decode(reading.example.input_ids)
    assert "[user] who reads?</turn>" in text and "<|im_start|>" not in text
    pieces = both(pair, example, reading)
    assert all(a == b for a, b in pieces)
    # one template keeps the first answer's last space and the other trims it: its end is its end nevertheless
    ends = [n for n, (a, _) in enumerate(pieces) if a == b""]
    assert len(ends) == 2
    whole = b"".join(
        a for a, _ in pieces
    )  # but for a first word that shares its token with the template's space
    assert b" quiet student reads" in whole and b" good book" in whole


def test_a_tokenizer_that_loses_letters_is_refused(tmp_path):
    tiny.save_classifier(tmp_path / "bert")
    lossy = PreTrainedTokenizerFast.from_pretrained(tmp_path / "bert")
    with pytest.raises(RecipeError, match="does not keep every byte"):
        Tongue(lossy)


def test_shared_tokens_stand_for_the_same_bytes_and_each_is_paired_once(pair):
    shared = Vocabularies(pair.mine, pair.theirs).shared
    mine, theirs = zip(*shared, strict=True)
    assert len(set(mine)) == len(mine) > 100
    assert len(set(theirs)) == len(theirs)
    ends = (pair.mine.tokenizer.eos_token_id, pair.theirs.tokenizer.eos_token_id)
    assert ends in shared
    assert all(pair.mine.bytes[a] == pair.theirs.bytes[b] for a, b in shared if (a, b) != ends)
    chat = Vocabularies(pair.mine, pair.theirs, chat=True).shared
    turns = (pair.mine.end_of_turn(), pair.theirs.end_of_turn())
    assert turns in chat and ends not in chat


def test_the_nearest_token_is_the_one_with_fewest_edits(pair):
    def naive(a, b):
        if not a or not b:
            return len(a) + len(b)
        return min(naive(a[1:], b) + 1, naive(a, b[1:]) + 1, naive(a[1:], b[1:]) + (a[0] != b[0]))

    words = [b"kitten", b"sit", b"sitting", b"", b"k"]
    assert edit_distances(b"mitten", words).tolist() == [naive(b"mitten", word) for word in words]
    book = Vocabularies(pair.mine, pair.theirs)
    end = pair.theirs.tokenizer.eos_token_id
    named = [
        (pair.theirs.bytes[theirs], pair.mine.bytes[found])
        for theirs, found in zip(range(300), book.nearest(range(300)), strict=True)
        if found >= 0 and theirs != end
    ]
    other = [(theirs, mine) for theirs, mine in named if theirs and theirs != mine]
    assert len(other) > 3
    assert all(mine[:1] == theirs[:1] for theirs, mine in other)

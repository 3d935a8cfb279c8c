"""A server's log-probabilities become soft targets only where its tokens are the student's; all else is a hard target."""

import math
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

import tiny
import tongues
from stillhouse.asking.messages import Answer, numbered, read_answer, spelled
from stillhouse.data.encode import Example, encode_chat, encode_completion
from stillhouse.steps.told import listen, turns_of
from stillhouse.tasks import make_task
from stillhouse.teachers import TopK
from stillhouse.teachers.cache import Entry, SoftTargetCache
from stillhouse.teachers.codec import STEP, encoded
from stillhouse.teachers.told import Names, choices, told_targets

TOKENIZER = tiny.language_tokenizer()
NAMES = Names(TOKENIZER)
END = "<|im_end|>"


def ids(text: str) -> list[int]:
    return list(TOKENIZER(text, add_special_tokens=False)["input_ids"])


def pieces(text: str) -> list[bytes]:
    return [NAMES.bytes[token] or b"" for token in ids(text)]


def named(piece: bytes) -> str:
    """As `read_answer` names a token with these bytes."""
    body = {"choices": [{"message": {"content": "x"}, "finish_reason": "stop", "logprobs": {"content": [
        {"token": piece.decode(errors="replace"), "bytes": list(piece), "logprob": -1.0}
    ]}}]}  # fmt: skip
    found = read_answer(body)
    assert isinstance(found, Answer)
    return found.tokens[0][0]


def answer(text: str, others: dict[str, float] | None = None, end: str | None = None) -> Answer:
    """Every token of `text` with a probability of 0.6, beside `others`."""
    names = [named(piece) for piece in pieces(text)] + ([end] if end is not None else [])
    return Answer(
        "answered", text, tokens=tuple((name, {**(others or {}), name: math.log(0.6)}) for name in names)
    )


def chat(text: str, *earlier: dict[str, str], max_length: int = 200, template: str | None = None) -> Example:
    tokenizer: Any = tiny.language_tokenizer()
    if template is not None:
        tokenizer.chat_template = template
    turns = [*earlier, {"role": "user", "content": "Why?"}, {"role": "assistant", "content": text}]
    made = encode_chat({"id": "r", "where": "r", "messages": turns}, tokenizer, max_length)
    assert isinstance(made, Example)
    return made


def counted(example: Example) -> list[int]:
    return [label for label in example.labels[1:] if label != -100]


def shown(example: Example, said: Answer, cut: bool = False, k: int = 4) -> list[dict[int, float]]:
    """{token: probability} of each counted position, spare places left out."""
    targets = told_targets(example, choices(example, said, NAMES, cut), k)
    return [
        {
            token: round(math.exp(log_p), 4)
            for token, log_p in zip(row, each, strict=True)
            if log_p > -math.inf
        }
        for row, each in zip(targets.ids.tolist(), targets.log_p.tolist(), strict=True)
    ]


def test_every_token_of_the_answer_gets_what_was_told_and_the_untold_end_is_a_hard_target() -> None:
    example = chat("the old river")
    (other,) = ids(" book")
    nobody = {"no such token": math.log(0.05), "\ufffd": math.log(0.02)}
    said = answer("the old river", {" book": math.log(0.3), **nobody})
    found = shown(example, said)
    *text, end = counted(example)
    assert text == ids("the old river") and end == TOKENIZER.eos_token_id
    assert found == [*({token: 0.6, other: 0.3} for token in text), {end: 1.0}], (
        "the rest of the mass is the tail's"
    )


def test_the_end_of_the_turn_is_soft_where_the_server_tells_it() -> None:
    example = chat("the old river")
    assert shown(example, answer("the old river", end=END))[-1] == {TOKENIZER.eos_token_id: 0.6}
    other = shown(example, answer("the old river", end="</s>"))
    assert other[-1] == {TOKENIZER.eos_token_id: 1.0}, "an end by another name is another token"
    assert other[0] == {ids("the")[0]: 0.6}, "and no reason to forget the text"


def test_only_the_last_turn_is_what_the_server_said() -> None:
    earlier = ({"role": "user", "content": "Who?"}, {"role": "assistant", "content": "the old river"})
    example = chat("the old river", *earlier)
    found = shown(example, answer("the old river"))
    length = len(ids("the old river"))
    assert [set(one.values()) for one in found] == [{1.0}] * (length + 1) + [{0.6}] * length + [{1.0}]


def test_what_a_template_puts_before_an_answer_is_a_hard_target() -> None:
    template = tiny.CHAT.replace(
        "{{ m['content'] }}", "{{ '[]\\n' if m['role'] == 'assistant' else '' }}{{ m['content'] }}"
    )
    example = chat("the old river", template=template)
    values = [set(one.values()) for one in shown(example, answer("the old river"))]
    length = len(ids("the old river"))
    assert values == [{1.0}] * (len(values) - length - 1) + [{0.6}] * length + [{1.0}]
    assert len(values) > length + 1


def test_an_answer_that_is_cut_keeps_what_was_told_of_its_beginning() -> None:
    whole = chat("the old river")
    example = chat("the old river", max_length=len(whole.input_ids) - 3)
    said = answer("the old river")
    assert {value for one in shown(example, said, cut=True) for value in one.values()} == {0.6}
    assert choices(example, said, NAMES, cut=False) is None


@pytest.mark.parametrize(
    "names",
    [
        ["the o", "ld river"],
        ["the", " old"],
        ["the", " old", " river", "!"],
        ["the", " old", "\ufffd"],
        [],
    ],
)
def test_tokens_that_are_not_the_students_are_not_used_at_all(names: list[str]) -> None:
    said = Answer("answered", "the old river", tokens=tuple((name, {name: -0.1}) for name in names))
    example = chat("the old river")
    assert choices(example, said, NAMES, cut=False) is None
    assert shown(example, said) == [{token: 1.0} for token in counted(example)], "its text is still learned"


def test_an_answer_beyond_max_length_lends_its_probabilities_to_no_earlier_turn() -> None:
    """The earlier turn says the very same; the limit falls into it, behind it, into the answer and behind that."""
    text = "the old river keeps"
    earlier = {"role": "user", "content": "Who?"}, {"role": "assistant", "content": text}
    rows = [{"id": "r", "messages": [*earlier, {"role": "user"}, {"role": "assistant"}]}]
    whole = chat(text, *earlier)
    places = [at for at, label in enumerate(whole.labels) if label != -100]
    first, second = places[: len(places) // 2], places[len(places) // 2 :]
    assert [whole.labels[at] for at in first] == [whole.labels[at] for at in second]
    for length, reached in ((first[-1], 0), (second[0], 0), (second[1], 1), (len(whole.labels), 1)):
        task = make_task("causal_lm", TOKENIZER, length)
        found = listen(task, [chat(text, *earlier, max_length=length)], {"r": answer(text)}, turns_of(rows))
        assert (found.rows, found.beyond, found.compared, found.soft) == (1, 1 - reached, reached, reached)
        for said in found.said:
            assert (said is not None) == bool(reached)
            assert said is None or (not any(said[: len(first)]) and any(said[len(first) :]))


@pytest.mark.parametrize("named_by_id", [False, True])
@pytest.mark.parametrize("shown", [True, False])
def test_an_answer_behind_thoughts_is_soft_from_its_own_first_token_on(
    shown: bool, named_by_id: bool
) -> None:
    """Its tokens begin with thoughts, which its text has or (behind a reasoning parser) has not; the row never has them."""
    text, thoughts = "the old river", "<think>the old river?</think>\n\n"
    told = (*answer(thoughts).tokens, *answer(text, end=END).tokens)
    if named_by_id:
        told = tuple((f"token_id:{n}", {f"token_id:{n}": math.log(0.6)}) for n in ids(thoughts) + ids(text))
    said = Answer("answered", thoughts * shown + text, tokens=told)
    turns = {"r": 1}
    found = listen(make_task("causal_lm", TOKENIZER, 200), [chat(text)], {"r": said}, turns)
    assert (found.soft, found.silent) == (1, 0)
    (each,) = found.said
    assert each is not None and [set(one) for one in each[: len(ids(text))]] == [
        {token} for token in ids(text)
    ]


def test_the_same_text_in_another_tokenizers_tokens_is_not_used() -> None:
    other = tongues.other_tokenizer()
    names = Names(other)
    text = "the teacher keeps"
    cut = [names.bytes[token] or b"" for token in other(text, add_special_tokens=False)["input_ids"]]
    assert b"".join(cut) == text.encode() and cut != pieces(text)
    said = Answer("answered", text, tokens=tuple((named(piece), {named(piece): -0.1}) for piece in cut))
    assert choices(chat(text), said, NAMES, cut=False) is None


def test_pieces_of_characters_are_told_by_their_bytes() -> None:
    text = "the naïve €"
    assert any(spelled(named(piece)) != piece.decode(errors="replace").encode() for piece in pieces(text)), (
        "no token of the text is a piece of a character"
    )
    example = chat(text)
    found = shown(example, answer(text, {named(b"\xe2"): math.log(0.2)}))
    (first,) = (token for token, piece in enumerate(NAMES.bytes) if piece == b"\xe2")
    assert [one[token] for one, token in zip(found, ids(text), strict=False)] == [0.6] * len(ids(text))
    assert found[0][first] == 0.2, "an alternative, too"
    lossy = Answer("answered", text, tokens=tuple(
        (piece.decode(errors="replace"), {piece.decode(errors="replace"): -0.1}) for piece in pieces(text)
    ))  # fmt: skip
    assert choices(example, lossy, NAMES, cut=False) is None, "a server that only shows U+FFFD says nothing"


def test_names_hold_every_byte_in_both_formats() -> None:
    assert named(b"\xe2\x82") == "bytes:\\xe2\\x82" and spelled("bytes:\\xe2\\x82") == b"\xe2\x82"
    assert spelled("bytes: \\xf0\\x9f") == b" \xf0\x9f", "the space is a byte of the token"
    assert spelled("bytes:") == b"bytes:" and spelled("a\\xff") == b"a\\xff", "plain text stays"
    assert (
        numbered("token_id:17") == 17 and numbered("token_id:x") is None and numbered(" token_id:1") is None
    )


def test_tokens_named_by_their_ids_are_compared_by_them() -> None:
    text = "the €"
    (book,) = ids(" book")
    told = tuple(
        (f"token_id:{n}", {f"token_id:{n}": math.log(0.6), f"token_id:{book}": math.log(0.3)})
        for n in ids(text)
    )
    found = shown(chat(text), Answer("answered", text, tokens=told))
    assert found[0] == {ids(text)[0]: 0.6, book: 0.3}
    beyond = (("token_id:999999", {"token_id:999999": -0.1}), *told[1:])
    assert choices(chat(text), Answer("answered", text, tokens=beyond), NAMES, cut=False) is None


def test_a_chat_answer_after_a_plain_prompt_has_a_space_more() -> None:
    """`answered_row` puts it there; alternatives begin with it, too."""
    made = encode_completion(
        {"id": "r", "where": "r", "prompt": "Why?", "completion": " the old river"}, TOKENIZER, 99
    )
    assert isinstance(made, Example)
    told = tuple((name, {name: math.log(0.6), "a": math.log(0.3)}) for name in ("the", " old", " river"))
    found = shown(made, Answer("answered", "the old river", tokens=told))
    assert found[0] == {ids(" the")[0]: 0.6, ids(" a")[0]: 0.3}
    assert found[1] == {ids(" old")[0]: 0.6, ids("a")[0]: 0.3}
    without = (told[0], ("old", {"old": math.log(0.6)}), told[2])
    unlike = Answer("answered", "theold river", tokens=without)
    assert choices(made, unlike, NAMES, cut=False) is None, "only the first one may"


def test_two_tokens_of_the_same_bytes_are_no_certain_token() -> None:
    other: PreTrainedTokenizerFast = tongues.other_tokenizer()
    names = Names(other)
    letter, byte = other.convert_tokens_to_ids(["a", "<0x61>"])
    assert names.bytes[letter] == names.bytes[byte] == b"a"
    assert names.find("a") is None
    assert names.find(f"token_id:{letter}") == letter


def test_more_mass_than_one_is_rounding_and_the_most_probable_are_kept() -> None:
    example = chat("the old river")
    said = answer(
        "the old river", {" book": math.log(0.4000002), " film": math.log(1e-4), " night": math.log(2e-4)}
    )
    targets = told_targets(example, choices(example, said, NAMES, False), 2)
    assert targets.log_p[0].double().exp().sum() <= 1.0 + 1e-6
    assert targets.ids[0].tolist() == [ids("the")[0], ids(" book")[0]]


def test_targets_come_back_from_disk_within_the_codecs_bound_and_spare_places_stay_spare(
    tmp_path: Path,
) -> None:
    example = chat("the old river")
    said = answer("the old river", {" book": math.log(0.3), " film": math.log(0.003)})
    targets = told_targets(example, choices(example, said, NAMES, False), 5)
    meta = {"top_k": 5, "samples": None, "outcomes": len(TOKENIZER), "temperature": 1.0}
    cache = SoftTargetCache(tmp_path / "cache", meta)
    cache.add([Entry(example, encoded(targets, [example.counted], meta)[0])])
    back = cache.get(example.key)
    assert isinstance(back, TopK)
    for position in range(example.counted):
        told, kept = known(targets, position), known(back, position)
        mass = abs(math.log(sum(map(math.exp, told.values()))))
        assert told.keys() == kept.keys()
        assert all(abs(told[n] - kept[n]) <= STEP + 2**-11 * mass + 1e-6 for n in told)
        assert len(set(back.ids[position].tolist())) == 5, "a spare place has an id of its own"


def known(targets: TopK, position: int) -> dict[int, float]:
    pairs = zip(targets.ids[position].tolist(), targets.log_p[position].tolist(), strict=True)
    return {token: log_p for token, log_p in pairs if log_p > -math.inf}

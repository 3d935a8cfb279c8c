"""Reasons before an answer: one way to join them, their tokens found again, and a weight of their own in the loss."""

import copy
from dataclasses import replace

import pytest
import torch
from tokenizers import processors
from transformers import AutoModelForCausalLM

import tiny
from stillhouse import Distiller
from stillhouse import objectives as kd
from stillhouse.answers import answer_rows, reference_of, spoken
from stillhouse.data import written
from stillhouse.data.encode import encode_chat, encode_completion, read_examples, write_examples
from stillhouse.data.formats import Dropped, answer_alone, canonical
from stillhouse.data.load import Raw
from stillhouse.data.packing import packed
from stillhouse.data.pairs import encode_pair
from stillhouse.errors import DataError
from stillhouse.models.load import load_tokenizer
from stillhouse.recipe import Answers
from stillhouse.tasks import make_task
from stillhouse.teachers.local import LocalTeacher
from stillhouse.train.given import as_examples
from stillhouse.train.objective import Objective

WHY, SAYS = "the river is old because the night is quiet", "the teacher reads"
ASKED = {"prompt": "why is the house red?", "completion": f" {SAYS}", "rationale": f" {WHY} "}
TALK = {
    "messages": [
        {"role": "user", "content": "who?"},
        {"role": "assistant", "content": "the student"},
        {"role": "user", "content": "why?"},
        {"role": "assistant", "content": SAYS},
    ],
    "rationale": WHY,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny.save_language_model(tmp_path_factory.mktemp("models") / "student", layers=1, seed=1)


def read(fields, format="prompt_completion", **columns):
    row = canonical(Raw("x:1", fields), format, columns)
    assert not isinstance(row, Dropped)
    return row


def test_a_files_rationale_and_a_written_one_make_the_same_row():
    file = read(ASKED)
    bare = read({name: value for name, value in ASKED.items() if name != "rationale"})
    asked = next(written.rationales([bare], lambda _: "{question} {answer}"))
    made = asked.row(WHY)
    assert file["completion"] == made["completion"] == f"\n{WHY}\n\nAnswer: {SAYS}"
    assert file["rationale"] == made["rationale"] == WHY and file["id"] == made["id"] != bare["id"]
    assert list(written.rationales([file], lambda _: "{question} {answer}")) == []  # it has its reasons
    assert read({**ASKED, "completion": file["completion"]}) == file  # joined already: joined once


def test_another_answer_does_not_keep_the_reasons_of_the_old_one():
    assert "rationale" not in written.answered(read(ASKED), "no")
    assert "rationale" in written.reworded(read(ASKED), "and why is it?", "x:2")


def test_a_mapped_column_is_read_a_blank_one_is_nothing_and_plain_text_has_no_reasons():
    mapped = {"prompt": "a", "completion": "b", "because": "c"}
    assert read(mapped, rationale="because")["completion"] == "\nc\n\nAnswer: b"
    assert "rationale" not in read({**ASKED, "rationale": "  "})
    assert read({"text": "a text", "rationale": "stays out"}, "text")["text"] == "a text"
    with pytest.raises(DataError, match=r"columns.rationale: only rows with a prompt or messages"):
        read({"text": "a text", "why": "b"}, "text", rationale="why")
    with pytest.raises(DataError, match="rationale must be text, not int"):
        read({**ASKED, "rationale": 3})


@pytest.mark.parametrize(
    ("fields", "format", "encode"),
    [(ASKED, "prompt_completion", encode_completion), (TALK, "messages", encode_chat)],
)
def test_the_reasons_tokens_are_those_of_the_reasons_alone(folder, tmp_path, fields, format, encode):
    tokenizer = load_tokenizer(folder)
    example = encode(read(fields, format), tokenizer, 256)
    given = tokenizer.decode([example.labels[place] for place in example.reasons])
    rest = [
        token
        for place, token in enumerate(example.labels)
        if token >= 0 and place not in set(example.reasons)
    ]
    assert given.strip() == WHY
    assert "Answer:" in tokenizer.decode(rest) and SAYS in tokenizer.decode(rest)
    assert WHY not in tokenizer.decode(rest)
    write_examples(tmp_path / "kept.parquet", [example, replace(example, reasons=[])])
    assert read_examples(tmp_path / "kept.parquet") == [example, replace(example, reasons=[])]


def test_a_row_whose_answer_is_cut_off_is_dropped_although_its_reasons_fit(folder):
    tokenizer = load_tokenizer(folder)
    example = encode_completion(read(ASKED), tokenizer, 256)
    cut = encode_completion(read(ASKED), tokenizer, example.reasons[-1] + 1)
    assert cut == "no answer within max_length"


def test_an_answer_is_measured_without_its_reasons():
    row = dict(read(ASKED))
    assert reference_of(row) == SAYS
    said = [{"row": row["id"], "reference": SAYS, "answer": f"other reasons\n\nAnswer: {SAYS}"}]
    assert answer_rows(said, [row], Answers())["exact"].tolist() == [1.0]
    assert answer_alone("plain") == "plain"


def test_an_answer_is_found_too_where_its_tokenizer_knows_no_line_breaks_and_only_there(folder):
    flat = type(
        "Flat",
        (),
        {
            "__call__": lambda _, text: {"input_ids": text.split()},
            "decode": lambda _, tokens, **__: " ".join(tokens),
        },
    )()
    for text, alone in (
        (f"{WHY} Answer: {SAYS}", SAYS),
        (f"{WHY} Answer:", ""),
        (f"{WHY} Answer: Final Answer: 42", "Final Answer: 42"),
        ("an Answer:less text", "an Answer:less text"),
    ):
        assert answer_alone(spoken(text.split(), flat)) == " ".join(alone.split())
    tokenizer = load_tokenizer(folder)
    said = tokenizer(f"{WHY} Answer: {SAYS}")["input_ids"]
    assert answer_alone(spoken(said, tokenizer)) == tokenizer.decode(said, skip_special_tokens=True)


def rows():
    return [{**row, "rationale": WHY[:5] if n else WHY * 3} for n, row in enumerate(tiny.completions(4))]


def gradient(folder, place, rows, **changes):
    student = AutoModelForCausalLM.from_pretrained(folder).eval()
    made = Distiller(
        model=student,
        teacher=AutoModelForCausalLM.from_pretrained(folder.parent / "teacher"),
        objective=[kd.hard(0.4, label_smoothing=0.1), kd.forward_kl(0.3), kd.reverse_kl(0.3), kd.hidden(0.1)],
        args=tiny.arguments(place),
        train_dataset=rows,
        processing_class=load_tokenizer(folder),
        **changes,
    )
    batch = made.task.collate(made.train_dataset)
    total = int(made.task.counted(batch).sum())
    loss = made.compute_loss(student, batch, num_items_in_batch=torch.tensor(total))
    loss.backward()
    found = torch.cat([parameter.grad.flatten().double() for parameter in student.parameters()])
    return found, float(loss.detach()), total


def test_the_weight_multiplies_what_the_reasons_ask_and_the_count_stays(folder, tmp_path):
    tiny.save_language_model(folder.parent / "teacher", layers=2, width=32)
    one, heavy, none = (gradient(folder, tmp_path, rows(), rationale_weight=w) for w in (1.0, 2.5, 0.0))
    assert one[2] == heavy[2] == none[2]
    torch.testing.assert_close(heavy[0], none[0] + 2.5 * (one[0] - none[0]), rtol=1e-4, atol=1e-6)
    assert heavy[1] == pytest.approx(none[1] + 2.5 * (one[1] - none[1]), rel=1e-5)
    moved = gradient(folder, tmp_path, rows(), rationale_weight=kd.schedule(2.5, 0.0))  # at the first step
    assert torch.equal(moved[0], heavy[0]) and moved[1] == heavy[1]
    assert none[0].norm() > 1e-3 and (one[0] - none[0]).norm() > 1e-3
    task = make_task("causal_lm", load_tokenizer(folder))
    plain = [replace(example, reasons=[]) for example in as_examples(rows(), task)]
    torch.testing.assert_close(gradient(folder, tmp_path, plain, rationale_weight=2.5)[0], one[0])


def test_reasons_are_found_in_rows_that_share_a_sequence(folder):
    task = make_task("causal_lm", load_tokenizer(folder))
    examples = as_examples(rows(), task)
    sequences, order = packed(examples)
    apart = [example.input_ids[place] for example in order for place in example.reasons]
    together = [sequence.input_ids[place] for sequence in sequences for place in sequence.reasons]
    assert len(sequences) < len(examples) and together == apart


# ── targets of encoder–decoders ─────────────────────────────────────────────────────────────────────────────────────


def around():
    """Byte-level, with a token before each text and one behind, as BART's."""
    tokenizer = tiny.language_tokenizer()
    tokenizer._tokenizer.post_processor = processors.TemplateProcessing(
        single="<|im_start|> $A <|im_end|>", special_tokens=[("<|im_start|>", 0), ("<|im_end|>", 1)]
    )
    return tokenizer


@pytest.mark.parametrize("tokenizer", [tiny.translator_tokenizer, around], ids=["t5", "bart"])
def test_a_targets_reasons_are_its_tokens_up_to_the_mark_but_for_what_begins_every_target(tokenizer):
    own, row = tokenizer(), read(ASKED)
    example = encode_pair(row, own, 256)
    first = example.starts[1] + (tokenizer is around)
    assert example.reasons == list(range(first, first + len(example.reasons)))
    given, rest = ([], [])
    for place in range(first, len(example.labels)):
        (given if place in example.reasons else rest).append(example.labels[place])
    bare = own(text_target=f"\n{WHY}", add_special_tokens=False)["input_ids"]
    after = own(text_target=f"\n\nAnswer: {SAYS}", add_special_tokens=False)["input_ids"]
    assert (given, rest) == (bare, [*after, own.eos_token_id])
    assert encode_pair({**row, "rationale": ""}, own, 256).reasons == []
    until = len(given) + first - example.starts[1]
    assert encode_pair(row, own, until) == "no answer within max_length"
    assert encode_pair(row, own, until + 1).counted == until + 1


def test_without_a_mark_a_word_that_begins_as_the_reasons_end_is_none_of_them():
    row = {"id": "r", "where": "", "prompt": "a", "completion": "the old river", "rationale": "the old riv"}
    example = encode_pair(row, tiny.translator_tokenizer(), 32)
    assert len(example.reasons) == 2


@pytest.mark.parametrize("family", ["t5", "bart"])
def test_a_targets_reasons_weigh_what_the_recipe_says_as_a_loop_over_its_tokens(family):
    weight, words = 2.5, 36
    task = make_task("seq2seq", tiny.translator_tokenizer())
    said = [{**row, "rationale": WHY[: 9 * n]} for n, row in enumerate(tiny.translations(4))]
    examples = as_examples(said, task)
    student, teacher = tiny.translator(family, layers=1), tiny.translator(family)
    one, other = (copy.deepcopy(model).double() for model in (student, teacher))
    expected, count, heavy = 0.0, 0, 0
    for example in examples:
        batch = task.collate([example])
        logits = one(**task.inputs(one, batch)).logits[0, :, :words].log_softmax(-1)
        with torch.no_grad():
            whole = other(**task.inputs(other, batch)).logits[0, :, :words].log_softmax(-1)
        for at, label in enumerate(batch["labels"][0].tolist()):
            nats = -0.4 * logits[at, label] + 0.6 * (whole[at].exp() * (whole[at] - logits[at])).sum()
            is_reason = example.starts[1] + at in example.reasons
            expected, count, heavy = (
                expected + nats * (weight if is_reason else 1.0),
                count + 1,
                heavy + is_reason,
            )
    assert 0 < heavy < count and not examples[0].reasons
    (expected / count).backward()
    batch = task.collate(examples)
    objective = Objective([kd.hard(0.4), kd.forward_kl(0.6)], weight)
    scores = task.scores(student, batch)
    loss, _ = objective(scores, LocalTeacher(teacher, task).signal(batch), len(scores.labels))
    loss.backward()
    assert float(loss.detach()) == pytest.approx(float(expected.detach()) / count, rel=1e-5)
    for mine, theirs in zip(student.parameters(), one.parameters(), strict=True):
        if theirs.grad is not None:
            torch.testing.assert_close(mine.grad, theirs.grad.float(), rtol=1e-3, atol=1e-6)

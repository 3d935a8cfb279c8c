"""Encoder–decoders: what is read, what is counted, and that the loss is the model's own."""

import copy

import pytest
import torch
from torch.nn import functional as F
from transformers import (
    M2M100Config,
    M2M100ForConditionalGeneration,
    MBartConfig,
    MBartForConditionalGeneration,
    PLBartConfig,
    PLBartForConditionalGeneration,
    ProphetNetConfig,
    ProphetNetForConditionalGeneration,
)

import tiny
from stillhouse import objectives as kd
from stillhouse.data.encode import IGNORED
from stillhouse.data.pairs import encode_pair
from stillhouse.errors import RecipeError
from stillhouse.models.heads import hidden_at_head
from stillhouse.models.taps import layers_of
from stillhouse.progress import Silent
from stillhouse.tasks import make_task
from stillhouse.tasks.writing import greedy
from stillhouse.teachers.cache import CachedTeacher
from stillhouse.teachers.labelling import label_examples
from stillhouse.teachers.local import LocalTeacher
from stillhouse.train.distiller import Distiller
from stillhouse.train.given import as_examples
from stillhouse.train.objective import Objective

FAMILIES = ["t5", "t5 untied", "bart", "marian"]
WORDS = 36
"""What the tokenizer can say; the heads have more rows."""
SMALL = {
    "vocab_size": 48, "d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "pad_token_id": 0, "eos_token_id": 1,
    "bos_token_id": None, "decoder_start_token_id": 1, "forced_eos_token_id": None,
}  # fmt: skip


@pytest.fixture(scope="module")
def task():
    return make_task("seq2seq", tiny.translator_tokenizer(), 32)


@pytest.fixture(scope="module")
def examples(task):
    return as_examples(tiny.translations(7), task)


def naive(model, batch, words=WORDS):
    """The model's own logits in float64 at the counted positions, over the words that there are."""
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    logits = model(**inputs, labels=batch["labels"]).logits
    return logits[batch["labels"] != IGNORED][:, :words]


# ── the loss ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("family", FAMILIES)
def test_the_loss_and_its_gradients_are_those_of_the_models_own_logits(family, task, examples):
    model, other = tiny.translator(family), tiny.translator(family)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    batch = task.collate(examples)
    whole, teacher = copy.deepcopy(model).double(), copy.deepcopy(other).double()
    logits = naive(whole, batch)
    with torch.no_grad():
        said = naive(teacher, batch).div(2.0).log_softmax(-1)
    hard = F.cross_entropy(logits, batch["labels"][batch["labels"] != IGNORED])
    soft = 4.0 * (said.exp() * (said - logits.div(2.0).log_softmax(-1))).sum(-1).mean()
    (0.3 * hard + 0.7 * soft).backward()

    targets, scores = LocalTeacher(other, task).signal(batch), task.scores(model, batch)
    objective = Objective([kd.hard(0.3), kd.forward_kl(0.7, temperature=2.0)])
    loss, parts = objective(scores, targets, len(scores.labels))
    loss.backward()
    assert parts.tolist() == pytest.approx([hard.item(), soft.item()], rel=1e-5)
    for (name, mine), theirs in zip(model.named_parameters(), whole.parameters(), strict=True):
        assert (mine.grad is None) == (theirs.grad is None), name  # Marian's positions are not learned
        if theirs.grad is not None:
            torch.testing.assert_close(mine.grad, theirs.grad.float(), rtol=1e-3, atol=1e-6, msg=name)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_hard_loss_is_what_transformers_says_where_the_head_has_no_padding(family, examples):
    model = tiny.translator(family, pad_to=WORDS)
    task = make_task("seq2seq", tiny.translator_tokenizer(), 32)
    batch = task.collate(examples)
    own = model(**task.inputs(model, batch)).logits  # BART's own loss knows no task.collate
    scores = task.scores(model, batch)
    wanted = F.cross_entropy(own.flatten(0, 1).double(), batch["labels"].flatten(), ignore_index=IGNORED)
    loss, _ = Objective([kd.hard(1.0)])(scores, None, len(scores.labels))
    assert float(loss) == pytest.approx(float(wanted), rel=1e-6)


@pytest.mark.parametrize("family", ["bart", "marian"])
def test_the_bias_that_no_layer_makes_is_part_of_the_head(family, task, examples):
    model, batch = tiny.translator(family), task.collate(examples)
    bare = copy.deepcopy(model)
    bare.final_logits_bias.zero_()
    with torch.no_grad():
        one, other = (task.scores(each, batch) for each in (model, bare))
        apart = one.head.logits(one.hidden) - other.head.logits(other.hidden)
    torch.testing.assert_close(apart, model.final_logits_bias[:, :WORDS].expand_as(apart), rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_only_counted_positions_of_the_decoder_reach_the_head(family, task, examples):
    model, batch = tiny.translator(family), task.collate(examples)
    seen = []
    handle = model.get_output_embeddings().register_forward_hook(lambda _, __, out: seen.append(out.numel()))
    scores = task.scores(model, batch)
    handle.remove()
    counted = sum(example.counted for example in examples)
    assert counted == sum(len(row["completion"].split()) + 1 for row in tiny.translations(7))
    assert (scores.hidden.shape[0], len(scores.labels), seen) == (counted, counted, [0])
    assert scores.labels.tolist() == [label for one in examples for label in one.labels if label != IGNORED]


@pytest.mark.parametrize("family", FAMILIES)
def test_padding_changes_nothing(family, task, examples):
    """On the right of source and target for all; on the left of the source where positions are relative."""
    model, batch = tiny.translator(family), task.collate(examples)
    pads = [(0, 3), (2, 0)] if family.startswith("t5") else [(0, 3)]
    with torch.no_grad():
        plain = task.scores(model, batch)
        for source in pads:
            more = {
                **batch,
                "input_ids": F.pad(batch["input_ids"], source, value=0),
                "attention_mask": F.pad(batch["attention_mask"], source, value=0),
                "labels": F.pad(batch["labels"], (0, 4), value=IGNORED),
            }
            found = task.scores(model, more)
            assert found.labels.tolist() == plain.labels.tolist()
            torch.testing.assert_close(found.hidden, plain.hidden, rtol=1e-4, atol=1e-5)
            alone = torch.cat([task.scores(model, task.collate([one])).hidden for one in examples])
            torch.testing.assert_close(alone, plain.hidden, rtol=1e-4, atol=1e-5)


def test_the_decoder_begins_with_its_start_token_and_reads_the_target_one_place_later(task, examples):
    model, batch = tiny.translator("bart"), task.collate(examples[:2])
    read = task.inputs(model, batch)["decoder_input_ids"]
    assert read[:, 0].tolist() == [model.config.decoder_start_token_id] * 2
    labels = batch["labels"]
    assert torch.equal(read[:, 1:], labels[:, :-1].masked_fill(labels[:, :-1] == IGNORED, 0))


@pytest.mark.parametrize("family", FAMILIES)
def test_targets_are_shifted_as_transformers_shifts_them(family, task, examples):
    model, batch = tiny.translator(family), task.collate(examples)
    own = model.prepare_decoder_input_ids_from_labels(batch["labels"])
    assert torch.equal(task.inputs(model, batch)["decoder_input_ids"], own)


def test_a_target_that_was_cut_never_begins_with_what_is_to_be_foretold(task):
    model = MBartForConditionalGeneration(
        MBartConfig(**SMALL)
    )  # whose own function puts the last label in front
    batch = task.collate([pair("the old house", "the red book finds a quiet river", most=4)])
    read = task.inputs(model, batch)["decoder_input_ids"]
    assert read[0].tolist() == [1, *batch["labels"][0, :-1].tolist()]
    assert read[0, 0] != batch["labels"][0, -1]


@pytest.mark.parametrize(
    ("made", "config"),
    [
        (MBartForConditionalGeneration, MBartConfig),
        (PLBartForConditionalGeneration, PLBartConfig),
        (M2M100ForConditionalGeneration, M2M100Config),
    ],
)
def test_families_that_begin_with_a_language_are_refused_in_a_sentence(made, config, task):
    with pytest.raises(RecipeError, match=f"{made.__name__} begins a target with the token of its language"):
        task.verify(made(config(**SMALL)))


def test_a_family_that_foretells_several_tokens_at_once_is_refused_in_a_sentence(task):
    """ProphetNet: it ended in an IndexError of transformers' own."""
    config = ProphetNetConfig(
        vocab_size=48, hidden_size=16, num_encoder_layers=1, num_decoder_layers=1, num_encoder_attention_heads=2,
        num_decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16,
    )  # fmt: skip
    with pytest.raises(RecipeError, match="ProphetNetForConditionalGeneration foretells several tokens"):
        task.verify(ProphetNetForConditionalGeneration(config))


# ── rows ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def pair(source, target, most=32, **more):
    row = {"id": "r", "where": "row 1", "prompt": source, "completion": target, **more}
    return encode_pair(row, tiny.translator_tokenizer(), most)


def test_the_end_token_is_learned_and_the_source_is_not():
    made = pair("the old house", "house old")
    assert made.asked == made.input_ids[:4]
    assert made.labels == [IGNORED] * 4 + made.input_ids[4:]
    assert (made.labels[-1], made.counted, made.starts, made.bytes) == (1, 3, [0, 4], len("house old"))


def test_a_target_that_was_cut_does_not_end_and_a_source_that_was_cut_does():
    made = pair("the old house keeps a book", "a small red river", most=3)
    assert made.input_ids[2] == 1
    assert made.labels[-3:] == pair("a", "a small red").labels[-4:-1]
    assert made.bytes == len("a small red")
    assert pair("a", "a small", unended=True).labels[-1] != 1
    assert pair("a", "a small", rationale="red") == "answer without its reasons"


def test_a_target_has_one_end_even_where_the_tokenizer_has_another_than_its_end_token():
    tokenizer = tiny.encoder_tokenizer()  # [CLS] … [SEP], as BigBird's
    tokenizer.eos_token = "[MASK]"
    for more, ends in (({}, 1), ({"unended": True}, 0)):
        made = encode_pair({"id": "r", "where": "", "prompt": "a", "completion": "the", **more}, tokenizer, 9)
        target = made.labels[made.starts[1] :]
        assert target.count(tokenizer.sep_token_id) == ends
        assert tokenizer.mask_token_id not in target


def test_rows_of_another_source_have_another_key_and_those_of_another_border_too(task):
    one, other = pair("the old", "house"), pair("the new", "house")
    assert one.key != other.key
    assert pair("a", "a book").input_ids != pair("a a", "book").input_ids
    assert pair("a", "a book").key != pair("a a", "book").key


def test_rows_without_a_source_are_dropped_with_a_reason(task):
    rows = [
        {"id": "t", "where": "row 1", "text": "a book"},
        {"id": "p", "where": "row 2", **tiny.translations(1)[0]},
    ]
    examples, dropped = task.encode(rows)
    assert [one.row for one in examples] == ["p"]
    assert dropped == [{"where": "row 1", "reason": "no prompt and completion"}]


# ── what is written ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_written_is_the_likeliest_token_after_the_likeliest_and_never_padding(family, task, examples):
    model = tiny.translator(family)
    written = greedy(model, task, [one.asked for one in examples], 6)
    for one, tokens in zip(examples, written, strict=True):
        ids = torch.tensor([one.asked])
        said = [model.config.decoder_start_token_id]
        for token in tokens:
            with torch.no_grad():
                logits = model(input_ids=ids, decoder_input_ids=torch.tensor([said])).logits[0, -1, :WORDS]
            logits[0] = -torch.inf  # padding
            assert token == int(logits.argmax())
            said.append(token)
        assert tokens[-1] == 1 or len(tokens) == 6
    assert model.generation_config is not None


def test_beams_and_penalties_of_the_models_own_settings_are_left_out(task, examples):
    model = tiny.translator("t5")
    plain = greedy(model, task, [one.asked for one in examples], 6)
    model.generation_config.num_beams, model.generation_config.no_repeat_ngram_size = 4, 1
    assert greedy(model, task, [one.asked for one in examples], 6) == plain
    assert model.generation_config.num_beams == 4


# ── learning ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("form", [{"top_k": "all", "samples": None}, {"top_k": 5, "samples": None}, {"top_k": None, "samples": 30}])  # fmt: skip
def test_kept_targets_are_found_by_row_and_are_what_the_teacher_said(form, tmp_path, task, examples):
    folder = tiny.save_translator(tmp_path / "teacher", "marian")
    meta = {"teacher": "t", "temperature": 1.0, "seed": 0, "outcomes": WORDS, "dtype": "float32", **form}
    cache = label_examples(tmp_path / "kept", meta, folder, task, examples, 3, Silent())
    some = [examples[5], examples[0]]
    batch = task.collate(some)
    kept = CachedTeacher(cache).signal(batch)
    model = task.load(folder)
    with torch.no_grad():
        said = naive(model.double(), batch).log_softmax(-1)
    student = task.scores(tiny.translator("t5"), batch)
    loss, _ = Objective([kd.forward_kl(1.0)])(student, kept, len(student.labels))
    own = student.head.logits(student.hidden).double().log_softmax(-1)
    whole = float((said.exp() * (said - own)).sum(-1).mean())
    if form["top_k"] == "all":
        assert float(loss) == pytest.approx(whole, abs=0.02)
    elif form["top_k"]:
        assert 0.0 < float(loss) <= whole + 0.02, "fewer outcomes tell the two apart less"
    else:
        assert float(loss) == pytest.approx(whole, rel=0.3)


def test_a_distiller_knows_an_encoder_decoder_by_its_class_and_lowers_the_loss(tmp_path):
    student, teacher = tiny.translator("t5", layers=1), tiny.translator("t5")
    distiller = Distiller(
        model=student,
        teacher=teacher,
        objective=[kd.hard(0.2), kd.forward_kl(0.8)],
        args=tiny.arguments(tmp_path, max_steps=12),
        train_dataset=tiny.translations(16),
        processing_class=tiny.translator_tokenizer(),
    )
    assert distiller.task.name == "seq2seq"
    distiller.train()
    losses = [row["loss"] for row in distiller.state.log_history if "loss" in row]
    assert sum(losses[-3:]) < 0.8 * sum(losses[:3])


def test_a_model_without_a_decoder_is_refused(task):
    model = tiny.translator("t5")
    model.config.decoder_start_token_id = None
    with pytest.raises(RecipeError, match="decoder_start_token_id"):
        task.verify(model)


def test_no_logits_are_made_while_the_hidden_states_are_read(task, examples):
    model, batch = tiny.translator("bart"), task.collate(examples)
    with hidden_at_head(model), torch.no_grad():
        assert model(**task.inputs(model, batch)).logits.shape[1] == 0


def test_an_encoder_is_never_taken_for_all_layers_even_where_the_decoder_has_fewer():
    model = tiny.translator("t5")
    model.decoder.block = model.decoder.block[:2]
    with pytest.raises(RecipeError, match="two lists of layers are not told apart"):
        layers_of(model)

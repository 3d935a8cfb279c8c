"""Language models: what is read, what is counted, and that the loss sees the model's own logits."""

import pytest
import torch
from transformers import (
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GraniteConfig,
    GraniteForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
)

import tiny
from stillhouse.data.encode import (
    IGNORED,
    Example,
    encode_chat,
    encode_completion,
    encode_text,
    read_examples,
    write_examples,
)
from stillhouse.errors import RecipeError
from stillhouse.models.heads import verify_head
from stillhouse.tasks import make_task

TOKENIZER = tiny.language_tokenizer()
TASK = make_task("causal_lm", TOKENIZER, 64)
END = TOKENIZER.eos_token_id


def rows(*texts: str) -> list[dict]:
    return [{"id": str(n), "where": f"row {n + 1}", "text": text} for n, text in enumerate(texts)]


def chat(*turns: tuple[str, str]) -> dict:
    return {
        "id": "0",
        "where": "row 1",
        "messages": [{"role": role, "content": text} for role, text in turns],
    }


SMALL = {
    "vocab_size": 448,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "initializer_range": 0.2,
    "pad_token_id": END,
    "eos_token_id": END,
    "bos_token_id": None,
}
FAMILIES = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SMALL)),
    "gemma2 with soft cap": lambda: Gemma2ForCausalLM(
        Gemma2Config(**SMALL, head_dim=8, final_logit_softcapping=2.0, attn_implementation="eager")
    ),
    "cohere with logit scale": lambda: CohereForCausalLM(CohereConfig(**SMALL, logit_scale=0.0625)),
    "granite with logits scaling": lambda: GraniteForCausalLM(GraniteConfig(**SMALL, logits_scaling=8.0)),
    "gpt2": lambda: GPT2LMHeadModel(
        GPT2Config(vocab_size=448, n_embd=32, n_layer=2, n_head=4, n_positions=128, initializer_range=0.2)
    ),
}


def family(name: str):
    torch.manual_seed(0)
    return FAMILIES[name]().eval()


@pytest.fixture(scope="module")
def llama():
    return family("llama")


# ── packing ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def packed_and_apart() -> tuple[Example, list[Example]]:
    texts = tiny.sentences(3, seed=5)
    (together,) = encode_text(rows(*texts), TOKENIZER, 200)
    apart = [next(encode_text(rows(text), TOKENIZER, 200)) for text in texts]
    assert together.starts == [0, len(apart[0].input_ids), len(apart[0].input_ids) + len(apart[1].input_ids)]
    return together, apart


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_packed_documents_do_not_see_each_other(name):
    model, (together, apart) = family(name), packed_and_apart()
    scores = TASK.scores(model, TASK.collate([together]))
    alone = [TASK.scores(model, TASK.collate([example])) for example in apart]
    torch.testing.assert_close(scores.hidden, torch.cat([s.hidden for s in alone]), rtol=1e-5, atol=1e-5)
    assert torch.equal(scores.labels, torch.cat([s.labels for s in alone]))


def test_packed_documents_beside_a_short_padded_row_do_not_see_each_other(llama):
    together, apart = packed_and_apart()
    both = TASK.scores(llama, TASK.collate([apart[1], together]))
    mine = both.hidden[both.rows == 1]
    torch.testing.assert_close(
        mine, TASK.scores(llama, TASK.collate([together])).hidden, rtol=1e-5, atol=1e-5
    )
    torch.testing.assert_close(
        both.hidden[both.rows == 0], TASK.scores(llama, TASK.collate([apart[1]])).hidden, rtol=1e-5, atol=1e-5
    )


def test_a_mask_of_ones_would_let_packed_documents_see_each_other_so_none_is_passed(llama):
    together, _ = packed_and_apart()
    batch = TASK.collate([together])
    assert "attention_mask" not in batch
    with torch.no_grad():
        inputs = {name: batch[name] for name in ("input_ids", "position_ids")}
        right = llama(**inputs, use_cache=False).logits
        wrong = llama(**inputs, attention_mask=torch.ones_like(batch["input_ids"]), use_cache=False).logits
    first = together.starts[1]
    torch.testing.assert_close(right[:, :first], wrong[:, :first], rtol=1e-4, atol=1e-4)
    assert (right[:, first:] - wrong[:, first:]).abs().max() > 0.05


def test_padding_on_the_right_changes_nothing(llama):
    short, long = (next(encode_text(rows(t), TOKENIZER, 200)) for t in ("the river.", tiny.sentences(1)[0]))
    both = TASK.scores(llama, TASK.collate([short, long]))
    alone = TASK.scores(llama, TASK.collate([short]))
    torch.testing.assert_close(both.hidden[both.rows == 0], alone.hidden, rtol=1e-5, atol=1e-5)


# ── the head ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", list(FAMILIES))
def test_scores_are_the_models_own_logits_at_the_counted_positions_with_scale_and_soft_cap(name):
    model = family(name)
    row = chat(
        ("user", "the old house"), ("assistant", "finds a river"), ("user", "why"), ("assistant", "good")
    )
    examples = [encode_chat(row, TOKENIZER, 64), next(encode_text(rows(tiny.sentences(1)[0]), TOKENIZER, 64))]
    batch = TASK.collate(examples)
    with torch.no_grad():
        scores = TASK.scores(model, batch)
        whole = model(input_ids=batch["input_ids"], use_cache=False).logits
    own = [
        whole[number, position, : TASK.outcomes]
        for number, example in enumerate(examples)
        for position in range(len(example.labels) - 1)
        if example.labels[position + 1] != IGNORED
    ]
    found = scores.head.logits(scores.hidden)
    assert found.shape[1] == len(TOKENIZER) < model.config.vocab_size
    torch.testing.assert_close(found, torch.stack(own), rtol=1e-5, atol=1e-5)
    verify_head(model, TASK.outcomes)


class Odd(LlamaForCausalLM):
    """A family that does something to its logits that nobody here has heard of."""

    def forward(self, *args, **kwargs):
        output = super().forward(*args, **kwargs)
        output.logits = output.logits * 1.3
        return output


def test_a_model_that_treats_its_logits_in_an_unknown_way_is_refused(tmp_path):
    torch.manual_seed(0)
    odd = Odd(LlamaConfig(**SMALL))
    with pytest.raises(RecipeError, match="treats its logits in a way that is not known"):
        verify_head(odd, TASK.outcomes)
    with pytest.raises(RecipeError, match="treats its logits"):
        TASK.verify(odd)


def test_verifying_leaves_the_model_in_the_mode_it_was_in(llama):
    model = family("llama").train()
    verify_head(model, TASK.outcomes)
    assert model.training
    verify_head(llama, TASK.outcomes)
    assert not llama.training


def test_a_model_whose_head_is_not_what_its_config_says_is_refused_when_it_is_loaded(tmp_path, monkeypatch):
    folder = tiny.save_language_model(tmp_path / "model", layers=1)
    assert TASK.load(folder) is not None
    monkeypatch.setattr("stillhouse.models.load.transformers.AutoModelForCausalLM", Odd)
    with pytest.raises(RecipeError, match="treats its logits"):
        TASK.load(folder)


# ── what is counted ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_in_a_chat_of_two_turns_exactly_the_assistants_words_and_ends_of_turn_are_counted():
    row = chat(
        ("system", "be good"), ("user", "the old house"), ("assistant", "finds a river"), ("user", "why"),
        ("assistant", "because night"),
    )  # fmt: skip
    example = encode_chat(row, TOKENIZER, 200)
    counted = [token for token in example.labels if token != IGNORED]
    assert TOKENIZER.decode(counted) == "finds a river<|im_end|>because night<|im_end|>"
    assert all(
        label in (IGNORED, token) for label, token in zip(example.labels, example.input_ids, strict=True)
    )


def test_an_assistant_who_speaks_first_learns_its_words_and_not_the_templates_header():
    example = encode_chat(
        chat(("assistant", "good night"), ("user", "why"), ("assistant", "because")), TOKENIZER, 200
    )
    counted = [token for token in example.labels if token != IGNORED]
    assert TOKENIZER.decode(counted) == "good night<|im_end|>because<|im_end|>"


def test_the_position_that_predicts_the_first_word_is_counted_and_one_past_the_end_is_not(llama):
    example = encode_chat(chat(("user", "the old house"), ("assistant", "finds a river")), TOKENIZER, 200)
    batch = TASK.collate([example])
    mask = TASK.counted(batch)[0]
    first = next(n for n, label in enumerate(example.labels) if label != IGNORED)
    last = max(n for n, label in enumerate(example.labels) if label != IGNORED)
    assert TOKENIZER.decode(example.input_ids[:first]).endswith("<|im_start|>assistant\n")
    assert mask.nonzero().flatten().tolist() == list(range(first - 1, last))
    assert example.input_ids[last] == END
    assert last < len(example.input_ids) - 1  # the template's newline after the end is read and not learned
    scores = TASK.scores(llama, batch)
    assert scores.labels.tolist() == example.input_ids[first : last + 1]
    assert len(scores.hidden) == example.counted == int(mask.sum())


def test_the_end_token_is_learned_although_it_is_also_the_padding():
    assert TOKENIZER.pad_token_id == TOKENIZER.eos_token_id
    (text,) = encode_text(rows("the river"), TOKENIZER, 64)
    completion = encode_completion(
        {"id": "0", "where": "row 1", "prompt": "the old", "completion": " house"}, TOKENIZER, 64
    )
    long = next(encode_text(rows(tiny.sentences(1)[0]), TOKENIZER, 64))
    batch = TASK.collate([text, completion, long])
    for number, example in enumerate((text, completion)):
        length = len(example.input_ids)
        assert example.input_ids[-1] == example.labels[-1] == END
        assert batch["labels"][number, length - 1] == END
        assert (batch["labels"][number, length:] == IGNORED).all()
        assert TASK.counted(batch)[number].sum() == example.counted


def test_the_completion_is_counted_and_the_prompt_is_not():
    row = {"id": "0", "where": "row 1", "prompt": "the old", "completion": " house reads"}
    example = encode_completion(row, TOKENIZER, 64)
    assert TOKENIZER.decode([t for t in example.labels if t != IGNORED]) == " house reads<|im_end|>"


def test_a_row_whose_answer_is_cut_off_is_dropped_with_a_reason():
    long = " ".join(tiny.sentences(8))
    cut = [
        {"id": "0", "where": "row 1", "messages": chat(("user", long), ("assistant", "good"))["messages"]},
        {"id": "1", "where": "row 2", "prompt": long, "completion": " good"},
        {"id": "2", "where": "row 3", "prompt": "a", "completion": " good"},
    ]
    examples, dropped = TASK.encode(cut)
    assert [example.row for example in examples] == ["2"]
    assert dropped == [
        {"where": "row 1", "reason": "no answer within max_length"},
        {"where": "row 2", "reason": "no answer within max_length"},
    ]


def test_the_first_token_of_a_row_is_never_counted_for_nothing_predicts_it():
    example = encode_completion(
        {"id": "0", "where": "row 1", "prompt": "", "completion": "good night"}, TOKENIZER, 64
    )
    assert example.labels[0] == IGNORED
    assert example.bytes == len("good night") - len(TOKENIZER.decode(example.input_ids[:1]))
    assert example.counted == sum(label != IGNORED for label in example.labels)


def test_documents_with_nothing_to_learn_make_no_example():
    assert list(encode_text(rows("", ""), TOKENIZER, 64)) == []
    assert list(encode_text([], TOKENIZER, 64)) == []


# ── bytes ───────────────────────────────────────────────────────────────────────────────────────────────────────────

WIDE = "naïve 東京 river — 🦊 Ünïcödé — good"


def test_the_bytes_of_packed_text_are_those_of_the_text_but_for_each_first_token():
    texts = [WIDE, tiny.sentences(1)[0], WIDE * 9]
    whole = sum(len(text.encode()) for text in texts)
    for length in (7, 30, 1000):
        examples = list(encode_text(rows(*texts), TOKENIZER, length))
        ids = [TOKENIZER(text)["input_ids"] + [END] for text in texts]
        assert [t for e in examples for t in e.input_ids] == [t for document in ids for t in document]
        firsts = [piece_bytes(e.input_ids[start]) for e in examples for start in e.starts]
        found = sum(e.bytes for e in examples)
        # a cut may fall inside a character, which counts at its first piece: at most 3 more bytes for each cut
        assert whole - sum(firsts) - 3 * len(firsts) <= found <= whole
        if length == 1000:
            assert found == whole - sum(firsts)


def piece_bytes(token: int) -> int:
    """A byte-level piece has one character for each byte; special tokens stand for no text."""
    return 0 if token in TOKENIZER.all_special_ids else len(TOKENIZER.convert_ids_to_tokens(token))


@pytest.mark.parametrize("answer", [" finds a river", " " + WIDE, " 🦊"])
def test_the_bytes_of_an_answer_are_its_utf8_bytes_however_its_characters_are_cut_and_no_end_token(answer):
    row = {"id": "0", "where": "row 1", "prompt": "the old", "completion": answer}
    assert encode_completion(row, TOKENIZER, 200).bytes == len(answer.encode())
    spoken = encode_chat(chat(("user", WIDE), ("assistant", answer[1:])), TOKENIZER, 200)
    assert spoken.bytes == len(answer[1:].encode())


# ── keys ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_key_tells_other_borders_and_other_counted_positions_apart():
    ids = "good night " * 4
    (one,) = encode_text(rows(ids), TOKENIZER, 200)
    two = next(encode_text(rows(ids[:11], ids[11:]), TOKENIZER, 200))
    chatty = encode_completion(
        {"id": "0", "where": "", "prompt": "good", "completion": " night"}, TOKENIZER, 64
    )
    other = encode_completion(
        {"id": "0", "where": "", "prompt": "good night", "completion": ""}, TOKENIZER, 64
    )
    assert chatty.input_ids == other.input_ids
    assert chatty.key != other.key
    assert one.key != two.key
    same = next(encode_text([{"id": "elsewhere", "where": "", "text": ids}], TOKENIZER, 200))
    assert same.key == one.key
    assert one.starts != two.starts


def test_reading_back_gives_the_same_examples(tmp_path):
    examples, _ = TASK.encode([*rows(*tiny.sentences(6)), chat(("user", "why"), ("assistant", "good"))])
    counts = write_examples(tmp_path / "x.parquet", examples)
    assert read_examples(tmp_path / "x.parquet") == examples
    assert counts["counted"] == sum(example.counted for example in examples)


def test_a_token_that_is_read_twice_is_one_object_so_that_a_corpus_fits_into_memory(tmp_path):
    """Each token as a number of its own would take 40 bytes instead of 8, twice."""
    examples = [Example(str(at), "r", [30_000, 7, 30_000], [IGNORED, 7, 30_000], [0], 9) for at in range(3)]
    examples.append(Example("", "r", [], [1], [], 0, []))
    write_examples(tmp_path / "x.parquet", examples)
    read = read_examples(tmp_path / "x.parquet")
    assert read == examples
    assert len({id(token) for one in read[:3] for token in one.input_ids}) == 2
    assert len({id(one.labels[0]) for one in read[:3]}) == 1

"""Masked language models: the fused loss against each family's own logits, what reaches the head, and what is read when."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from torch import Tensor

import tiny
from closed_form import dense_term, hard_term
from stillhouse import Distiller
from stillhouse import objectives as kd
from stillhouse.data.encode import IGNORED, Example
from stillhouse.data.masking import unmasked
from stillhouse.errors import RecipeError, TeacherError
from stillhouse.losses import forward_kl, fused_loss, hard_cross_entropy
from stillhouse.tasks import make_task
from stillhouse.tasks.masked_lm import MaskedLM

TOKENIZER = tiny.encoder_tokenizer()
PADDED = len(TOKENIZER) + 20
TOTAL = 17
PLAIN: dict[str, Any] = {
    "vocab_size": PADDED, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 64, "initializer_range": 0.2, "pad_token_id": 0,
}  # fmt: skip
ENDS = {"bos_token_id": 2, "eos_token_id": 3, "cls_token_id": 2, "sep_token_id": 3}
FAMILIES: dict[str, Callable[[], Any]] = {
    "bert": lambda: hf.BertForMaskedLM(hf.BertConfig(**PLAIN)),
    "roberta": lambda: hf.RobertaForMaskedLM(hf.RobertaConfig(**PLAIN)),
    "distilbert": lambda: hf.DistilBertForMaskedLM(
        hf.DistilBertConfig(vocab_size=PADDED, dim=32, hidden_dim=48, n_layers=2, n_heads=4, initializer_range=0.2)
    ),
    "electra": lambda: hf.ElectraForMaskedLM(hf.ElectraConfig(**PLAIN, embedding_size=16)),
    "albert": lambda: hf.AlbertForMaskedLM(hf.AlbertConfig(**PLAIN, embedding_size=16)),
    "mpnet": lambda: hf.MPNetForMaskedLM(hf.MPNetConfig(**PLAIN)),
    "deberta": lambda: hf.DebertaForMaskedLM(hf.DebertaConfig(**PLAIN)),
    "modernbert": lambda: hf.ModernBertForMaskedLM(hf.ModernBertConfig(**PLAIN, **ENDS)),
}  # fmt: skip


def masked() -> MaskedLM:
    made = make_task("masked_lm", TOKENIZER, 48)
    assert isinstance(made, MaskedLM)
    return made


TASK = masked()


def examples(count: int = 6) -> list[Example]:
    texts = [" ".join(text.split()[: 4 + number]) for number, text in enumerate(tiny.sentences(count))]
    return TASK.encode([{"id": str(n), "where": f"row {n}", "text": text} for n, text in enumerate(texts)])[0]


def family(name: str) -> Any:
    torch.manual_seed(0)
    return FAMILIES[name]().eval()


def gradients(model: Any) -> dict[str, Tensor]:
    found = {name: p.grad.double().clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return found


@pytest.mark.parametrize("name", FAMILIES)
def test_the_fused_loss_is_that_of_the_models_own_logits_at_hidden_tokens_and_nowhere_else(name: str) -> None:
    model, some = family(name), examples()
    batch = TASK.collate(some)
    teacher = 2 * torch.randn(
        sum(e.counted for e in some), TASK.outcomes, generator=torch.Generator().manual_seed(1)
    )
    scores = TASK.scores(model, batch)
    terms = [(0.3, hard_term(scores.labels)), (0.7, dense_term(teacher, 2.0))]
    loss, _ = fused_loss(scores.hidden, scores.head, terms, TOTAL)
    loss.backward()
    found = gradients(model)

    at = batch["labels"] != IGNORED
    said = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[at]
    own = said[:, : TASK.outcomes].double()
    nats = 0.3 * hard_cross_entropy(own, batch["labels"][at])
    nats = nats + 0.7 * forward_kl(own, teacher.double(), temperature=2.0)
    (nats.sum() / TOTAL).backward()
    exact = gradients(model)
    assert float(loss.detach()) == pytest.approx(float(nats.detach().sum()) / TOTAL, rel=1e-5)
    assert found.keys() == exact.keys()
    assert any("bias" in parameter for parameter in found)
    for parameter, gradient in exact.items():
        assert (found[parameter] - gradient).norm() <= 1e-4 * gradient.norm() + 1e-7, parameter


def test_only_hidden_tokens_reach_the_product_with_the_vocabulary() -> None:
    model, some = family("bert"), examples()
    made: list[int] = []
    model.get_output_embeddings().register_forward_hook(lambda *args: made.append(args[2].numel()))
    scores = TASK.scores(model, TASK.collate(some))
    assert made == [0]
    assert len(scores.hidden) == len(scores.labels) == sum(example.counted for example in some)
    assert scores.labels.tolist() == [label for e in some for label in e.labels if label != IGNORED]
    assert scores.rows.tolist() == [n for n, e in enumerate(some) for _ in range(e.counted)]


def test_padding_changes_nothing_of_what_a_row_says() -> None:
    model, some = family("roberta"), examples()
    together = TASK.scores(model, TASK.collate(some)).hidden
    alone = torch.cat([TASK.scores(model, TASK.collate([example])).hidden for example in some])
    assert torch.allclose(together, alone, atol=1e-5)


def test_layers_are_compared_at_every_token_and_each_belongs_to_one_position_of_its_own_row() -> None:
    batch = TASK.collate(some := examples())
    layout = TASK.layout(batch)
    assert torch.equal(layout.tokens, batch["attention_mask"].bool())
    assert layout.rows.tolist() == [n for n, e in enumerate(some) for _ in range(e.counted)]
    rows = torch.arange(len(some)).unsqueeze(1).expand_as(layout.tokens)[layout.tokens]
    assert torch.equal(layout.rows[layout.at], rows)
    for number, example in enumerate(some):
        shares = torch.bincount(layout.at[rows == number], minlength=len(layout.rows))
        shares = shares[layout.rows == number]
        assert int(shares.sum()) == len(example.input_ids)
        assert int(shares.max() - shares.min()) <= 1
    assert torch.equal(layout.groups >= 0, layout.tokens)


def test_pseudo_perplexity_is_that_of_the_models_own_logits() -> None:
    model, some = family("bert"), examples()
    batch = TASK.collate(some)
    with torch.no_grad():
        scores = TASK.scores(model, batch)
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    rows = {k: v.numpy() for k, v in TASK.statistics(scores, scores, some).items()}
    at = batch["labels"] != IGNORED
    own = logits[at][:, : TASK.outcomes].double()
    nats = float(torch.nn.functional.cross_entropy(own, batch["labels"][at]))
    sums = {name: column.sum(0) for name, column in rows.items()}
    assert TASK.metrics["perplexity"].value(sums) == pytest.approx(np.exp(nats), rel=1e-5)
    assert TASK.metrics[TASK.headline].value(sums) == pytest.approx(nats / np.log(2.0), rel=1e-5)


def test_the_floor_counts_the_tokens_of_the_text_and_not_what_stands_in_their_place() -> None:
    some = examples()
    floor = TASK.floor(some, some[:1])
    special = set(TOKENIZER.all_special_ids)
    tokens = [token for example in some for token in unmasked(example) if token not in special]
    size = len(tokens) + TASK.outcomes
    wanted = [label for label in some[0].labels if label != IGNORED]
    assert floor["nll"][0] == pytest.approx(sum(np.log(size / (tokens.count(one) + 1)) for one in wanted))
    assert floor["tokens"].tolist() == [len(wanted)]


@pytest.mark.parametrize("name", ["mobilebert", "deberta-v2"])
def test_a_family_that_makes_its_logits_in_another_way_is_refused(name: str) -> None:
    model = {
        "mobilebert": lambda: hf.MobileBertForMaskedLM(hf.MobileBertConfig(**PLAIN, embedding_size=32)),
        "deberta-v2": lambda: hf.DebertaV2ForMaskedLM(hf.DebertaV2Config(**PLAIN, legacy=False)),
    }[name]()
    with pytest.raises(RecipeError, match="not known here"):
        TASK.verify(model)


def test_an_encoder_without_a_head_is_refused_unless_a_seed_says_which_one_it_gets(tmp_path: Path) -> None:
    folder = tiny.save_encoder(tmp_path / "bare", layers=1, head=False)
    with pytest.raises(TeacherError, match="its weights have no cls.predictions"):
        TASK.load(folder)
    one, other, again = (
        TASK.load(folder, head_seed=seed).cls.predictions.transform.dense.weight for seed in (1, 2, 1)
    )
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


# ── what is read in each epoch ──────────────────────────────────────────────────────────────────────────────────────


def read_in_training(folder: Path, **settings: Any) -> tuple[list[Tensor], list[Tensor]]:
    """(what the student read in each of 6 steps, three epochs of two; what the teacher read)."""
    student, teacher = family("bert"), family("bert")
    seen: tuple[list[Tensor], list[Tensor]] = [], []
    for model, mine in zip((student, teacher), seen, strict=True):
        model.register_forward_pre_hook(
            lambda _, __, inputs, mine=mine: mine.append(inputs["input_ids"].clone()), with_kwargs=True
        )
    Distiller(
        model=student,
        teacher=teacher,
        objective=[kd.forward_kl(1.0)],
        args=tiny.arguments(folder, max_steps=6, per_device_train_batch_size=3),
        train_dataset=examples(),
        processing_class=TOKENIZER,
        **settings,
    ).train()
    return seen[0][-6:], seen[1][-6:]  # before them the heads are tried out


def as_rows(batches: list[Tensor]) -> list[list[list[int]]]:
    """Epoch -> what each row was read as, without padding, in the order of the texts."""
    epochs = []
    for first in range(0, len(batches), 2):
        rows = [row for batch in batches[first : first + 2] for row in batch.tolist()]
        epochs.append(sorted((list(np.trim_zeros(row)) for row in rows), key=len))
    return epochs


def test_student_and_teacher_read_the_same_masked_text_which_is_another_in_each_epoch(tmp_path: Path) -> None:
    mine, theirs = read_in_training(tmp_path)
    assert all(torch.equal(one, other) for one, other in zip(mine, theirs, strict=True))
    for epoch, found in enumerate(as_rows(mine)):
        wanted = [TASK.drawn(example, 7, epoch).input_ids for example in examples()]
        assert found == sorted(wanted, key=len)
    first, second, third = as_rows(mine)
    assert first != second != third


def test_workers_that_outlive_an_epoch_are_refused_where_each_epoch_hides_other_tokens(
    tmp_path: Path,
) -> None:
    settings: dict[str, Any] = {"dataloader_num_workers": 1, "dataloader_persistent_workers": True}
    given = {"objective": [kd.forward_kl(1.0)], "train_dataset": examples(), "processing_class": TOKENIZER}
    args = tiny.arguments(tmp_path, max_steps=1, **settings)
    with pytest.raises(RecipeError, match="dataloader_persistent_workers: such workers would hide the first"):
        Distiller(model=family("bert"), teacher=family("bert"), args=args, **given)
    Distiller(model=family("bert"), teacher=family("bert"), args=args, redraw=False, **given)


def test_a_distiller_refuses_a_model_that_says_more_than_hidden_tokens(tmp_path: Path) -> None:
    config = family("bert").config
    with pytest.raises(RecipeError, match="BertForPreTraining says more .* AutoModelForMaskedLM"):
        Distiller(
            model=hf.BertForPreTraining(config), teacher=family("bert"), objective=[kd.forward_kl(1.0)],
            args=tiny.arguments(tmp_path), train_dataset=examples(), processing_class=TOKENIZER,
        )  # fmt: skip


def test_with_a_fixed_mask_every_epoch_reads_the_examples_as_they_are(tmp_path: Path) -> None:
    mine, theirs = read_in_training(tmp_path, redraw=False)
    assert all(torch.equal(one, other) for one, other in zip(mine, theirs, strict=True))
    assert as_rows(mine) == 3 * [sorted((example.input_ids for example in examples()), key=len)]

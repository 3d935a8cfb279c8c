"""Order: every row once, like lengths together, a function of seed and epoch."""

import numpy as np
from transformers import AutoModelForCausalLM

import tiny
from stillhouse import Distiller
from stillhouse import objectives as kd
from stillhouse.models.load import load_tokenizer
from stillhouse.seeds import draw_seed
from stillhouse.train.order import SeededOrder


def _lengths(rows: int = 1003) -> list[int]:
    return np.random.default_rng(0).integers(5, 65, rows).tolist()


def test_grouping_by_length_loses_and_repeats_no_row():
    order = SeededOrder(_lengths(), 16, seed=3)
    assert sorted(order) == list(range(1003))


def test_grouping_by_length_saves_most_of_the_padding():
    lengths = np.asarray(_lengths(1024))

    def padded(order: list[int]) -> int:
        return sum(int(lengths[order[at : at + 16]].max()) * 16 for at in range(0, 1024, 16))

    grouped, plain = list(SeededOrder(lengths.tolist(), 16, seed=3)), list(range(1024))
    assert padded(grouped) - lengths.sum() < 0.25 * (padded(plain) - lengths.sum())


def test_batches_do_not_come_in_order_of_length():
    """A curriculum from short to long would be a change of method, not of speed."""
    lengths = np.asarray(_lengths(1024))
    order = list(SeededOrder(lengths.tolist(), 16, seed=3))
    means = [lengths[order[at : at + 16]].mean() for at in range(0, 512, 16)]
    assert abs(np.corrcoef(means, range(len(means)))[0, 1]) < 0.5


def test_order_changes_with_the_epoch_and_the_seed_and_comes_again():
    order = SeededOrder(_lengths(), 16, seed=3)
    first = list(order)
    order.epoch = 1
    second = list(order)
    order.epoch = 0
    assert first == list(order)
    assert first != second
    assert first != list(SeededOrder(_lengths(), 16, seed=4))


def test_seeds_of_different_purposes_do_not_collide():
    assert (
        len(
            {
                draw_seed(0, "order", 1),
                draw_seed(0, "step", 1),
                draw_seed(1, "order", 1),
                draw_seed(0, "order", 11),
            }
        )
        == 4
    )


def test_packed_rows_come_in_an_order_that_heeds_no_length(tmp_path):
    from transformers import AutoModelForCausalLM

    import tiny
    from stillhouse import Distiller
    from stillhouse import objectives as kd
    from stillhouse.models.load import load_tokenizer

    folder = tiny.save_language_model(tmp_path / "model")
    made = Distiller(
        model=AutoModelForCausalLM.from_pretrained(folder),
        objective=[kd.hard()],
        args=tiny.arguments(tmp_path / "out"),
        train_dataset=tiny.completions(40),
        processing_class=load_tokenizer(folder),
    )
    assert set(made._order.lengths.tolist()) == {1}
    batch = made.data_collator([made.train_dataset[place] for place in range(8)])
    assert len(batch["input_ids"]) < 8 and len(batch["keys"]) == 8


def test_an_optimiser_step_has_the_same_rows_however_it_is_divided(tmp_path, monkeypatch):
    """Rows of like length were grouped by the micro-batch, so 8 × 1 and 2 × 4 learned from other rows in their first step."""
    tiny.save_language_model(tmp_path / "student", layers=1)
    monkeypatch.setattr("stillhouse.train.distiller.can_pack", lambda *_: False)  # like lengths come together
    orders = [
        list(
            Distiller(
                model=AutoModelForCausalLM.from_pretrained(tmp_path / "student"),
                objective=[kd.hard()],
                args=tiny.arguments(
                    tmp_path / "run", per_device_train_batch_size=rows, gradient_accumulation_steps=micro
                ),
                train_dataset=tiny.completions(40),
                processing_class=load_tokenizer(tmp_path / "student"),
            )._order
        )
        for rows, micro in ((8, 1), (2, 4), (1, 8))
    ]
    assert orders[0] == orders[1] == orders[2] != sorted(orders[0])

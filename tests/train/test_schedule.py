"""The learning rate: what `warmup_stable_decay` makes of every step."""

from pathlib import Path

import pytest
import torch
from transformers import get_scheduler

from schedules import stable
from stillhouse.recipe import Train
from stillhouse.steps.training import arguments


def rates(train: Train, steps: int) -> list[float]:
    """As the Trainer sets them: the rate of each step."""
    args = arguments(train, steps, 0, Path("nowhere"), {})
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=args.learning_rate)
    schedule = get_scheduler(
        args.lr_scheduler_type, optimizer, args.get_warmup_steps(steps), steps, args.lr_scheduler_kwargs
    )
    found = []
    for _ in range(steps):
        found.append(float(schedule.get_last_lr()[0]))
        optimizer.step()
        schedule.step()
    return found


@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.5, 0.95])
@pytest.mark.parametrize("steps", [1, 2, 7, 20, 400])
def test_the_rate_stays_at_its_peak_until_the_last_fifth_and_then_goes_to_zero(
    steps: int, warmup: float
) -> None:
    train = Train(steps=steps, schedule="warmup_stable_decay", warmup=warmup, learning_rate=3e-3, precision="float32")  # fmt: skip
    assert rates(train, steps) == pytest.approx(stable(steps, warmup, 3e-3), rel=1e-12, abs=1e-15)


def test_a_cosine_is_not_told_how_to_cool_down() -> None:
    """The Trainer's cosine would refuse the words of another schedule."""
    found = rates(Train(steps=10, warmup=0.0, learning_rate=1.0, precision="float32"), 10)
    assert found[0] == 1.0 and found[5] == pytest.approx(0.5) and found == sorted(found, reverse=True)

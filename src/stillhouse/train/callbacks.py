"""What the Distiller does between the Trainer's steps."""

from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ..seeds import draw_seed
from ..tasks import unwrap
from ..teachers.ema import EmaTeacher
from .order import SeededOrder
from .rollouts import AdaptiveShare


class Companion(TrainerCallback):
    """One that has something to keep in checkpoints."""

    def save(self, folder: Path) -> None:
        """Into a checkpoint that is being written."""
        raise NotImplementedError

    def restore(self, folder: Path) -> None:
        """From one that training goes on from."""
        raise NotImplementedError


class Randomness(TrainerCallback):
    """Makes order and dropout functions of (seed, epoch, step, rank)."""

    def __init__(self, order: SeededOrder, seed: int) -> None:
        self.order, self.seed = order, seed

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Before the sampler is asked."""
        self.order.epoch = int(state.epoch or 0)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Before anything of the step draws."""
        torch.manual_seed(draw_seed(self.seed, "step", state.global_step, args.process_index))


class Following(TrainerCallback):
    """Lets the moving average follow the student."""

    def __init__(self, teacher: EmaTeacher) -> None:
        self.teacher = teacher

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Before a checkpoint of this step is written."""
        self.teacher.follow(unwrap(kwargs["model"]))


class Adapting(TrainerCallback):
    """Lets an adaptive share of the student's own rows follow the loss on the evaluation rows."""

    def __init__(self, share: AdaptiveShare) -> None:
        self.share = share

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Ask for a look; it comes before a checkpoint of this step is written."""
        if state.global_step % self.share.wanted.every == 0:
            control.should_evaluate = True

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Only the looks that it asked for: how often somebody else evaluates must not move the share."""
        if state.global_step and state.global_step % self.share.wanted.every == 0:
            self.share.look(kwargs["metrics"]["eval_loss"])

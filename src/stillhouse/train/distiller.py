"""Distiller: a `transformers.Trainer` whose loss is the objective.  Everything else is theirs, but for the checkpoints."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    PreTrainedModel,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from ..data.encode import Example
from ..errors import RecipeError
from ..models.sharded import cut_again, is_sharded, load_whole, whole_state
from ..models.taps import tapped
from ..recipe import PolicyGradient, Rollouts, Schedule, Term, rollouts_fault
from ..tasks import Batch, Scores, Task, foretold, unwrap
from ..teachers import Dense, SoftTargets, Teacher
from ..teachers.cache import CachedTeacher
from ..teachers.cross import Foreign
from ..teachers.ema import Ema, EmaTeacher
from ..teachers.local import LocalTeacher
from . import checkpoints, sharded
from .beside import Beside, forget, tend
from .callbacks import Adapting, Companion, Following, Randomness
from .given import as_examples, refuse_other_tokens, refuse_shared, task_of, teacher_of
from .objective import Layers, Objective
from .order import EachEpoch, SeededOrder
from .packing import can_pack, packed_batch
from .rollouts import Writing, judged


class Distiller(Trainer):
    """Trains `model` to match its teacher.

    Args:
        model: the student, a model of transformers.
        teacher: a model that runs beside it, anything with `signal(batch)`, or `Ema(decay)` for the student's own moving
            average, or `Foreign(model, tokenizer)` for one with another tokenizer; None if no term needs one.
        objective: terms from `stillhouse.objectives`.
        args: TrainingArguments, as for any Trainer.
        train_dataset: rows with `text`, `messages`, `prompt` and `completion` (these two perhaps with a `rationale`), or `text` and
            `label`; or Examples.
            Rows are cut at 256 tokens, unless a `task` made with another `max_length` is given.
        eval_dataset: the same, for the Trainer's own evaluation of the loss.
        processing_class: the tokenizer of student and teacher.
        task: what the models do; by default what the student's class does.
        rollouts: how the student writes some of its rows itself; None if it does not.
        rationale_weight: factor, or a schedule for it, on what every term asks of a rationale's tokens; only the loss knows it,
            not the count.
        redraw: whether other tokens are hidden in each epoch; never with kept targets, which belong to one masked text.
        say: told in a line when a damaged checkpoint is passed over, or kept targets are not read ahead.

    Loss: Σ weight·nats over the counted positions of a micro-batch ÷ the counted positions of the whole optimiser
    step, over all micro-batches and ranks; so the gradient does not depend on how a step is cut up.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        teacher: PreTrainedModel | Teacher | Ema | Foreign | None = None,
        objective: Sequence[Term] = (),
        args: TrainingArguments | None = None,
        train_dataset: Iterable[Any] | None = None,
        eval_dataset: Iterable[Any] | None = None,
        processing_class: Any = None,
        task: Task | None = None,
        rollouts: Rollouts | None = None,
        rationale_weight: float | Schedule = 1.0,
        redraw: bool = True,
        say: Callable[[str], None] = print,
        **kwargs: Any,
    ) -> None:
        refuse_shared(model, teacher)
        args = args or TrainingArguments(output_dir="distiller", report_to=[])
        self.objective = Objective(objective, rationale_weight)
        free = sharded.wanted(args, model, teacher, self.objective.terms)
        self.task = task or task_of(model, processing_class, teacher)
        self.teacher: Teacher | None = teacher_of(teacher, model, self.task)
        self._refuse_unfit(model, teacher)
        _overrule(args)
        with sharded.unheard(args):
            super().__init__(
                model=model,
                args=args,
                data_collator=self.task.collate,
                train_dataset=as_examples([] if train_dataset is None else train_dataset, self.task, say),
                eval_dataset=None if eval_dataset is None else as_examples(eval_dataset, self.task, say),
                processing_class=processing_class,
                **kwargs,
            )
        self.loss_is_scaled_for_ga = True  # by the step's count, in compute_loss
        self._say, self._steps = say, 0
        self._parts: list[Tensor] = []
        self._attach(model)
        self._arrange(model, redraw)
        self.rollouts = self._writing(rollouts, args)
        for callback in self._followers():
            self.add_callback(callback)
        self.remove_callback(PrinterCallback)  # standard output is for results
        if free is not None or is_sharded(model):
            sharded.refuse(self, writes=rollouts is not None)
            sharded.cut(model, free, args)
            self.is_distributed_loading_by_transformers = True  # see `sharded.OWNED`

    # ── what it is made of ──────────────────────────────────────────────────────────────────────────────────────────

    def _refuse_unfit(self, model: PreTrainedModel, teacher: Any) -> None:
        """Raises: RecipeError for models that do not do the task, or a teacher that the objective cannot learn from."""
        if self.objective.needs_teacher and self.teacher is None:
            raise RecipeError("Distiller: the objective compares with a teacher, and teacher is None.")
        refuse_other_tokens(self.task, self.objective.terms)
        self.task.verify(unwrap(model))
        if isinstance(teacher, PreTrainedModel):
            self.task.verify(teacher)

    def _attach(self, model: PreTrainedModel) -> None:
        """Give the objective its view of both models' layers, and put what learns or teaches beside the student on its device."""
        beside = unwrap(self.teacher.model) if isinstance(self.teacher, LocalTeacher) else None
        self.objective.attach(unwrap(model), beside, self.task.outcomes, self.args.seed)
        for one in self.objective.beside:
            one.to(self.args.device)
        if isinstance(self.teacher, LocalTeacher):
            self.teacher.model.to(self.args.device)

    def _arrange(self, model: PreTrainedModel, redraw: bool) -> None:
        """How rows become batches: in which order, which of them share a sequence, and what is done to them on the way."""
        args, lengths = self.args, [len(row.input_ids) for row in self.train_dataset]
        if self._packs(model):
            self.data_collator = partial(packed_batch, self.task)
            lengths = [1] * len(lengths)  # any rows fill a sequence: they need not be of like length
        if isinstance(self.teacher, CachedTeacher) and self.objective.needs_teacher:
            if args.dataloader_num_workers:  # batches are made where nobody reads for this process
                self._say(
                    "dataloader_num_workers: kept soft targets are not read ahead with it; leave it at 0"
                )
            else:
                self.data_collator = partial(self._announced, self.data_collator)
        in_a_step = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
        self._order = SeededOrder(lengths, in_a_step, args.seed)  # the same rows, however a step is divided
        if redraw and self.task.redraws and not isinstance(self.teacher, CachedTeacher):
            self.train_dataset: Any = EachEpoch(self.train_dataset, self.task, self._order, args)

    def _packs(self, model: PreTrainedModel) -> bool:
        """Whether rows may share sequences at all times: a model that attends in one way heeds their borders, and in another it may
        not.  (A schedule is at 0 at one of its ends or nowhere.)"""
        ends = (1.0, 0.0) if self.objective.features is not None else (0.0,)
        heeds = []
        for progress in ends:
            self.objective.attend(progress)
            heeds.append(can_pack(self.task, model, self.teacher))
        return all(heeds)

    def _followers(self) -> Iterator[TrainerCallback]:
        """Who does something at each step.  Raises: RecipeError for an adaptive share that has nothing to follow."""
        yield Randomness(self._order, self.args.seed)
        if isinstance(self.teacher, EmaTeacher):
            yield Following(self.teacher)
        if self.rollouts is not None and self.rollouts.adaptive is not None:
            if self.eval_dataset is None:
                raise RecipeError(
                    "rollouts.share: grows when the loss on eval_dataset stops falling; give one."
                )
            yield Adapting(self.rollouts.adaptive)

    def _writing(self, settings: Rollouts | None, args: TrainingArguments) -> Writing | None:
        """Raises: RecipeError where what the student writes could not be judged, or not the same again after a stop."""
        if fault := rollouts_fault(self.objective.terms, settings, self.objective.rationale_weight):
            raise RecipeError(fault)
        if settings is None:
            return None
        if not isinstance(self.teacher, LocalTeacher):
            raise RecipeError(
                "rollouts: nobody has labelled what the student writes; give the teacher's model."
            )
        if settings.replay and args.world_size > 1:
            raise RecipeError("rollouts.replay: is not supported on several ranks; leave it out.")
        return Writing(settings, self.task, args.seed, self.data_collator)

    # ── the loss ────────────────────────────────────────────────────────────────────────────────────────────────────

    def get_batch_samples(
        self, epoch_iterator: Any, num_batches: int, device: Any
    ) -> tuple[list[Batch], Tensor]:
        """The step's micro-batches, and how many positions they count on all ranks together."""
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        self._steps += 1
        self.objective.attend(self._progress)
        if self.rollouts is not None and batches:  # before positions are counted
            step, rank = self.state.global_step, self.args.process_index
            batches = self.rollouts.some(batches, self.model, step, self._progress, rank)
        total = torch.tensor(sum(int(self.task.counted(batch).sum()) for batch in batches), device=device)
        if self.args.world_size > 1:
            total = self.accelerator.gather(total).sum()
        return batches, total

    @property
    def _progress(self) -> float:
        """Share of all steps that are done."""
        share: float = self.state.global_step / max(1, self.state.max_steps)
        return share

    def compute_loss(
        self,
        model: nn.Module,
        inputs: Batch,
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """The objective on one micro-batch."""
        targets, scores, layers = self._read(model, inputs)
        total = num_items_in_batch if num_items_in_batch is not None else scores.hidden.shape[0]
        dtype = torch.bfloat16 if self.args.bf16 else None
        loss, parts = self.objective(scores, targets, total, dtype, self._progress, layers)
        loss = loss * self.args.world_size  # DDP and FSDP average over ranks; `total` counted them all
        if model.training:
            self._parts.append(parts.detach())
        return (loss, scores) if return_outputs else loss

    def _announced(self, collate: Callable[[list[Example]], Batch], rows: list[Example]) -> Batch:
        """A batch whose kept targets are looked up from now on: the loader makes batches before they are learned from."""
        batch = collate(rows)
        if self.objective.asks_teacher(self._progress):
            assert isinstance(self.teacher, CachedTeacher)
            self.teacher.expect(batch["keys"])
        return batch

    def _read(self, model: nn.Module, inputs: Batch) -> tuple[SoftTargets | None, Scores, Layers | None]:
        """What teacher and student say, and what their layers hand on if a term compares them."""
        self.objective.attend(self._progress)  # an evaluation comes after the step that it is about
        targets: SoftTargets | None = None
        theirs: dict[str, Tensor] = {}
        if wanted := self.objective.teacher_points(self._progress):
            assert isinstance(self.teacher, LocalTeacher)
            targets = dense = self.teacher.signal(inputs, wanted)
            theirs = dense.features
        elif self.teacher is not None and self.objective.asks_teacher(self._progress):
            targets = self.teacher.signal(inputs)
        points = self.objective.points(self._progress)
        with tapped(unwrap(model), points) as mine:
            scores = self._judged(self.task.scores(model, inputs), targets, inputs)
        return targets, scores, Layers(mine, theirs, self.task.layout(inputs)) if points else None

    def _judged(self, scores: Scores, targets: SoftTargets | None, inputs: Batch) -> Scores:
        """With what the teacher makes of the student's own words, if it wrote this batch and a term asks."""
        asked = any(isinstance(term, PolicyGradient) for term in self.objective.terms)
        if not asked or not inputs.get("written"):
            return scores
        assert isinstance(targets, Dense)
        tokens = foretold(inputs["labels"], self.task.counted(inputs))
        return replace(scores, written=judged(scores, targets, tokens))

    def create_optimizer(self, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        """As the Trainer's, with what learns beside the student."""
        cut_again(self.model)
        optimizer: torch.optim.Optimizer = super().create_optimizer(*args, **kwargs)
        learned = [parameter for one in self.objective.beside for parameter in one.parameters()]
        known = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        if learned and id(learned[0]) not in known:
            optimizer.add_param_group({"params": learned, "weight_decay": 0.0})
            ranks, longest = self.args.world_size, self.args.max_grad_norm
            optimizer.register_step_pre_hook(lambda *_: tend(learned, ranks, longest))
            optimizer.register_step_post_hook(lambda *_: forget(learned))
        return optimizer

    def prediction_step(
        self,
        model: nn.Module,
        inputs: Batch,
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[Tensor, None, None]:
        """The objective on one held-out batch, per counted position; full logits are not made here either."""
        with torch.no_grad():
            loss = self.compute_loss(model, self._prepare_inputs(inputs)) / self.args.world_size
        return loss.detach(), None, None

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds each term's own value; stops a run that has diverged."""
        if "loss" in logs and self._parts:
            sums: Any = self.accelerator.reduce(torch.stack(self._parts).sum(0), "sum")  # over all ranks
            for name, value in zip(self.objective.names, (sums / self._steps).tolist(), strict=True):
                logs[name] = value
            self._parts, self._steps = [], 0
            if self.rollouts is not None and self.rollouts.adaptive is not None:
                logs["written_share"] = self.rollouts.adaptive.share
        super().log(logs, start_time)
        if not math.isfinite(logs.get("loss", 0.0)):
            raise RecipeError(
                f"training diverged: the loss is {logs['loss']} at step {self.state.global_step}; "
                "lower train.learning_rate, or use train.precision: float32."
            )

    def _get_train_sampler(self, train_dataset: Any = None) -> SeededOrder:
        return self._order

    # ── checkpoints ─────────────────────────────────────────────────────────────────────────────────────────────────

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs: Any) -> Any:
        """As Trainer.train; True resumes from the newest *sound* checkpoint, if there is one."""
        if resume_from_checkpoint is True:
            with self.args.main_process_first(local=False):  # it alone sets damaged ones aside
                found = checkpoints.newest_sound(Path(self.args.output_dir), self._say)
            resume_from_checkpoint = str(found) if found else None
        return super().train(resume_from_checkpoint=resume_from_checkpoint, **kwargs)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        assert self.optimizer is not None
        weights = self._whole()
        learned = checkpoints.optimizer_state(self.optimizer, self.args.should_save)
        if self.args.should_save:
            folder = Path(self._get_output_dir(trial=trial))
            target = folder / f"checkpoint-{self.state.global_step}"
            checkpoints.write_checkpoint(
                target,
                partial(self._save_all, weights=weights),
                self.state.save_to_json,
                learned,
                self.lr_scheduler,
                self.args.world_size,
            )
            checkpoints.rotate(folder, self.args.save_total_limit)
        self.accelerator.wait_for_everyone()

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        if is_sharded(self.model):
            load_whole(self.model, Path(resume_from_checkpoint))
        else:
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            assert self.optimizer is not None
            checkpoints.check_ranks(Path(checkpoint), self.args.world_size)
            checkpoints.load_optimizer(Path(checkpoint), self.optimizer, self.lr_scheduler)
            for companion in self._companions():
                companion.restore(Path(checkpoint))

    def _companions(self) -> list[Beside | Writing | EmaTeacher | Companion]:
        """What only training needs and a checkpoint therefore keeps beside the student."""
        average = self.teacher if isinstance(self.teacher, EmaTeacher) else None
        told = [one for one in self.callback_handler.callbacks if isinstance(one, Companion)]
        others = [one for one in (self.rollouts, average) if one is not None]
        return [*self.objective.beside, *others, *told]

    def _save_all(self, folder: str, weights: dict[str, Tensor] | None) -> None:
        """The student, and beside it what a finished student does not have."""
        self._write(folder, weights)
        for companion in self._companions():
            companion.save(Path(folder))

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """Nothing to load: each step seeds the generators from (seed, step, rank)."""

    def _whole(self) -> dict[str, Tensor] | None:
        """The weights of a sharded student, gathered by all for the one who saves; None if it is in one piece anyway."""
        return whole_state(self.model, self.args.should_save) if is_sharded(self.model) else None

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """Weights and tokenizer; the Trainer's own adds a pickle of its arguments."""
        weights = self._whole()
        if self.args.should_save:
            self._write(output_dir or self.args.output_dir, weights or state_dict)

    def _write(self, folder: str, weights: dict[str, Any] | None) -> None:
        inner: Any = self.accelerator.unwrap_model(self.model)
        inner.save_pretrained(folder, state_dict=weights)
        if self.processing_class is not None:
            self.processing_class.save_pretrained(folder)

    def _defer_fsdp_gradient_reduction(self) -> AbstractContextManager[None]:
        """The Trainer's own wants a model that it has sharded itself."""
        return sharded.gradients_kept(self.model)


def _overrule(args: TrainingArguments) -> None:
    """What a Trainer would do and a Distiller must not.  Raises: RecipeError for fp16."""
    if args.fp16:
        raise RecipeError(
            "Distiller: fp16 is not supported (its scaler is not in our checkpoints); use bf16=True."
        )
    args.remove_unused_columns = False  # rows are Examples, and their keys find the kept targets
    args.logging_nan_inf_filter = False  # it hides NaN from the log
    args._n_gpu = min(args.n_gpu, 1)  # nn.DataParallel would cut a batch behind the task's back; use torchrun

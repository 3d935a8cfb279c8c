"""`teacher.zero_shot`: a language model that labels by the names of the labels."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, NonNegativeInt, model_validator

from .section import Section

Name = Annotated[str, Field(min_length=1)]


class ZeroShot(Section):
    """`teacher.model` is a causal language model: how probable each label's name is as its answer, is the label's probability
    (Brown et al. 2020, arXiv:2005.14165)."""

    labels: list[Name] | dict[str, Name] = []
    """The labels' names where no training row has one; or the data's label: the word that says what it means."""
    prompt: str | list[str] = []
    """File with what is asked, or several, of which the one that tells texts apart the most is taken (mutual information, no label is
    read: Sorensen et al. 2022, arXiv:2203.11364); {text}, {pair} and {labels} are filled in.  It has a default."""
    form: Literal["chat", "plain"] | None = None
    """`chat`: the name is the answer to a turn.  `plain`: the name goes on the prompt as a text ("Review: {text}\\nSentiment:").
    If not given, it is chosen as a prompt is."""
    examples: NonNegativeInt = 0
    """Labelled training rows shown before each text, as many of each label as possible."""
    calibrate: Literal["texts", "content_free", "none"] = "texts"
    """Divide by how often a label is said whatever the text: on average over training texts (Zhou et al. 2023, arXiv:2309.17249), or of
    texts without content (Zhao et al. 2021, arXiv:2102.09690), as is done too where fewer than 16 training texts are there."""

    @model_validator(mode="after")
    def _words_differ(self) -> Self:
        words = [word.strip().casefold() for word in self.label_words.values()]
        if len(set(words)) < len(self.labels):
            raise ValueError("labels: two are the same word; give each label a word of its own")
        if len(self.labels) == 1:
            raise ValueError("labels: has one label, and a classifier needs at least two; add the others")
        return self

    @property
    def prompts(self) -> list[str]:
        """The files with what could be asked."""
        return [self.prompt] if isinstance(self.prompt, str) else self.prompt

    @property
    def label_words(self) -> dict[str, str]:
        """Label -> its word, of the labels that are named."""
        return self.labels if isinstance(self.labels, dict) else {label: label for label in self.labels}


def zero_shot_fault(recipe: Any) -> str | None:
    """What of the other sections does not go with a teacher that labels by names, in a sentence; None if nothing."""
    teacher, student, data = recipe.teacher, recipe.student, recipe.data
    if teacher.zero_shot is None:
        return None
    if recipe.task != "classification":
        return "teacher.zero_shot: only for task: classification; remove it"
    for name in ("finetune", "ema", "panel", "pool", "context"):
        if getattr(teacher, name) is not None:
            return f"teacher.{name}: cannot be combined with zero_shot; remove one of them"
    if not recipe.names_teacher:
        return "objective: no term uses the teacher, whose answers are soft targets; add {kind: forward_kl}"
    if student.cut is not None:
        return (
            "student.from_teacher: the teacher is a language model, and the student a classifier; use student.model, or "
            "from_config with student.tokenizer"
        )
    if student.from_config is not None and student.tokenizer is None:
        return (
            "student.tokenizer: the teacher's language model lends none; name a model of the student's family that does, or use "
            "student.model"
        )
    if student.vocabulary is not None:
        return "student.vocabulary: trims what is made from the teacher, and the student of zero_shot is not; remove it"
    if data.augment is not None:
        return "data.augment: makes tokens, and zero_shot reads text; use data.unlabelled, or data.generate"
    return None

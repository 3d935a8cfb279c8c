"""Members of a panel that would ask one model the very same."""

from pathlib import Path

from ..asking.messages import label_question
from ..errors import RecipeError
from ..recipe import Api, Teacher
from .templates import fill_label, label_prompts


def refuse_alike(teacher: Teacher) -> None:
    """Raises: RecipeError if two members are one, for its answer would count twice, however differently they are written."""
    if len(teacher.apis) < 2:
        return
    labels = sorted(teacher.label_words)
    before: list[tuple[str, str | None, set[str]]] = []
    for field, api in teacher.apis.items():
        asked = _asked(api, labels)
        for other, place, same in before:
            if asked & same and (place is None or api.base_url in (None, place)):
                raise RecipeError(
                    f"{field}: asks the same model the same as {other}, and nobody is asked twice; remove it, or call its model by "
                    "another name."
                )
        before.append((field, api.base_url, asked))


def _asked(api: Api, labels: list[str]) -> set[str]:
    """What is asked about some row, as it is known by: of a text, and of a pair of them.  A file with a prompt that is not there yet
    is told by its name."""
    prompt = api.prompt
    if prompt is not None and "{text}" not in prompt and not Path(prompt).is_file():
        prompts = dict.fromkeys((False, True), prompt)
    else:
        prompts = label_prompts(prompt, api.endpoint == "completions", "teacher.panel")
    words = ", ".join(api.label_words.get(label, label) for label in labels)
    row = {"text": "a text", "pair": "", "labels": words}
    return {label_question(api, fill_label(prompt, row), "", "").question for prompt in prompts.values()}

"""Prompts are files that a user can read and change: `prompts/*.txt`, or files of the same names in a folder of theirs.

A file is what a model is told, with {names} for what is put in.  What is put in is data: it is never looked at for names again,
and nothing in it is executed.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path

from ..errors import RecipeError
from ..registry import did_you_mean

_NAME = re.compile(r"\{([a-z]+)\}")
_OF_A_ROW = re.compile(r"\{(text|pair|labels)\}")
PLACES = {
    "paraphrase": {"text"},
    "translate": {"text", "language"},
    "translate_back": {"text", "example"},
    "self_instruct": {"examples"},
    "evol_instruct": {"text"},
    "rationale": {"question", "answer"},
    "hard_negative": {"text", "label", "other"},
    "balance": {"examples", "label"},
    "zero_shot": {"text", "labels"},
    "zero_shot_plain": {"text", "labels"},
    "zero_shot_pair": {"text", "pair", "labels"},
    "zero_shot_pair_plain": {"text", "pair", "labels"},
    "label": {"text", "labels"},
    "label_plain": {"text", "labels"},
    "label_pair": {"text", "pair", "labels"},
    "label_pair_plain": {"text", "pair", "labels"},
    "source": {"text"},
    "judge": {"text", "pair", "labels"},
    "judge_score": {"text", "pair"},
    "judge_pair": {"prompt", "first", "second"},
}
"""Prompt -> the names that it may use."""


def template(name: str, folder: Path | None) -> str:
    """The prompt called `name`, from `folder` if it has one.  Raises: RecipeError for a name that nothing is put in for."""
    path = None if folder is None else folder / f"{name}.txt"
    return template_in(path if path is not None and path.is_file() else None, name)


def template_in(path: Path | None, name: str) -> str:
    """The prompt called `name` as it stands in a file; our own if there is none.  Raises: RecipeError as `template` does."""
    if path is not None:
        return checked(path.read_text(encoding="utf-8"), str(path), name)
    text = resources.files("stillhouse.data").joinpath(f"prompts/{name}.txt").read_text(encoding="utf-8")
    return checked(text, f"{name}.txt", name)


def checked(text: str, where: str, name: str) -> str:
    """`text` as the prompt called `name`, from the file `where`.  Raises: RecipeError for a name that nothing is put in for."""
    for found in _NAME.findall(text):
        if found not in PLACES[name]:
            known = ", ".join(f"{{{place}}}" for place in sorted(PLACES[name]))
            raise RecipeError(
                f"{where}: nothing is put in for {{{found}}}.{did_you_mean(found, PLACES[name])} Known here: {known}."
            )
    return text.strip()


def prompt_file(path: str | None, name: str, key: str) -> str | None:
    """What the user's file asks in the place of the prompt called `name`; None if they have none.

    Args: key: of the recipe, which names the file.
    Raises: RecipeError if it is not there, or the text is not put in.
    """
    if path is None:
        return None
    if not Path(path).is_file():
        raise RecipeError(f"{key}: {path} does not exist; name a text file with {{text}} in it.")
    text = checked(Path(path).read_text(encoding="utf-8"), path, name)
    if "{text}" not in text:
        raise RecipeError(f"{path}: has no {{text}}, where the text of each row is put in; add it.")
    return text


def prompt_said(prompt: str | None, name: str, key: str) -> str | None:
    """What a recipe's `prompt` asks, where it is the text itself or names a file with it; else as `prompt_file`."""
    if prompt is None or "{text}" not in prompt:
        return prompt_file(prompt, name, key)
    ours = set().union(*PLACES.values())
    for found in _NAME.findall(prompt):
        if found in ours:  # a name of another prompt is a mistake; other words in braces may be LaTeX
            checked(f"{{{found}}}", key, name)
    return prompt  # as it stands there: space around it is a part of the question


def label_prompts(prompt: str | None, plain: bool, key: str) -> dict[bool, str]:
    """Whether a row is a pair -> what an API is asked about it: the recipe's `prompt`, or else our own for that kind of endpoint.

    Args: plain: whether the endpoint completes plain text.
    Raises: RecipeError as `prompt_said`.
    """
    said = prompt_said(prompt, "label_pair", key)
    return {
        pair: said or template(("label_pair" if pair else "label") + ("_plain" if plain else ""), None)
        for pair in (False, True)
    }


def fill_label(text: str, values: Mapping[str, str]) -> str:
    """One of them with a row's texts and the labels; whatever else stands in braces stays, for a recipe's own may hold JSON."""
    return _OF_A_ROW.sub(lambda place: values[place[1]], text)


def refuse_single(asked: Iterable[tuple[str, str]]) -> None:
    """Args: asked: (file, what it asks), where there are pairs of texts.  Raises: RecipeError if one would show the first text only."""
    for where, text in asked:
        if "{pair}" not in text:
            raise RecipeError(f"{where}: has no {{pair}}, where the second text of a row is put in; add it.")


def prompt_files(paths: Sequence[str], name: str, key: str) -> list[str]:
    """What several files of the user's ask; else as `prompt_file`."""
    return [text for path in paths if (text := prompt_file(path, name, key)) is not None]


def check_folder(folder: Path) -> None:
    """Raises: RecipeError if `folder` is none, or a file in it is no prompt of ours."""
    if not folder.is_dir():
        raise RecipeError(
            f"data.writer.prompts: {folder} is no folder; name one with files such as paraphrase.txt."
        )
    for path in sorted(folder.glob("*.txt")):
        if path.stem not in PLACES:
            raise RecipeError(
                f"data.writer.prompts: {path} is no prompt that is used.{did_you_mean(path.stem, PLACES)} "
                f"Known: {', '.join(sorted(PLACES))}."
            )
        template(path.stem, folder)


def judge_prompt(path: str | None) -> str:
    """What a judge behind an API is told, by the user's file if they have one.  Raises: RecipeError as `prompt_file`, and if the
    answer is not put in."""
    text = prompt_file(path, "judge_score", "data.judge.prompt") or template("judge_score", None)
    if "{pair}" not in text:
        raise RecipeError(f"{path}: has no {{pair}}, where the answer is put in; add it.")
    return text


def check_judge(path: Path | None) -> None:
    """Raises: RecipeError if a judge of pairs would not be shown what it is to compare."""
    if path is not None and not path.is_file():
        raise RecipeError(f"evaluate.judge.prompt: {path} is not there; name a text file.")
    text = template_in(path, "judge_pair")
    for name in sorted(PLACES["judge_pair"]):
        if f"{{{name}}}" not in text:
            raise RecipeError(
                f"evaluate.judge.prompt: {path} has no {{{name}}}, so the judge would not see it; add it."
            )


def fill(text: str, /, **values: str) -> str:
    """`text` with each {name} replaced once; a {name} inside a value stays as it is."""
    return _NAME.sub(lambda match: values[match[1]], text)

"""The models of a recipe as local folders, and whether they may teach."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ..asking.messages import place_of
from ..data.templates import prompt_file, prompt_files
from ..errors import RecipeError
from ..files import read_json, write_json
from ..models.load import as_folder, load_tokenizer, same_tokenizer
from ..models.machine import bfloat16_pays
from ..progress import Watch
from ..recipe import Member
from ..recipe.panel import text_fault
from ..registry import pick
from ..sources import cache_dir, resolve
from ..sources.terms import Terms, of_licence, of_past_answers, of_provider, refuse_disallowed
from ..tasks import TASKS

OWN_TOKENS = "own_tokens"
"""Said of a panel's classifier whose tokenizer is not the student's: it reads all rows as text before the student learns."""


def fetch_models(recipe: Any, place: Path, watch: Watch) -> dict[str, Any]:
    """Teacher (and student and writer, if they are models of their own) as local folders; `tongues` if tokenizers differ."""
    found: dict[str, Any] = {
        "student": None,
        "writer": None,
        "tongues": None,
        "panel": None,
        "zero_shot": None,
    }
    found |= {"others": [], "judge": None}
    local, lends = recipe.teacher.is_local, recipe.teacher.lends
    if not local:
        found |= _lent(recipe, watch)
    roles = {"teacher": recipe.teacher, "student": recipe.student} if lends else {}
    for role, wanted in {**roles, "writer": recipe.data.writer}.items():
        if wanted is None or wanted.model is None:
            continue
        task = "causal_lm" if role == "writer" else recipe.task
        found[role] = fetched(wanted.model, wanted, task, watch)
    if recipe.teacher.zero_shot is not None:
        found |= _fetch_namer(recipe, watch)
    if recipe.teacher.panel is not None:
        found |= _fetch_panel(recipe, found.get("teacher"), found["student"], watch)
    found |= _fetch_helpers(recipe.data, watch)
    teachers = (found["panel"] or [found["teacher"]]) if local else []
    asked = {who["name"]: terms_of(who) for who in [*teachers, *helpers(found)]}
    for name, terms in [*asked.items(), *terms_of_writers(recipe).items()]:
        watch.note(f"  {name}: {terms.sentence()}")
        refuse_disallowed([terms], recipe.teacher.terms_accepted)
    if lends and found["student"]:
        mine, theirs = (load_tokenizer(Path(found[role]["folder"])) for role in ("student", "teacher"))
        if why := same_tokenizer(mine, theirs):
            if recipe.teacher.panel is not None:
                raise RecipeError(
                    f"student.model: its tokenizer is not the panel's ({why}); choose a student of its family."
                )
            sure = None if recipe.data.filter is None else recipe.data.filter.min_confidence
            if recipe.task == "causal_lm" and sure is not None:
                raise RecipeError(
                    "data.filter.min_confidence: needs a teacher with the student's tokenizer; remove it."
                )
            watch.note(f"  two tokenizers ({why}): the teacher reads each row in its own")
            found["tongues"] = {"student": found["student"]}
    return {**found, "bfloat16": _decided(place)}


def helpers(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Models on this machine, beside the teacher, that decide what the student reads: writers, and a judge."""
    return [one for one in (found["writer"], *found["others"], found["judge"]) if one]


def terms_of(who: dict[str, Any]) -> Terms:
    """Under what a teacher or helper may train others: its licence, or what the provider of an API says."""
    if "provider" not in who:
        return of_licence(who["licence"])
    return of_past_answers(who["name"]) if who["provider"] is None else of_provider(who["provider"])


def terms_of_writers(recipe: Any) -> dict[str, Terms]:
    """Name -> its provider's terms, of each writer or judge behind an API that is not the teacher's own."""
    apis = list(recipe.data.apis.values())
    places = [place_of(api, apis[:number]) for number, api in enumerate(apis)]
    return {
        f"{api.model}{place and f' at {place}'}": of_provider(str(api.base_url))
        for api, place in zip(apis, places, strict=True)
    }


def _fetch_helpers(data: Any, watch: Watch) -> dict[str, Any]:
    """Further writers and a judge."""
    others = data.writer.others if data.writer is not None else []
    found = [fetched(one.model, one, "causal_lm", watch) for one in others if one.model is not None]
    if data.judge is None or data.judge.model is None:
        return {"others": found, "judge": None}
    # a reward model keeps its own class: only a .gguf file must be told what it is
    judge = fetched(data.judge.model, data.judge, "causal_lm", watch)
    return {
        "others": found,
        "judge": {**judge, "prompt": prompt_file(data.judge.prompt, "judge", "data.judge.prompt")},
    }


def fetched(source: str, pins: Any, task: str, watch: Watch) -> dict[str, Any]:
    """One model as a local folder."""
    found = resolve(source, sha256=pins.sha256, revision=pins.revision, kind="model", progress=watch.note)
    folder = as_folder(found.path, cache_dir(), _auto_class(task), watch.note)
    return {
        "folder": str(folder),
        "identity": found.identity,
        "licence": found.licence,
        "name": _name(source, found.path),
    }


def _lent(recipe: Any, watch: Watch) -> dict[str, Any]:
    """For a teacher that is not here: its name, and the folder that lends tokenizer and shape in its stead."""
    if recipe.teacher.provider is not None:
        terms = of_provider(recipe.teacher.provider)
        watch.note(f"  {recipe.teacher.name}: {terms.sentence()}")
        refuse_disallowed([terms], recipe.teacher.terms_accepted)
    teacher = {"identity": f"api:{recipe.teacher.name}", "licence": None, "name": recipe.teacher.name}
    return _with_lender(recipe, teacher, watch)


def _with_lender(recipe: Any, teacher: dict[str, Any], watch: Watch) -> dict[str, Any]:
    """A teacher that is no classifier of the student's kind, with the folder that stands in where one is asked for."""
    own = recipe.student.model
    lender = fetched(own or recipe.student.tokenizer, recipe.student, recipe.task, watch)
    return {"teacher": {**teacher, "folder": lender["folder"]}, "student": lender if own else None}


def _fetch_namer(recipe: Any, watch: Watch) -> dict[str, Any]:
    """A language model that labels by names."""
    found = _namer(recipe.teacher, "teacher.zero_shot", watch)
    lone = {name: value for name, value in found.items() if name != "prompts"}
    return {**_with_lender(recipe, lone, watch), "zero_shot": found}


def _namer(wanted: Any, field: str, watch: Watch) -> dict[str, Any]:
    """A language model that labels by names, and what it could be asked; `field` is where the recipe names the prompts."""
    found = fetched(wanted.model, wanted, "causal_lm", watch)
    paths = wanted.zero_shot.prompts
    texts = prompt_files(paths, "zero_shot_pair", f"{field}.prompt")
    asked = [{"name": Path(path).name, "text": text} for path, text in zip(paths, texts, strict=True)]
    return {**found, "prompts": asked}


def _fetch_panel(
    recipe: Any, lead: dict[str, Any] | None, student: dict[str, Any] | None, watch: Watch
) -> dict[str, Any]:
    """The members, models as local folders, and what the whole panel is called.

    Args: lead: the first of the student's kind, None if there is none; student: if it is a model of its own.
    Raises: RecipeError for a member whose tokenizer is not the student's, where it has to be.
    """
    reader = student or lead if recipe.task == "classification" else lead
    members = [
        {**found, "name": member.name or found["name"]}
        for number, member in enumerate(recipe.teacher.panel)
        for found in [_member(member, number, recipe.task, reader, watch)]
    ]
    licences = sorted({str(one["licence"] or "unknown") for one in members if "provider" not in one})
    named = {"name": " + ".join(one["name"] for one in members), "licence": " / ".join(licences) or None}
    identity = " + ".join(one["identity"] for one in members)
    if lead is None:
        return {**_with_lender(recipe, {"identity": identity, **named}, watch), "panel": members}
    apart = [number for number, one in enumerate(members) if OWN_TOKENS in one]
    if apart and recipe.data.augment is not None:
        raise RecipeError(text_fault(f"teacher.panel[{apart[0]}]") + ".")
    if lending := lenders(recipe.teacher.panel, members):
        return {"teacher": {**lending[0], **named}, "panel": members}
    assert reader is not None
    return {
        "teacher": {"folder": reader["folder"], "identity": identity, **named},
        "panel": members,
    }


def lenders(settings: Sequence[Member], found: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those of the members, as `fetched` has them, that read the student's tokens, and so have a tokenizer and layers for it."""
    pairs = zip(settings, found, strict=True)
    return [one for member, one in pairs if member.lends and OWN_TOKENS not in one]


def said_beforehand(panel: Sequence[dict[str, Any]] | None) -> bool:
    """Whether there is a panel, and all of it says what it says of the rows before the student learns."""
    return bool(panel) and all(OWN_TOKENS in one or "provider" in one for one in panel or [])


def _member(
    member: Member, number: int, task: str, reader: dict[str, Any] | None, watch: Watch
) -> dict[str, Any]:
    """One of a panel, as `fetched` has it; with "provider" (None: past answers) if it is not on this machine, and with
    `OWN_TOKENS` for a classifier whose tokenizer is not that of `reader`."""
    if member.api is not None:
        url = member.api.base_url
        provider = None if url is None else urlsplit(url).hostname
        name = member.api.model
        return {
            "folder": None, "identity": f"api:{name}", "licence": None, "name": name, "provider": provider
        }  # fmt: skip
    if member.zero_shot is not None:
        return _namer(member, f"teacher.panel[{number}].zero_shot", watch)
    found = fetched(str(member.model), member, task, watch)
    assert reader is not None
    why = same_tokenizer(load_tokenizer(Path(found["folder"])), load_tokenizer(Path(reader["folder"])))
    if why is None:
        return found
    if task != "classification":
        raise RecipeError(
            f"teacher.panel: the tokenizer of {member.model} is not the first member's ({why}); members must share it."
        )
    watch.note(
        f"  {member.called}: its tokenizer is not the student's ({why}); it reads every row in its own, once"
    )
    return {**found, OWN_TOKENS: True}


def _auto_class(task: str) -> str:
    return str(pick(TASKS, task, "task").auto_class)


def _name(source: str, path: Path) -> str:
    """What people call a model: its repository, its package, its file."""
    if source.startswith("pypi:") and path.is_dir():
        return source.removeprefix("pypi:").partition("==")[0]
    if Path(source).exists() or source.startswith("pypi:"):
        return path.stem if path.is_file() else path.name
    return source.removeprefix("hub:")


def dtype_name(wanted: str, facts: dict[str, Any]) -> str:
    """ "auto" as it was decided when the run was prepared: a run must not change its arithmetic when it goes on."""
    return ("bfloat16" if facts["bfloat16"] else "float32") if wanted == "auto" else wanted


def _decided(place: Path) -> bool:
    """Whether bfloat16 is used where the recipe says auto: measured once a run, for a busy machine may answer otherwise."""
    kept = place.parent / "machine.json"
    if not kept.exists():
        write_json(kept, {"bfloat16": bfloat16_pays()})
    return bool(read_json(kept)["bfloat16"])

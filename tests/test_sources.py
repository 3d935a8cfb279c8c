"""sources/: what is asked for is what one gets, or a sentence says why not.  Real pip, no network."""

import base64
import hashlib
import json
import os
import shutil
import stat
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import stillhouse
from stillhouse.errors import DataError, RecipeError, ResourceError, TeacherError
from stillhouse.files import hash_file
from stillhouse.sources import cache_dir, check, pypi, resolve
from stillhouse.sources.licence import card_licence, package_licence
from stillhouse.sources.wheel import unpack

ZEROS = "0" * 64
ROWS = "text,label\ngood,1\nbad,0\n"


@pytest.fixture(autouse=True)
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that pip takes packages from, and an empty cache; nothing else is in reach."""
    folder = tmp_path / "index"
    folder.mkdir()
    for name in [name for name in os.environ if name.startswith(("PIP_", "HF_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("STILLHOUSE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("PYTHONPATH", str(Path(stillhouse.__file__).parents[1]))
    monkeypatch.chdir(tmp_path)
    return folder


def build_wheel(
    folder: Path, files: dict[str, str], version: str = "1.0", metadata: str = "License: MIT\n"
) -> Path:
    """A wheel of the package toy-pack that pip takes for real."""
    info = f"toy_pack-{version}.dist-info"
    about = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: toy-pack\nVersion: {version}\n{metadata}",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/LICENSE": "Do what you like.",
    }
    lines = []
    path = folder / f"toy_pack-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in {**files, **about}.items():
            archive.writestr(name, text)
            digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
            lines.append(f"{name},sha256={digest},{len(text)}\n")
        archive.writestr(f"{info}/RECORD", "".join(lines) + f"{info}/RECORD,,\n")
    return path


def files_below(folder: Path) -> list[str]:
    return sorted(
        p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file() and p.name != ".lock"
    )


PACK = {
    "toy_pack/__init__.py": "raise SystemExit('executed')\n",
    "toy_pack/data/rows.csv": ROWS,
    "toy_pack/data/more/notes.txt": "x",
}
CSV = "pypi:toy-pack==1.0:toy_pack/data/rows.csv"


@pytest.fixture(scope="module")
def fetched_once(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """An index and the cache after CSV was taken from it; pip takes most of a second."""
    root = tmp_path_factory.mktemp("once")
    pin = hash_file(build_wheel(root, PACK))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PIP_CONFIG_FILE", os.devnull)
        patch.setenv("PIP_NO_INDEX", "1")
        patch.setenv("PIP_FIND_LINKS", str(root))
        patch.setenv("STILLHOUSE_CACHE", str(root / "cache"))
        resolve(CSV, sha256=pin, kind="data")
    return next(root.glob("*.whl")), root / "cache"


@pytest.fixture
def pin(fetched_once: tuple[Path, Path], index: Path) -> str:
    """The sum of a wheel that lies in the index and in the cache."""
    wheel, cache = fetched_once
    shutil.copy(wheel, index)
    shutil.copytree(cache, cache_dir())
    return hash_file(wheel)


# a wheel from pip


def test_a_file_in_a_wheel_arrives_whole_with_its_identity_and_licence(index: Path, tmp_path: Path) -> None:
    (tmp_path / "pip.py").write_text("raise SystemExit('a stranger in the working directory was run as pip')")
    pin = hash_file(build_wheel(index, PACK))
    local = resolve(CSV, sha256=pin, kind="data")
    assert local.path.read_text() == ROWS
    assert local.identity == f"{CSV} sha256={pin}"
    assert local.licence == "MIT"
    assert stat.S_IMODE(local.path.stat().st_mode) == 0o644


def test_only_what_was_asked_for_is_unpacked(tmp_path: Path) -> None:
    unpack(build_wheel(tmp_path, PACK), "toy_pack/data", tmp_path / "into", "data")
    assert files_below(tmp_path / "into") == [
        "toy_pack-1.0.dist-info/LICENSE",
        "toy_pack-1.0.dist-info/METADATA",
        "toy_pack/data/more/notes.txt",
        "toy_pack/data/rows.csv",
    ]


def test_the_second_time_pip_is_not_called(pin: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/there/is/no/python")
    assert resolve(CSV, sha256=pin, kind="data").path.read_text() == ROWS
    assert (
        resolve(CSV.replace("toy-pack", "Toy_Pack"), sha256=pin.upper(), kind="data").path.read_text() == ROWS
    )


def test_a_damaged_cache_is_mended_and_what_a_killed_download_left_is_swept(
    pin: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    local = resolve(CSV, sha256=pin, kind="data")
    local.path.write_text(ROWS.replace("good", "evil"))
    killed = cache_dir() / "pypi" / f"toy-pack-1.0-{pin[:12]}" / ".download.x.part"
    killed.mkdir()
    (killed / "half.whl").write_text("half")
    monkeypatch.setattr(pypi, "SECONDS", 0.05)
    said: list[str] = []
    assert resolve(CSV, sha256=pin, kind="data", progress=said.append) == local
    assert local.path.read_text() == ROWS
    assert not killed.exists()
    assert any("rows.csv" in line and "fetching it again" in line for line in said)
    assert any("MB so far" in line for line in said)


def test_another_sum_than_the_pinned_one_keeps_nothing(index: Path) -> None:
    pin = hash_file(build_wheel(index, PACK))
    with pytest.raises(TeacherError, match=f"(?s){pin}.*{ZEROS}") as caught:
        resolve(CSV, sha256=ZEROS, kind="data")
    assert caught.value.exit_code == 4
    assert files_below(cache_dir()) == []


def test_a_wheel_replaced_under_the_same_version_is_not_served_from_the_cache(index: Path, pin: str) -> None:
    new = hash_file(build_wheel(index, {**PACK, "toy_pack/data/rows.csv": ROWS * 2}))
    assert resolve(CSV, sha256=new, kind="data").path.read_text() == ROWS * 2
    assert resolve(CSV, sha256=pin, kind="data").path.read_text() == ROWS


def test_two_processes_at_once_both_end_well_and_download_once(index: Path) -> None:
    pin = hash_file(build_wheel(index, PACK))
    code = (
        "from stillhouse.sources import resolve\n"
        f"print(resolve({CSV!r}, sha256={pin!r}, kind='data', progress=print).path)"
    )
    both = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    printed = [process.communicate(timeout=60)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert "".join(printed).count("downloading") == 1
    assert len({text.splitlines()[-1] for text in printed}) == 1


def test_a_version_that_is_not_there_is_told_in_pips_own_words(index: Path) -> None:
    build_wheel(index, PACK)
    with pytest.raises(TeacherError, match=r"from versions: 1\.0") as caught:
        resolve("pypi:toy-pack==2.0:x", sha256=ZEROS, kind="model")
    assert "\n" not in str(caught.value)


def test_an_index_out_of_reach_is_not_taken_for_a_missing_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", "http://user:secret@127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")
    with pytest.raises(TeacherError, match="index cannot be reached") as caught:
        resolve(CSV, sha256=ZEROS, kind="data")
    assert "secret" not in str(caught.value)


def test_an_environment_without_pip_is_named_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(bare)], check=True)
    monkeypatch.setattr(sys, "executable", str(bare / "bin" / "python"))
    with pytest.raises(TeacherError, match="ensurepip"):
        resolve(CSV, sha256=ZEROS, kind="data")


def test_a_cache_that_cannot_be_written_is_named_with_the_variable(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file, not a folder")
    with pytest.raises(ResourceError, match="STILLHOUSE_CACHE"):
        resolve(CSV, sha256=ZEROS, kind="data")


@pytest.mark.parametrize(
    ("inside", "hint"),
    [
        ("rows.csv", "Did you mean 'toy_pack/data/rows.csv'"),
        ("toy_pack/dat", "'toy_pack/data'"),
        ("zzz", "It holds: toy_pack."),
        ("toy_pack/data/rows", "rows.csv"),
    ],
)
def test_a_wrong_path_inside_shows_what_is_near(index: Path, inside: str, hint: str) -> None:
    wheel = build_wheel(index, PACK)
    for kind, error in (("data", DataError), ("model", RecipeError)):
        with pytest.raises(error, match=r"^toy_pack.*has no") as caught:
            unpack(wheel, inside, index / kind, kind)  # type: ignore[arg-type]
        assert hint in str(caught.value)
        assert not (index / kind).exists()


# a wheel that means harm


def entry(name: str, mode: int = 0, text: str = "x", flags: int = 0) -> tuple[zipfile.ZipInfo, str]:
    info = zipfile.ZipInfo("placeholder")
    info.filename = name
    info.external_attr = mode << 16
    info.flag_bits = flags
    return info, text


def harmful_wheel(folder: Path, *entries: tuple[zipfile.ZipInfo, str]) -> Path:
    path = build_wheel(folder, PACK)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        for info, text in entries:
            archive.writestr(info, text)
    return path


HARMFUL = {
    "leaves its folder": [entry("toy_pack/../../../escaped")],
    "absolute": [entry("/tmp/stillhouse-escaped")],
    "backslash": [entry("..\\escaped")],
    "drive letter": [entry("C:/escaped")],
    "symbolic link": [entry("toy_pack/link", stat.S_IFLNK | 0o777, "/etc/passwd")],
    "no regular file": [entry("toy_pack/device", stat.S_IFCHR | 0o666)],
    "there twice": [entry("toy_pack/data/ROWS.csv")],
    "a file and a folder": [entry("toy_pack/data")],
    "no file should have": [entry("toy_pack/a\nb")],
}


@pytest.mark.parametrize("why", HARMFUL)
def test_a_harmful_entry_refuses_the_wheel_before_anything_is_written(tmp_path: Path, why: str) -> None:
    wheel = harmful_wheel(tmp_path, *HARMFUL[why])
    before = files_below(tmp_path)
    with pytest.raises(TeacherError, match=why):
        unpack(wheel, "toy_pack", tmp_path / "deep" / "er" / "into", "data")
    assert files_below(tmp_path) == before
    assert not Path("/tmp/stillhouse-escaped").exists()


def test_an_encrypted_entry_is_refused(tmp_path: Path) -> None:
    wheel = build_wheel(tmp_path, PACK)
    data = bytearray(wheel.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1  # the flag in the first entry of the central directory
    wheel.write_bytes(bytes(data))
    with pytest.raises(TeacherError, match="encrypted"):
        unpack(wheel, "toy_pack", tmp_path / "into", "data")


def declare(wheel: Path, size: int) -> None:
    """Make the first entry say that it unpacks to `size` bytes."""
    data = bytearray(wheel.read_bytes())
    at = data.index(b"PK\x01\x02") + 24
    data[at : at + 4] = size.to_bytes(4, "little")
    wheel.write_bytes(bytes(data))


def test_a_bomb_is_refused_by_what_it_declares(tmp_path: Path) -> None:
    wheel = build_wheel(tmp_path, PACK)
    declare(wheel, 2**31)
    with pytest.raises(TeacherError, match="would unpack to 2,147,"):
        unpack(wheel, "toy_pack", tmp_path / "into", "data")
    assert not (tmp_path / "into").exists()


def test_an_entry_that_is_longer_than_it_declares_is_damaged(tmp_path: Path) -> None:
    wheel = build_wheel(tmp_path, {"toy_pack/rows.csv": ROWS * 100})
    declare(wheel, 10)
    with pytest.raises(TeacherError, match="not a readable wheel"):
        unpack(wheel, "toy_pack", tmp_path / "into", "data")
    assert all(path.stat().st_size <= 10 for path in (tmp_path / "into" / "toy_pack").glob("*"))


def test_a_harmful_wheel_from_pip_leaves_an_empty_cache(index: Path, tmp_path: Path) -> None:
    pin = hash_file(harmful_wheel(index, *HARMFUL["leaves its folder"]))
    with pytest.raises(TeacherError, match="refused"):
        resolve(CSV, sha256=pin, kind="data")
    assert files_below(cache_dir()) == []
    assert not list(tmp_path.rglob("escaped"))


# the string


@pytest.mark.parametrize(
    "source",
    [
        "pypi:--index-url=x==1.0:a",
        "pypi:-r==1.0:a",
        "pypi:a b==1.0:a",
        "pypi:a==1.*:a",
        "pypi:a>=1:a",
        "pypi:a==:a",
        "pypi:a==1.0 --pre:a",
        "pypi:a==1.0",
        "pypi:a==1.0:",
        "pypi:a==1.0:../b",
        "pypi:a==1.0:/b",
        "pypi:a==1.0:b//c",
        "pypi:a==1.0:b\\c",
        "pypi:a[x]==1.0:b",
        "pypi:a==1.0\n:b",
        "hub:alone",
        "hub:a/b/c",
        "hub:-a/b",
        "hub:a/..b",
        "",
        " a",
        "a\0b",
    ],
)
def test_a_malformed_source_never_reaches_pip_or_the_hub(source: str) -> None:
    sha256 = None if source.startswith("hub:") else ZEROS
    with pytest.raises(RecipeError):
        check(source, sha256=sha256, kind="model")


@pytest.mark.parametrize(
    "version", ["1", "0.1.2", "2024.01.05", "1.0rc1", "1.0.post2", "1.0.dev3", "1!2.0", "1.0+cpu.1"]
)
def test_every_ordinary_version_is_taken(version: str) -> None:
    assert check(f"pypi:toy-pack=={version}:a", sha256=ZEROS, kind="model")


def test_a_wheel_without_its_sum_is_refused_with_the_command_that_shows_it() -> None:
    with pytest.raises(RecipeError, match=r"sha256 is missing.*pip download.*toy-pack==1.0.*pip hash"):
        check(CSV, kind="data")


def test_a_pin_that_would_have_no_effect_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "config.json").write_text("{}")
    for source, pins in [
        (CSV, {"sha256": ZEROS, "revision": "main"}),
        ("hub:a/b", {"sha256": ZEROS}),
        ("m", {"sha256": ZEROS}),
        ("m", {"revision": "main"}),
    ]:
        with pytest.raises(RecipeError, match="has no meaning here"):
            check(source, kind="model", sha256=pins.get("sha256"), revision=pins.get("revision"))


def test_an_unknown_scheme_is_no_local_path() -> None:
    with pytest.raises(RecipeError, match="Did you mean 'pypi'"):
        check("pip:a==1.0:b", kind="model")


# a path on this disk


def test_a_local_path_is_looked_for_beside_the_recipe_first(tmp_path: Path) -> None:
    for folder in ("recipe", "."):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / "a.csv").write_text(folder)
    (tmp_path / "only_here.csv").write_text("x")
    base = tmp_path / "recipe"
    assert resolve("a.csv", base=base, kind="data").path == base / "a.csv"
    assert resolve("only_here.csv", base=base, kind="data").path == tmp_path / "only_here.csv"


def test_a_local_identity_follows_the_content_and_not_the_place(tmp_path: Path) -> None:
    for name, text in (("a", "1"), ("b", "1"), ("c", "2")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(text)
    a, b, c = (resolve(name, kind="model").identity for name in "abc")
    assert a == b != c
    assert a.startswith("folder:")
    assert resolve("a/config.json", kind="data").identity == f"file:{hashlib.sha256(b'1').hexdigest()}"


def test_a_local_file_with_another_sum_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(ROWS)
    right = hashlib.sha256(ROWS.encode()).hexdigest()
    assert resolve("a.csv", sha256=right, kind="data").identity == f"file:{right}"
    with pytest.raises(DataError, match=f"(?s){right}.*{ZEROS}"):
        resolve("a.csv", sha256=ZEROS, kind="data")


def test_a_missing_path_names_its_nearest_sibling(tmp_path: Path) -> None:
    (tmp_path / "reviews.csv").write_text(ROWS)
    with pytest.raises(DataError, match="Did you mean 'reviews.csv'"):
        check("review.csv", kind="data")
    with pytest.raises(RecipeError, match=r"Did you mean 'reviews.csv'"):
        check("./reviws.csv", kind="model")
    with pytest.raises(RecipeError, match="OWNER/NAME"):
        check("no/such/folder/x.gguf", kind="model")


def test_an_empty_folder_is_not_a_model(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    with pytest.raises(RecipeError, match="empty"):
        resolve("m", kind="model")


def test_a_gguf_file_is_returned_as_it_is_with_its_cards_licence(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    (tmp_path / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    local = resolve("m.gguf", kind="model")
    assert (local.path, local.licence) == (tmp_path / "m.gguf", "apache-2.0")


# the licence


@pytest.mark.parametrize(
    ("metadata", "licence"),
    [
        ("License-Expression: MIT\nLicense: other\n", "MIT"),
        ("License: BSD\n", "BSD"),
        ("License: UNKNOWN\n", None),
        ("", None),
        (
            "License: A text\n  of many lines\nClassifier: License :: OSI Approved :: MIT License\n",
            "MIT License",
        ),
        (
            "Classifier: License :: OSI Approved\nClassifier: License :: A\nClassifier: License :: B\n",
            "A / B",
        ),
    ],
)
def test_a_packages_licence_is_the_first_that_it_states(
    tmp_path: Path, metadata: str, licence: str | None
) -> None:
    (tmp_path / "METADATA").write_text(f"Name: a\n{metadata}\nLicense: in the text\n")
    assert package_licence(tmp_path / "METADATA") == licence


@pytest.mark.parametrize(
    ("front", "licence"),
    [
        ("license: mit", "mit"),
        ('license: "mit"  # really', "mit"),
        ("tags: [x\nlicense: mit", "mit"),
        ("tags: []", None),
        ("license:\n- mit\n- cc-by-4.0\ntags:\n- x", "mit / cc-by-4.0"),
        ("license: [mit, bsd]", "mit / bsd"),
        ("license: other\nlicense_name: gemma", "gemma"),
        ("license: other", "other"),
        ("license:", None),
    ],
)
def test_a_cards_licence_is_read_from_its_front_matter_only(
    tmp_path: Path, front: str, licence: str | None
) -> None:
    (tmp_path / "README.md").write_text(f"---\n{front}\n---\nlicense: in the text\n")
    assert card_licence(tmp_path) == licence


# check


def test_check_is_quick_asks_nobody_and_says_what_a_run_would_fetch(
    pin: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = time.perf_counter()
    assert check(CSV, sha256=pin, kind="data") == [f"{CSV}: is in the cache."]
    assert check(CSV, sha256=ZEROS, kind="data") == [f"{CSV}: would be downloaded by pip."]
    assert "would be fetched" in check("owner/name", revision="main", kind="model")[0]
    assert any("pin a commit" in note for note in check("hub:owner/name", kind="data"))
    assert time.perf_counter() - start < 0.1
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert any("HF_HUB_OFFLINE" in note for note in check("hub:owner/name", revision="main", kind="data"))


def test_a_data_set_of_the_hub_must_say_so() -> None:
    with pytest.raises(DataError, match="hub:OWNER/NAME"):
        check("owner/name", kind="data")


def test_checking_imports_neither_the_hub_client_nor_torch() -> None:
    code = (
        "import sys; from stillhouse.sources import check; check('a/b', kind='model'); "
        "print([name for name in ('huggingface_hub', 'torch', 'pip') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_the_cache_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STILLHOUSE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_dir() == tmp_path / "stillhouse"
    monkeypatch.setenv("XDG_CACHE_HOME", "not/absolute")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_dir() == tmp_path / ".cache" / "stillhouse"


# the hub, played by a server on this machine

COMMIT = "c0ffee" + "0" * 34
SAFE = {"model.safetensors": b"weights", "config.json": b"{}", "README.md": b"---\nlicense: mit\n---\n"}
UNSAFE = {"pytorch_model.bin": b"pickle", "modeling.py": b"code", "fp16/model.safetensors": b"again"}


def blob_id(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class FakeHub(BaseHTTPRequestHandler):
    """As much of the hub's protocol as a snapshot needs."""

    repositories: dict[str, dict[str, bytes]] = {}
    asked: list[str] = []

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.asked.append(f"{self.command} {path}")
        for repository, files in self.repositories.items():
            kind, _, plain = repository.partition("/")
            prefix = "/" if kind == "models" else f"/{kind}/"
            if path in (f"/api/{repository}/revision/main", f"/api/{repository}"):
                return self.answer(json.dumps({"id": plain, "sha": COMMIT, "siblings": []}).encode())
            if path == f"/api/{repository}/tree/{COMMIT}":
                tree = [
                    {"type": "file", "path": n, "size": len(c), "oid": blob_id(c)} for n, c in files.items()
                ]
                return self.answer(json.dumps(tree).encode())
            name = path.removeprefix(f"{prefix}{plain}/resolve/{COMMIT}/")
            if name in files:
                return self.answer(
                    files[name], {"ETag": f'"{blob_id(files[name])}"', "X-Repo-Commit": COMMIT}
                )
        exists = any(path.startswith(f"/api/{repository}/") for repository in self.repositories)
        code = "RevisionNotFound" if exists else "RepoNotFound"
        return self.answer(b"{}", {"X-Error-Code": code}, status=404)

    def answer(self, body: bytes, headers: dict[str, str] | None = None, status: int = 200) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None: ...


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[FakeHub]]:
    FakeHub.repositories = {
        "models/owner/name": {**SAFE, **UNSAFE},
        "models/owner/pickles": {"pytorch_model.bin": b"pickle", "config.json": b"{}"},
        "datasets/owner/rows": {"train.csv": ROWS.encode(), "script.py": b"code"},
    }
    FakeHub.asked = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), FakeHub)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    yield FakeHub
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_hub_model_comes_without_pickles_code_and_second_copies(hub: type[FakeHub]) -> None:
    local = resolve("owner/name", kind="model")
    assert files_below(local.path) == sorted(SAFE)
    assert local.identity == f"hub:owner/name@{COMMIT}"
    assert local.licence == "mit"
    assert not any(name in line for name in UNSAFE for line in hub.asked)


def test_a_hub_data_set_is_asked_for_as_one(hub: type[FakeHub]) -> None:
    local = resolve("hub:owner/rows", kind="data")
    assert files_below(local.path) == ["train.csv"]
    assert (local.path / "train.csv").read_text() == ROWS


def test_a_cached_commit_needs_no_hub(hub: type[FakeHub], monkeypatch: pytest.MonkeyPatch) -> None:
    first = resolve("hub:owner/name", kind="model")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert resolve("hub:owner/name", revision=COMMIT, kind="model") == first
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    hub.asked.clear()
    assert resolve("hub:owner/name", kind="model") == first
    assert hub.asked == []


def test_a_damaged_hub_file_is_found_and_mended(hub: type[FakeHub]) -> None:
    local = resolve("hub:owner/name", kind="model")
    (local.path / "model.safetensors").resolve().write_bytes(b"weighty")
    said: list[str] = []
    assert resolve("hub:owner/name", kind="model", progress=said.append) == local
    assert (local.path / "model.safetensors").read_bytes() == b"weights"
    assert any("model.safetensors" in line and "again" in line for line in said)


def test_a_damaged_hub_file_is_not_used_when_it_cannot_be_mended(
    hub: type[FakeHub], monkeypatch: pytest.MonkeyPatch
) -> None:
    local = resolve("hub:owner/name", kind="model")
    (local.path / "model.safetensors").resolve().write_bytes(b"weighty")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(TeacherError, match="model.safetensors does not have the content"):
        resolve("hub:owner/name", kind="model")


@pytest.mark.parametrize(
    ("source", "revision", "sentence"),
    [
        ("hub:owner/pickles", None, r"no \*\.safetensors"),
        ("hub:owner/nobody", None, "no such repository"),
        ("hub:owner/name", "v9", "no such revision"),
    ],
)
def test_what_the_hub_does_not_have_is_told_in_one_sentence(
    hub: type[FakeHub], source: str, revision: str | None, sentence: str
) -> None:
    with pytest.raises(TeacherError, match=sentence) as caught:
        resolve(source, revision=revision, kind="model")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("offline", "remedy"), [("", "HF_ENDPOINT"), ("1", "HF_HUB_OFFLINE")])
def test_a_hub_out_of_reach_is_told_with_the_remedies(
    offline: str, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", offline)
    with pytest.raises(TeacherError, match=remedy) as caught:
        resolve("owner/name", kind="model")
    assert "pypi:" in str(caught.value)
    assert "local folder" in str(caught.value)
    assert "\n" not in str(caught.value)

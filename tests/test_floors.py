"""The house keeps its shape: imports go down only, light parts stay light, and nothing unsafe gets in."""

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest

SRC = Path(__file__).parents[1] / "src" / "stillhouse"
FLOORS = (
    {"errors"},
    {"registry", "files", "progress", "seeds", "stopping", "ranks", "held_out", "reference"},
    {"recipe", "losses", "measure", "report", "shipped", "locks"},
    {"sources", "pipeline", "asking", "kept", "harness_files"},
    {"data", "models"},
    {"static_data"},
    {"tasks", "static", "finished", "store"},
    {"latency"},
    {"teachers", "cost", "objectives", "scaffold", "compare"},
    {"train", "samples", "gates", "evidence", "answers", "harness", "probe", "memorisation", "judge"},
    {"evaluate"},
    {"blackbox", "baselines"},
    {"steps"},
    {"stages"},
    {"runstate", "forecast"},
    {"plans"},
    {"runner", "doctor"},
    {"cli"},
    {"__main__"},
)
LEVEL = {name: number for number, floor in enumerate(FLOORS) for name in floor}
FILES = sorted(path for path in SRC.rglob("*.py") if path != SRC / "__init__.py")
UNSAFE = ("pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal")


def part(path: Path) -> str:
    """The part of the house that a file belongs to."""
    return path.relative_to(SRC).parts[0].removesuffix(".py")


def imported(path: Path) -> Iterator[tuple[str, int]]:
    """(dotted module, line) of each import, inside functions too, relative ones made absolute."""
    package = ["stillhouse", *path.relative_to(SRC).with_suffix("").parts]
    if package[-1] == "__init__":
        package.append("")
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for name in node.names:
                yield name.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: -node.level]) if node.level else ""
            module = ".".join(piece for piece in (base, node.module or "") if piece)
            if module == "stillhouse":  # from .. import sources, __version__
                for name in node.names:
                    yield f"stillhouse.{name.name}", node.lineno
            else:
                yield module, node.lineno


def test_every_part_has_a_floor() -> None:
    assert {part(path) for path in FILES} == set(LEVEL)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(SRC).as_posix())
def test_imports_go_down_only(path: Path) -> None:
    mine = part(path)
    for module, line in imported(path):
        if not module.startswith("stillhouse."):
            continue
        theirs = module.split(".")[1]
        if theirs == mine or theirs not in LEVEL:  # a name of the package itself, such as __version__
            continue
        assert LEVEL[theirs] < LEVEL[mine], (
            f"{path.relative_to(SRC)}:{line} imports {theirs}, which is not below {mine}"
        )


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(SRC).as_posix())
def test_imports_within_the_package_are_relative(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and not node.level:
            assert not (node.module or "").startswith("stillhouse"), f"{path}:{node.lineno}"


def outside(name: str) -> set[str]:
    """Top-level packages, other than the standard library's and our own, that a part imports."""
    import sys

    found = {module.split(".")[0] for path in FILES if part(path) == name for module, _ in imported(path)}
    return found - set(sys.stdlib_module_names) - {"stillhouse"}


def test_light_parts_import_nothing_heavy() -> None:
    assert outside("recipe") <= {"pydantic", "yaml"}
    assert outside("measure") <= {"numpy"}
    assert outside("losses") <= {"torch", "triton"}, "triton comes with torch, where there are kernels"
    assert outside("cli") <= {"typer", "rich", "transformers"}, "transformers inside a command only"
    for name in (
        "errors",
        "registry",
        "files",
        "runstate",
        "static",
        "static_data",
        "scaffold",
        "shipped",
        "stopping",
        "asking",
    ):
        assert not outside(name) & {"torch", "transformers"}, name


def test_every_name_in_all_exists() -> None:
    for path in [SRC / "__init__.py", *FILES]:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            targets = node.targets if isinstance(node, ast.Assign) else []
            if any(isinstance(target, ast.Name) and target.id == "__all__" for target in targets):
                dotted = ".".join(["stillhouse", *path.relative_to(SRC).with_suffix("").parts]).removesuffix(
                    ".__init__"
                )
                module = importlib.import_module(dotted)
                missing = [name for name in module.__all__ if not hasattr(module, name)]
                assert not missing, f"{dotted}: {missing}"


def test_the_order_that_status_shows_is_the_order_of_the_stages() -> None:
    from stillhouse.runstate import ORDER
    from stillhouse.stages import STAGES

    assert tuple(stage.name for stage in STAGES) == ORDER


def test_a_stage_names_only_earlier_stages() -> None:
    from stillhouse.stages import STAGES

    names = [stage.name for stage in STAGES]
    for number, stage in enumerate(STAGES):
        assert {path.partition(".")[0] for path in stage.after} <= set(names[:number]), stage.name


@pytest.mark.parametrize(
    "path", [SRC / "__init__.py", *FILES], ids=lambda path: path.relative_to(SRC).as_posix()
)
def test_no_file_outgrows_a_reader(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


@pytest.mark.parametrize(
    "path", [SRC / "__init__.py", *FILES], ids=lambda path: path.relative_to(SRC).as_posix()
)
def test_nothing_unsafe_gets_in(path: Path) -> None:
    """No pickles, no code of others, no shell: read from the syntax, so that comments may speak of them."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for module, line in imported(path):
        assert module.split(".")[0] not in UNSAFE, f"{path.name}:{line} imports {module}"
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        assert called not in (
            "eval",
            "exec",
            "torch.load",
            "torch.save",
            "os.system",
            "yaml.load",
            "__import__",
        ), f"{path.name}:{node.lineno}"
        for word in node.keywords:
            true = isinstance(word.value, ast.Constant) and word.value.value is True
            assert not (word.arg in ("trust_remote_code", "shell", "allow_pickle") and true), (
                f"{path.name}:{node.lineno}"
            )
            assert not (word.arg == "weights_only" and not true), f"{path.name}:{node.lineno}"

"""The command line as a user, a log file and a script meet it."""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import tiny
from conftest import Finished
from stillhouse.data.detect import detect
from stillhouse.errors import DataError, GateError
from stillhouse.recipe import parse_recipe
from stillhouse.steps.finish import check_gate
from typed import ENVIRONMENT, process, start, stillhouse, write_recipe

COMMANDS = ("ls", "cp", "init", "validate", "plan", "run", "status", "report", "doctor", "schema")
HEAVY = ("torch", "transformers", "datasets", "accelerate", "matplotlib", "pandas")
LIGHT = """
import sys
from stillhouse.cli import main
try:
    main()
finally:
    print([m for m in {heavy} if m in sys.modules], file=sys.stderr)
"""
QUICK = """
from stillhouse.steps import paces
from stillhouse import cost, latency
paces.SECONDS, latency.MOST, latency.NEW_TOKENS, cost.fresh_peak = 0.01, 1, 3, lambda *_: 1
from stillhouse.cli import main
main()
"""
ESCAPE = "\x1b["


@pytest.fixture
def copied(finished: Finished, tmp_path: Path) -> Path:
    """A copy of the finished run."""
    return Path(shutil.copytree(finished.folder, tmp_path / "run"))


# ── help, and what it costs ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("word", ["--help", "-h"])
def test_help_names_every_command(word: str) -> None:
    said = stillhouse(word)
    assert said.code == 0
    assert said.err == ""
    assert all(re.search(rf"^\s+{command}\b", said.out, re.MULTILINE) for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_says_what_it_does(command: str) -> None:
    said = stillhouse(command, "-h")
    assert said.code == 0
    assert "Usage: stillhouse" in said.out
    assert "--help" in said.out


def test_nothing_typed_is_answered_with_help_and_code_2() -> None:
    said = stillhouse()
    assert said.code == 2
    assert said.err.startswith("Usage:")


def test_version() -> None:
    said = stillhouse("--version")
    assert said.code == 0
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*\n", said.out)


def test_commands_that_only_look_never_import_torch(finished: Finished, tmp_path: Path) -> None:
    """An import of torch and transformers costs seconds, and --help must not."""
    teacher, data = finished.inputs / "teacher", finished.inputs / "text.jsonl"
    script = LIGHT.format(heavy=HEAVY)
    for words in (
        ["--help"], ["run", "--help"], ["validate", finished.recipe], ["ls"], ["schema"], ["cp", "sentiment", tmp_path / "a.yaml"],
        ["init", "--task", "text", "--teacher", teacher, "--data", data, "--out", tmp_path / "b.yaml"],
        ["status", finished.folder], ["report", finished.folder], ["validate", tmp_path / "none.yaml"],
    ):  # fmt: skip
        assert process(*words, script=script).err.splitlines()[-1] == "[]", words


def test_importing_the_package_imports_nothing_heavy() -> None:
    said = process(
        script=f"import sys, stillhouse, stillhouse.recipe\nprint([m for m in {HEAVY} if m in sys.modules])"
    )
    assert said.out == "[]\n"


# ── JSON on standard output, and nothing else ───────────────────────────────────────────────────────────────────────


def test_every_json_answer_is_one_json_value(finished: Finished, tmp_path: Path) -> None:
    for words in (["ls"], ["validate", finished.recipe], ["status", finished.folder]):
        said = stillhouse(*words, "--format", "json")
        assert said.code == 0, said.err
        assert json.loads(said.out)
    assert json.loads(stillhouse("schema").out)["title"] == "Recipe"


def test_doctor_says_what_is_there_and_what_is_to_be_done() -> None:
    said = stillhouse("doctor", "--format", "json")
    checks = json.loads(said.out)["checks"]
    assert {"python", "torch", "transformers", "device", "disk", "memory", "cache"} <= {
        row["what"] for row in checks
    }
    assert all(row["remedy"] for row in checks if not row["ok"])
    assert said.code == (0 if all(row["ok"] for row in checks) else 5)


def test_run_as_json_gives_the_results_and_progress_as_json_lines(finished: Finished) -> None:
    results = json.loads(finished.said.out)
    assert results["name"] == "tiny"
    assert results["retention"]
    assert results == json.loads((finished.folder / "results.json").read_text()) | {
        "stages": results["stages"]
    }
    assert all(json.loads(line) for line in finished.said.err.splitlines())


def test_plan_as_json(finished: Finished, copied: Path) -> None:
    said = stillhouse("plan", finished.recipe, "--folder", copied, "--format", "json")
    found = json.loads(said.out)
    assert said.code == 0
    assert found["total_seconds"] > 0
    assert found["money"] == 0.0


def test_an_error_as_json(finished: Finished) -> None:
    for how in (["--format", "json"], ["--format=json"]):
        said = stillhouse("validate", finished.recipe, "--set", "train.stesp=1", *how)
        assert said.code == 2
        assert said.out == ""
        assert json.loads(said.err) == {"error": json.loads(said.err)["error"], "exit_code": 2}


# ── ls, cp, init, validate ──────────────────────────────────────────────────────────────────────────────────────────


def test_ls_shows_what_each_recipe_distils() -> None:
    said = stillhouse("ls")
    assert "quickstart" in said.out
    assert "takes" in said.out
    assert "reached" in said.out


def test_a_copied_recipe_is_named_after_its_file_and_loads(tmp_path: Path) -> None:
    from stillhouse.recipe import load_recipe

    listed = json.loads(stillhouse("ls", "--format", "json").out)
    assert listed
    for row in listed:
        said = stillhouse("cp", row["name"], tmp_path / f"{row['name']}-mine.yaml")
        assert said.code == 0
        assert "stillhouse validate" in said.out
        assert load_recipe(tmp_path / f"{row['name']}-mine.yaml").name == f"{row['name']}-mine"


@pytest.mark.parametrize("task", ["text", "chat", "seq2seq", "classification"])
def test_init_writes_a_recipe_that_is_valid(task: str, tmp_path: Path) -> None:
    if task == "classification":
        teacher, data = (
            tiny.save_classifier(tmp_path / "teacher"),
            tiny.labelled_file(tmp_path / "it's #1: rows.csv"),
        )
    elif task == "seq2seq":
        teacher, data = (
            tiny.save_translator(tmp_path / "teacher"),
            tiny.translation_file(tmp_path / "rows.jsonl"),
        )
    else:
        teacher = tiny.save_language_model(tmp_path / "teacher")
        data = (
            tiny.text_file(tmp_path / "rows.jsonl")
            if task == "text"
            else _conversations(tmp_path / "rows.jsonl")
        )
    out = tmp_path / "mine.yaml"
    said = stillhouse("init", "--task", task, "--teacher", teacher, "--data", data, "--out", out)
    assert said.code == 0, said.err
    said = stillhouse("validate", out)
    assert said.code == 0, said.err
    assert "valid" in said.out


def test_validate_names_what_it_found(finished: Finished) -> None:
    said = stillhouse("validate", finished.recipe)
    assert said.code == 0
    assert "text rows" in said.out
    assert said.out.endswith(f"{finished.recipe}: valid\n")


# ── status and report ───────────────────────────────────────────────────────────────────────────────────────────────


def test_status_of_a_finished_run(finished: Finished) -> None:
    found = json.loads(stillhouse("status", finished.folder, "--format", "json").out)
    assert found["next"] is None
    assert not found["locked"]
    assert all(row["state"] == "done" for row in found["stages"].values())
    assert "nothing: the run is finished" in stillhouse("status", finished.folder).out


def test_report_prints_where_the_page_is(finished: Finished) -> None:
    said = stillhouse("report", finished.folder)
    assert said.code == 0
    assert Path(said.out.strip()) == finished.folder / "report.html"


# ── run again, in parts, anew ───────────────────────────────────────────────────────────────────────────────────────


def _written(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("DONE.json")}


def test_the_second_run_does_nothing(finished: Finished, copied: Path) -> None:
    before = _written(copied)
    said = stillhouse("run", finished.recipe, "--folder", copied)
    assert said.code == 0
    assert _written(copied) == before
    assert "train" not in said.err, "no stage is announced"
    assert "what it costs to run" in said.out


def test_until_stops_and_the_same_command_without_it_goes_on(
    finished: Finished, tmp_path: Path, hurry: None
) -> None:
    folder = tmp_path / "run"
    said = stillhouse("run", finished.recipe, "--folder", folder, "--until", "label")
    assert said.code == 0
    assert "stopped after label" in said.out
    assert not (folder / "train").exists()
    state = json.loads(stillhouse("status", folder, "--format", "json").out)
    assert state["next"] == "train"
    assert state["stages"]["label"]["state"] == "done"
    before = _written(folder)
    said = stillhouse("run", finished.recipe, "--folder", folder)
    assert said.code == 0, said.err
    assert _written(folder).items() >= before.items()
    same = "student/model.safetensors"
    assert (folder / same).read_bytes() == (finished.folder / same).read_bytes(), (
        "stopping changed the student"
    )


def test_until_as_json_says_nothing_on_standard_output(finished: Finished, copied: Path) -> None:
    said = stillhouse("run", finished.recipe, "--folder", copied, "--until", "label", "--format", "json")
    assert said.code == 0
    assert said.out == ""


def test_only_runs_one_stage_and_needs_those_before_it(finished: Finished, copied: Path, hurry: None) -> None:
    shutil.rmtree(copied / "report")
    before = _written(copied)
    assert stillhouse("run", finished.recipe, "--folder", copied, "--only", "report").code == 0
    assert set(_written(copied)) - set(before) == {str(copied / "report" / "DONE.json")}
    shutil.rmtree(copied / "label")
    said = stillhouse("run", finished.recipe, "--folder", copied, "--only", "evaluate")
    assert said.code == 2
    assert "'label'" in said.err


def test_fresh_forgets_what_the_run_made_and_nothing_of_anybody_elses(
    finished: Finished, copied: Path, hurry: None
) -> None:
    (copied / "left-over.txt").write_text("x")
    said = stillhouse("run", finished.recipe, "--folder", copied, "--fresh", "--until", "plan")
    assert said.code == 0, said.err
    assert (copied / "left-over.txt").exists()
    assert not (copied / "label").exists()


def test_another_learning_rate_trains_again_and_never_asks_the_teacher_again(
    finished: Finished, copied: Path, hurry: None
) -> None:
    before = _written(copied)
    said = stillhouse(
        "run", finished.recipe, "--folder", copied, "--until", "train", "--set", "train.learning_rate=2e-3"
    )
    assert said.code == 0, said.err
    after = _written(copied)
    assert after[str(copied / "train" / "DONE.json")] != before[str(copied / "train" / "DONE.json")]
    assert after[str(copied / "label" / "DONE.json")] == before[str(copied / "label" / "DONE.json")]
    assert "positions/s" not in said.err


# ── gates ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_missed_gate_is_code_6_and_nothing_is_deleted(
    finished: Finished, copied: Path, hurry: None
) -> None:
    for _ in range(2):
        said = stillhouse("run", finished.recipe, "--folder", copied, "--set", "gate.min_gain=1e6")
        assert said.code == 6, said.err
        last = said.err.splitlines()[-1]
        assert last.startswith("error: gate.min_gain:")
        assert "1000000" in last
        assert "what it costs to run" in said.out, "the numbers are shown before the verdict"
    assert (copied / "results.json").exists()
    assert (copied / "student" / "model.safetensors").exists()


def test_a_kept_gate_is_code_0(finished: Finished, copied: Path, hurry: None) -> None:
    words = ["--set", "gate.min_gain=-1e6"]
    assert stillhouse("run", finished.recipe, "--folder", copied, *words).code == 0


def test_a_gate_does_not_let_pass_what_cannot_be_said(finished: Finished, copied: Path, hurry: None) -> None:
    """The tiny teacher is no better than its floor, so its student's retention is undefined, however large."""
    said = stillhouse("run", finished.recipe, "--folder", copied, "--set", "gate.min_retention=-1e6")
    assert said.code == 6
    assert "retention is undefined" in said.err


@pytest.mark.parametrize(("value", "passes"), [(0.95, True), (0.85, False)])
def test_a_retention_gate_compares_the_value(tmp_path: Path, value: float, passes: bool) -> None:
    recipe = parse_recipe(tiny.language_recipe(tmp_path, gate={"min_retention": 0.9}))
    found = {
        "metric": "accuracy",
        "retention": {"value": value, "low": value - 0.1, "high": 1.0, "note": None},
    }
    if passes:
        check_gate(recipe, found)
        return
    with pytest.raises(GateError, match=r"accuracy is 0\.8500, below 0\.9"):
        check_gate(recipe, found)


# ── how it looks ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_piped_output_has_no_escape_codes(finished: Finished, copied: Path) -> None:
    for words in (
        ["run", finished.recipe, "--folder", copied],
        ["status", copied],
        ["ls"],
        ["--help"],
        ["doctor"],
        ["nonsense"],
    ):
        said = process(*words) if words[0] in ("status", "nonsense") else stillhouse(*words)
        assert ESCAPE not in said.out + said.err, words


def test_no_color_is_honoured_on_a_terminal(finished: Finished) -> None:
    plain = _on_a_terminal(["status", str(finished.folder)], {"NO_COLOR": "1"})
    assert "prepare" in plain
    assert not re.search(r"\x1b\[[0-9;]*(3[0-7]|9[0-7])m", plain), "colours in spite of NO_COLOR"


def _on_a_terminal(words: list[str], more: dict[str, str]) -> str:
    """What a command prints to a terminal of its own."""
    ours, theirs = os.openpty()
    running = start(
        *words,
        stdout=theirs,
        stderr=theirs,
        stdin=theirs,
        env={**ENVIRONMENT, "TERM": "xterm-256color", **more},
    )
    os.close(theirs)
    said = b""
    while True:
        try:
            piece = os.read(ours, 4096)
        except OSError:
            break
        if not piece:
            break
        said += piece
    os.close(ours)
    assert running.wait(timeout=60) == 0
    return said.decode()


def test_a_reader_who_has_had_enough_causes_no_traceback() -> None:
    running = start("schema")
    assert running.stdout is not None
    assert running.stderr is not None
    running.stdout.close()
    error = running.stderr.read()
    running.wait(timeout=60)
    assert "Traceback" not in error
    assert "Exception" not in error


# ── stopping ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_run_says_so_keeps_its_state_and_goes_on(
    finished: Finished, tmp_path: Path, hurry: None, number: signal.Signals, code: int
) -> None:
    folder = tmp_path / "run"
    for done in ("prepare", "plan", "teacher", "initial"):
        shutil.copytree(finished.folder / done, folder / done)
    long = write_recipe(tmp_path / "long.yaml", _longer(finished))
    running = start("run", long, "--folder", folder, script=QUICK)
    _wait_for(lambda: any((folder / "train" / "checkpoints").glob("checkpoint-*")), running)
    running.send_signal(number)
    _, error = running.communicate(timeout=60)
    assert running.returncode == code, error
    assert "Traceback" not in error
    assert error.splitlines()[-1] == "stopped; what was done is kept. Run the same command to go on."
    state = json.loads(stillhouse("status", folder, "--format", "json").out)
    assert state["stages"]["label"]["state"] == "done"
    assert state["stages"]["train"]["state"] == "begun"
    assert state["stages"]["train"]["detail"].startswith("checkpoint at step")
    assert not state["locked"]
    if number == signal.SIGTERM:
        return  # going on is the same after both
    said = stillhouse("run", long, "--folder", folder, "--until", "train")
    assert said.code == 0, said.err
    assert "train: goes on" in said.err


def _longer(finished: Finished) -> dict[str, object]:
    import yaml

    values: dict[str, object] = yaml.safe_load(finished.recipe.read_text())
    train = values["train"]
    assert isinstance(train, dict)
    return {**values, "train": {**train, "steps": 200, "checkpoint_every": 20}}


def _wait_for(there: Callable[[], bool], running: "subprocess.Popen[str]") -> None:
    until = time.monotonic() + 120
    while not there():
        assert running.poll() is None, running.communicate()[1]
        assert time.monotonic() < until
        time.sleep(0.01)


def _conversations(path: Path) -> Path:
    rows = [
        {"messages": [{"role": "user", "content": f"what is {n}?"}, {"role": "assistant", "content": text}]}
        for n, text in enumerate(tiny.sentences(40))
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_a_recipe_begun_from_a_package_that_was_fetched_before_has_its_sum(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was written without the sum, and the next command that it named refused it."""
    monkeypatch.setenv("STILLHOUSE_CACHE", str(tmp_path / "cache"))
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"text": "a", "label": "x"}\n{"text": "b", "label": "y"}\n')
    source = "pypi:some-model==1.0:some_model/files"
    words = ("init", "--task", "classification", "--teacher", source, "--data", rows, "--out")
    assert "its config is not on this disk" in stillhouse(*words, tmp_path / "a.yaml").err
    assert stillhouse(*words, tmp_path / "b.yaml", "--layers", 1).code == 0
    assert "# sha256: …" in (tmp_path / "b.yaml").read_text()
    folder = tmp_path / "cache/pypi/some-model-1.0-abc/def"
    (folder / "wheel/some_model/files").mkdir(parents=True)
    (folder / "wheel/some_model/files/config.json").write_text('{"num_hidden_layers": 6}')
    (folder / "SOURCE.json").write_text(json.dumps({"source": source, "sha256": "ab" * 32}))
    assert stillhouse(*words, tmp_path / "c.yaml").code == 0
    written = (tmp_path / "c.yaml").read_text()
    assert f"  sha256: {'ab' * 32}" in written and "layers: 3" in written


def test_init_asks_for_no_longer_rows_than_the_models_read(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"text": "a"}\n')
    for name, config in {
        "long": {"model_type": "llama", "max_position_embeddings": 4096},
        "short": {"model_type": "llama", "max_position_embeddings": 200},
        "shorter": {"model_type": "roberta", "max_position_embeddings": 130, "pad_token_id": 1},
        "endless": {"model_type": "t5", "n_positions": 9},
    }.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps({"num_hidden_layers": 4, **config}))
    for number, (teacher, student, most) in enumerate(
        [
            ("long", None, 512), ("short", None, 200), ("long", "short", 200), ("short", "long", 200),
            ("short", "shorter", 128), ("endless", None, 512), ("owner/name", "short", 200),
        ]
    ):  # fmt: skip
        out = tmp_path / f"{number}.yaml"
        named = tmp_path / teacher if (tmp_path / teacher).exists() else teacher
        more = ("--student", tmp_path / student) if student else ()
        words = (
            "init",
            "--task",
            "text",
            "--teacher",
            named,
            "--data",
            tmp_path / "rows.jsonl",
            "--out",
            out,
        )
        assert stillhouse(*words, *more).code == 0
        assert f"max_length: {most}\n" in out.read_text()


def test_a_column_that_is_not_there_is_named_and_not_asked_for_again(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"text": "a", "label": "x"}\n')
    with pytest.raises(
        DataError, match="there is no column 'review' for text; the columns are 'text', 'label'"
    ):
        detect({"text": "a", "label": "x"}, {"text": "review"}, "classification")


def test_a_wrong_option_points_to_its_own_commands_help() -> None:
    said = stillhouse("init", "--task", "sumarize", "--teacher", "a", "--data", "b")
    assert said.code == 2 and "Try: stillhouse init --help" in said.err

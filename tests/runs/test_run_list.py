"""The table of runs says what became of each, and does not stumble over one that is damaged."""

import errno
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from made_run import MadeEvaluations, make_checkpoint, make_run, say_state, write_figures

from largede.cli import main
from largede.evaluation.watching.checkpoint_evaluation import CheckpointJob
from largede.runs.claims import Claim
from largede.runs.files import LOCK
from largede.runs.table import as_table, list_runs


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    for age, (name, state) in enumerate({"new": "finished", "old": "failed", "older": "stopped"}.items()):
        run = make_run(tmp_path / "group" / name, begun=1_700_000_000.0 - age)
        say_state(run, state, 80, "loss was nan" if state == "failed" else "")
        write_figures(run, 70, 3.0)
        write_figures(run, 80, 2.25)
    for name in ("alive", "dead"):
        say_state(make_run(tmp_path / name, begun=1.0), "running", 40)
    for step, value in ((20, 0.3), (40, 0.5), (60, 0.5), (80, 0.4)):
        name = make_checkpoint(tmp_path / "group" / "new", step)
        MadeEvaluations({step: value})(CheckpointJob(str(tmp_path / "group" / "new"), name, ()))
    (tmp_path / "group" / "new" / "figures.jsonl").open("ab").write(b'\xff\xfe\n12\n{"step": 90, "loss/con')
    (make_run(tmp_path / "broken") / "run.json").write_text("{")
    (tmp_path / "data").mkdir()
    return tmp_path


def test_every_run_is_listed_with_what_became_of_it(runs: Path) -> None:
    claim = Claim(runs / "alive" / LOCK)
    claim.take()
    found = {Path(run.folder).name: run for run in list_runs([runs])}
    claim.release()
    assert {name: run.state for name, run in found.items()} == {
        "alive": "running",
        "dead": "died",
        "new": "finished",
        "old": "failed",
        "older": "stopped",
        "broken": "damaged",
    }
    assert list(found)[:4] == ["alive", "new", "old", "older"]
    new = found["new"]
    assert (new.step, new.steps, new.loss, new.best, new.best_checkpoint) == (80, 100, 2.25, 0.5, "step-00000040")
    assert (new.commit, new.data, new.duration_s) == ("0123456789ab", "feedbeef", 3600.0)
    assert found["old"].why == "loss was nan" and "run.json" in found["broken"].why


@pytest.mark.parametrize(
    ("file", "text", "why"),
    [
        ("state.json", '{"step": "x"}', "state.json cannot be read (step is 'x')"),
        ("state.json", '{"state": true}', "state.json cannot be read (state is True)"),
        ("run.json", '{"begun": "x"}', "run.json cannot be read (begun is 'x')"),
    ],
)
def test_a_value_of_another_kind_damages_one_run(file: str, text: str, why: str, runs: Path) -> None:
    run = runs / "group" / "new"
    (run / file).write_text(text)
    [broken] = [line for line in list_runs([runs]) if line.folder == str(run)]
    assert broken.state == "damaged" and why in broken.why
    assert "dead" in as_table(list_runs([runs]))


def test_a_folder_that_cannot_be_looked_into_is_listed_and_the_others_too(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scandir, closed = os.scandir, runs / "data"

    def refusing(folder: Path) -> Any:
        if folder == closed:
            raise PermissionError(errno.EACCES, "Permission denied", str(folder))
        return scandir(folder)

    before = {run.folder for run in list_runs([runs])}
    monkeypatch.setattr(os, "scandir", refusing)
    found = {run.folder: run for run in list_runs([runs])}
    assert set(found) == before | {str(closed)} and found[str(closed)].state == "damaged"
    with pytest.raises(PermissionError):
        list_runs([closed])


def test_the_table_and_the_json_say_the_same(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", str(runs)]) == 0
    table = capsys.readouterr().out
    [line] = [line for line in table.splitlines() if "/new" in line]
    for word in ("finished", "80/100", "2.250", "ndcg@10 0.5000 step-00000040", "2 ranks, 2 CPU cores (a kind)"):
        assert word in line
    assert "    loss was nan" in table.splitlines()
    assert main(["runs", str(runs), "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert as_table(list_runs([runs])) == table.rstrip("\n")
    assert {run["state"] for run in listed} >= {"finished", "died", "damaged"}


def test_a_folder_that_is_not_there_is_one_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", str(tmp_path / "nowhere")]) == 2
    assert "nowhere" in capsys.readouterr().err


def test_hundreds_of_runs_take_seconds(tmp_path: Path) -> None:
    for number in range(300):
        run = make_run(tmp_path / f"run-{number:03d}")
        say_state(run, "finished", 100)
        write_figures(run, 100, 1.0)
    begin = time.process_time()
    assert len(list_runs([tmp_path])) == 300
    assert time.process_time() - begin < 3

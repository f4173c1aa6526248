"""Every checkpoint is evaluated once, whoever is killed; the best is marked; a run without progress is stopped."""

import contextlib
import json
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from beir_folder import write_collection
from made_run import MadeEvaluations, make_checkpoint, make_run, say_state

from largede.cli import main
from largede.errors import CheckpointError, DataError, MachineError
from largede.evaluation.watching.checkpoint_evaluation import (
    EXIT_HELD,
    EXIT_NO_CHECKPOINT,
    CheckpointJob,
    evaluate_checkpoint,
)
from largede.evaluation.watching.watch import WatchSettings, watch
from largede.runs.claims import Claim
from largede.runs.evaluated import (
    Evaluated,
    best_of,
    drop_later_records,
    hold_path,
    is_watched,
    read_records,
    steps_without_progress,
    watchers_folder,
)
from largede.runs.files import ASKED_TO_STOP, EVALUATIONS, STOP, TENSORBOARD


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_collection(tmp_path_factory.mktemp("data") / "small", documents=40, queries=8)


def settings_for(run: Path, data: Path, **more: Any) -> WatchSettings:
    job = {name: more.pop(name) for name in ("metric", "keep", "bm25") if name in more}
    return WatchSettings(CheckpointJob(str(run), "", (str(data),), **job), every_s=0.01, **more)


def watched(settings: WatchSettings, evaluations: MadeEvaluations) -> list[str]:
    lines: list[str] = []
    watch(settings, lines.append, evaluations)
    return lines


def scalars(run: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(run / TENSORBOARD))
    found.Reload()
    return {tag: [(e.step, round(e.value, 4)) for e in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def test_a_finished_run_is_evaluated_once_and_left(tmp_path: Path, data: Path) -> None:
    run = make_run(tmp_path / "run")
    say_state(run, "finished", 100)
    for step in (20, 40, 60):
        make_checkpoint(run, step)
    evaluations = MadeEvaluations({20: 0.2, 40: 0.6, 60: 0.6})
    lines = watched(settings_for(run, data), evaluations)
    assert evaluations.done == ["step-00000020", "step-00000040", "step-00000060"]
    assert lines[-1] == "3 checkpoints evaluated; the best is step-00000040, ndcg@10 0.6000"
    best = json.loads((run / "best.json").read_text())
    assert (best["checkpoint"], best["value"], best["metric"]) == ("step-00000040", 0.6, "ndcg@10")
    watched(settings_for(run, data), evaluations)
    assert len(evaluations.done) == 3


def test_what_a_killed_watcher_had_not_told_is_told_by_the_next(tmp_path: Path, data: Path) -> None:
    """The record is there; best.json and TensorBoard were not brought up to it, also out of order."""
    run = make_run(tmp_path / "run")
    jobs = [CheckpointJob(str(run), make_checkpoint(run, step), ()) for step in (20, 40, 60)]
    evaluations = MadeEvaluations({20: 0.1, 40: 0.3, 60: 0.2})
    evaluations(jobs[2])
    watched(settings_for(run, data, once=True, checkpoints=("step-00000060",)), evaluations)
    assert scalars(run)["evaluation/ndcg@10/small"] == [(60, 0.2)]
    for job in jobs[:2]:
        evaluations(job)
    watched(settings_for(run, data, once=True), evaluations)
    assert len(evaluations.done) == 3
    assert scalars(run)["evaluation/ndcg@10/small"] == [(20, 0.1), (40, 0.3), (60, 0.2)]
    assert json.loads((run / "best.json").read_text())["step"] == 40
    assert len(list((run / TENSORBOARD).glob("*tfevents*"))) == 1


def test_a_step_that_was_trained_again_is_another_checkpoint(tmp_path: Path, data: Path) -> None:
    run = make_run(tmp_path / "run")
    name = make_checkpoint(run, 20)
    evaluations = MadeEvaluations({20: 0.1})
    watched(settings_for(run, data, once=True), evaluations)
    shutil.rmtree(run / "checkpoints" / name)
    make_checkpoint(run, 20, content="other weights")
    watched(settings_for(run, data, once=True), evaluations)
    assert evaluations.done == [name, name]
    assert len(read_records(run)) == 1


def test_a_run_that_goes_on_from_an_earlier_step_forgets_what_was_measured_later(tmp_path: Path, data: Path) -> None:
    run = make_run(tmp_path / "run")
    for step in (20, 40, 60):
        make_checkpoint(run, step)
    watched(settings_for(run, data, once=True), MadeEvaluations({20: 0.1, 40: 0.3, 60: 0.2}))
    (run / EVALUATIONS / ASKED_TO_STOP).write_text('{"step": 60}')
    drop_later_records(run, 60)
    assert json.loads((run / "best.json").read_text())["step"] == 40 and (run / EVALUATIONS / ASKED_TO_STOP).exists()
    drop_later_records(run, 30)
    assert [record.step for record in read_records(run)] == [20]
    assert json.loads((run / "best.json").read_text())["step"] == 20
    assert not list((run / TENSORBOARD).glob("*tfevents*")) and not (run / EVALUATIONS / ASKED_TO_STOP).exists()
    drop_later_records(run, 0)
    assert not read_records(run) and not (run / "best.json").exists()


def test_a_watch_of_named_checkpoints_ends_with_them(tmp_path: Path, data: Path) -> None:
    run = make_run(tmp_path / "run")
    say_state(run, "failed", 40)
    for step in (20, 40):
        make_checkpoint(run, step)
    evaluations = MadeEvaluations({20: 0.1})
    watched(settings_for(run, data, checkpoints=("step-00000020",)), evaluations)
    assert evaluations.done == ["step-00000020"]


@pytest.mark.parametrize(
    "words", [["--every", "-5"], ["--every", "0"], ["--nice", "50"], ["--nice", "-1"], ["--every", "nan"]]
)
def test_a_watch_without_sense_is_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["watch", "run", "--data", "data", *words])
    assert f"argument {words[0]}" in capsys.readouterr().err


def test_checkpoints_that_vanish_or_are_damaged_are_passed_over(tmp_path: Path, data: Path) -> None:
    run = make_run(tmp_path / "run")
    say_state(run, "finished", 100)
    names = [make_checkpoint(run, step) for step in (20, 40, 60)]
    (run / "checkpoints" / "step-00000080").mkdir()  # never finished

    class Vanishing(MadeEvaluations):
        def __call__(self, job: CheckpointJob) -> int:
            shutil.rmtree(run / "checkpoints" / names[1], ignore_errors=True)
            return super().__call__(job)

    evaluations = Vanishing({60: 0.5})
    evaluations.statuses = {names[0]: [EXIT_NO_CHECKPOINT]}
    watched(settings_for(run, data), evaluations)
    assert evaluations.done == [names[0], names[2]]
    with pytest.raises(CheckpointError, match="step-00000020 of .* cannot be evaluated"):
        evaluations.statuses = {names[0]: [EXIT_NO_CHECKPOINT]}
        watched(settings_for(run, data, once=True, checkpoints=(names[0],)), evaluations)


def test_what_was_removed_before_its_turn_is_told_once_and_counted(tmp_path: Path, data: Path) -> None:
    run = make_run(tmp_path / "run")
    say_state(run, "finished", 100)
    names = [make_checkpoint(run, step) for step in (20, 40, 60)]

    class Slow(MadeEvaluations):
        def __call__(self, job: CheckpointJob) -> int:
            for name in names[1:]:
                shutil.rmtree(run / "checkpoints" / name, ignore_errors=True)
            make_checkpoint(run, 80)
            return super().__call__(job)

    lines = watched(settings_for(run, data, once=True), Slow({20: 0.5}))
    told = [line for line in lines if "was removed before it was evaluated" in line]
    assert [line.split()[0] for line in told] == names[1:] and "run.keep_unevaluated" in told[0]
    assert lines[-1] == "1 checkpoints evaluated, 2 removed before that; the best is step-00000020, ndcg@10 0.5000"


def test_a_checkpoint_that_came_and_went_during_an_evaluation_counts_as_missed(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("largede.runs.claims.BEAT_S", 0.02)
    run = make_run(tmp_path / "run")
    make_checkpoint(run, 20)

    class Slow(MadeEvaluations):
        def __call__(self, job: CheckpointJob) -> int:
            name = make_checkpoint(run, 40)
            time.sleep(0.5)
            shutil.rmtree(run / "checkpoints" / name)
            return super().__call__(job)

    lines = watched(settings_for(run, data, once=True), Slow({20: 0.5}))
    assert "1 checkpoints evaluated, 1 removed before that" in lines[-1]


def test_a_watch_says_that_it_is_there_while_it_is_and_clears_after_killed_ones(tmp_path: Path, data: Path) -> None:
    run = make_run(tmp_path / "run")
    make_checkpoint(run, 20)
    killed = Claim(watchers_folder(run) / "killed.json")
    killed.take()
    left = killed.path.read_text()
    killed.release()
    killed.path.write_text(left.replace('"process_started": "', '"process_started": "another time than '))
    seen: list[bool] = []

    class Seeing(MadeEvaluations):
        def __call__(self, job: CheckpointJob) -> int:
            seen.append(is_watched(run) and not killed.path.exists())
            return super().__call__(job)

    assert not is_watched(run)
    watched(settings_for(run, data, once=True), Seeing({20: 0.5}))
    assert seen == [True] and not is_watched(run)


def test_an_evaluation_that_fails_is_tried_again_and_then_left(tmp_path: Path, data: Path) -> None:
    run = make_run(tmp_path / "run")
    say_state(run, "finished", 100)
    names = [make_checkpoint(run, step) for step in (20, 40)]
    evaluations = MadeEvaluations({40: 0.5})
    evaluations.statuses = {names[0]: [-9, 2]}
    watched(settings_for(run, data), evaluations)
    assert evaluations.done == [names[0], names[1], names[0]]
    evaluations.statuses = {names[0]: [2]}
    with pytest.raises(MachineError, match="evaluations failed"):
        watched(settings_for(run, data, once=True), evaluations)
    make_checkpoint(run, 60)
    make_checkpoint(run, 80)
    evaluations.statuses = {name: [2, 2] for name in (names[0], "step-00000060", "step-00000080")}
    with pytest.raises(MachineError, match="3 evaluations in a row failed"):
        watched(settings_for(run, data), evaluations)


def test_another_watcher_at_the_same_checkpoint_is_waited_for(tmp_path: Path, data: Path) -> None:
    run = make_run(tmp_path / "run")
    say_state(run, "finished", 100)
    name = make_checkpoint(run, 20)
    evaluations = MadeEvaluations({20: 0.5})
    evaluations.statuses = {name: [EXIT_HELD] * 3}
    lines = watched(settings_for(run, data), evaluations)
    assert len(evaluations.done) == 4 and len(read_records(run)) == 1
    assert lines.count(f"{name} is being evaluated by another process") == 1


def test_a_claimed_checkpoint_is_not_evaluated(tmp_path: Path, data: Path) -> None:
    run = make_run(tmp_path / "run")
    name = make_checkpoint(run, 20)
    claim = Claim(hold_path(run, name))
    claim.take()
    assert evaluate_checkpoint(CheckpointJob(str(run), name, (str(data),))) == EXIT_HELD
    claim.release()
    assert evaluate_checkpoint(CheckpointJob(str(run), "step-00000099", (str(data),))) == EXIT_NO_CHECKPOINT
    assert not list((run / "evaluations").glob("*.hold"))


def test_a_run_that_no_longer_improves_is_stopped_and_may_be_let_go_on(tmp_path: Path, data: Path) -> None:
    run = make_run(tmp_path / "run")
    say_state(run, "stopped", 40)  # by a signal: it will be started again
    evaluations = MadeEvaluations({20: 0.50, 40: 0.51, 60: 0.505, 80: 0.2, 100: 0.3})
    patient = settings_for(run, data, once=True, patience=2, min_delta=0.02)
    for step in (20, 40):
        make_checkpoint(run, step)
        watched(patient, evaluations)
        assert not (run / STOP).exists()
    make_checkpoint(run, 60)
    lines = watched(patient, evaluations)
    reason = json.loads((run / STOP).read_text())["reason"]
    assert reason == "ndcg@10 has not improved on 0.5100 of step-00000040 in 2 checkpoints"
    assert f"asked the run to stop: {reason}" in lines
    (run / STOP).unlink()
    make_checkpoint(run, 80)
    watched(patient, evaluations)
    assert not (run / STOP).exists()  # let go on, it has the whole patience again
    make_checkpoint(run, 100)
    watched(patient, evaluations)
    assert (run / STOP).exists()
    say_state(run, "stopped", 100, reason)
    assert "the run has stopped at step 100 of 100" in "".join(watched(settings_for(run, data), evaluations))


def record(step: int, value: float) -> Evaluated:
    return Evaluated(step, f"step-{step:08d}", "ndcg@10", value, {}, "", 0.0)


def test_the_best_is_the_largest_and_at_equal_values_the_earlier() -> None:
    assert best_of([]) is None
    records = [record(1, 0.1), record(2, 0.3), record(3, 0.3), record(4, 0.2)]
    assert best_of(records) == best_of(records[::-1]) == records[1]
    assert steps_without_progress(records, 0.0) == 2
    assert steps_without_progress(records, 0.0, since_step=3) == 1
    assert steps_without_progress(records, 0.5) == 3


def test_records_that_could_not_be_compared_are_refused(tmp_path: Path, data: Path) -> None:
    run = make_run(tmp_path / "run")
    make_checkpoint(run, 20)
    watched(settings_for(run, data, once=True), MadeEvaluations({20: 0.5}))
    with pytest.raises(DataError, match="begun with metric ndcg@10, not mrr@10"):
        watched(settings_for(run, data, once=True, metric="mrr@10"), MadeEvaluations({}))
    other = write_collection(tmp_path / "other")
    with pytest.raises(DataError, match="begun with data"):
        watched(settings_for(run, other, once=True), MadeEvaluations({}))


def test_a_damaged_state_is_named_and_does_not_end_the_watch(tmp_path: Path, data: Path) -> None:
    run = make_run(tmp_path / "run")
    make_checkpoint(run, 20)
    (run / "state.json").write_text("{ half")
    lines = watched(settings_for(run, data, once=True), MadeEvaluations({20: 0.5}))
    assert any("state.json cannot be read" in line and "remove state.json" in line for line in lines)
    assert any("step-00000020: ndcg@10 0.5000" in line for line in lines)


def test_a_damaged_record_is_made_again(tmp_path: Path, data: Path) -> None:
    run = make_run(tmp_path / "run")
    name = make_checkpoint(run, 20)
    evaluations = MadeEvaluations({20: 0.5})
    watched(settings_for(run, data, once=True), evaluations)
    (run / "evaluations" / f"{name}.json").write_text('{"step": 20, "chec')
    watched(settings_for(run, data, once=True), evaluations)
    assert evaluations.done == [name, name]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere"], "is no run folder"),
        (["run", "--checkpoint", "step-00000007"], "there are: step-00000020"),
        (["run", "--no-bm25", "--metric", "fused-ndcg@10"], "--no-bm25"),
    ],
)
def test_bad_input_is_one_message(
    words: list[str], said: str, tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_checkpoint(make_run(tmp_path / "run"), 20)
    kept = signal.getsignal(signal.SIGTERM)
    assert main(["watch", str(tmp_path / words[0]), "--data", str(data), "--once", *words[1:]]) == 2
    signal.signal(signal.SIGTERM, kept)
    message = capsys.readouterr().err
    assert said in message and "to mend:" in message


def test_the_board_shows_pictures_histograms_and_a_table(tmp_path: Path, data: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = make_run(tmp_path / "run")
    for step in (20, 40):
        make_checkpoint(run, step)
    watched(settings_for(run, data, once=True), MadeEvaluations({20: 0.5, 40: 0.25}))
    found = EventAccumulator(str(run / TENSORBOARD))
    found.Reload()
    assert found.Tags()["images"] == ["evaluation/curve/small"]
    [picture] = found.Images("evaluation/curve/small")
    assert picture.encoded_image_string.startswith(b"\x89PNG") and picture.width >= 400
    last = found.Histograms("evaluation_scores/relevant/small")[-1].histogram_value
    assert (last.num, list(last.bucket_limit)[-1]) == (4, 1.0)
    table = found.Tensors("evaluation/checkpoints/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "| **step-00000020 (best)** | 0.5000 |" in table


@pytest.mark.parametrize("values", [(0.5, 0.501), (0.5,), (0.0, 0.0)])
def test_a_curve_has_room_above_its_highest_point(values: tuple[float, ...]) -> None:
    from matplotlib.figure import Figure

    from largede.evaluation.watching.pictures import draw_curves

    figures = [{"small": {"dense": {"ndcg@10": value}}} for value in values]
    panel = Figure().subplots()
    records = [replace(record(number, 0.5), figures=found) for number, found in enumerate(figures)]
    draw_curves(panel, records, "small", "ndcg@10")
    low, high = panel.get_ylim()
    assert low == 0 and high > 0 and max(values) <= 0.85 * high


@pytest.fixture(scope="module")
def trained(world: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real run of two checkpoints, by a process of its own."""
    folder = tmp_path_factory.mktemp("trained")
    settings = {"model.backbone": "smoke", "model.tokenizer": str(world.vocabulary), "data.shards": str(world.shards)}
    settings |= {
        "data.lanes": "2",
        "batch.queries": "16",
        "data.max_passage_tokens": "32",
        "optimizer.warmup_steps": "0",
    }
    settings |= {"run.out": str(folder / "run"), "run.steps": "4", "run.checkpoint_every": "2", "run.log_every": "1"}
    settings |= {"engine.deepspeed": "zero1.json", "run.dry_run": "false", "optimizer.warmup_steps": "0"}
    flags = [word for name, value in settings.items() for word in (f"--{name}", value)]
    recipe = folder / "recipe.yaml"
    recipe.write_text("run:\n  seed: 1\n")
    command = [sys.executable, "-m", "largede.cli", "train", str(recipe), *flags]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "run"


@pytest.mark.slow
def test_a_real_run_is_evaluated_and_shown_although_the_watcher_is_killed(trained: Path, data: Path) -> None:
    """Killed with -9 as soon as an evaluation has begun, and started again: every checkpoint has one record."""
    words = ["watch", str(trained), "--data", str(data), "--no-bm25", "--threads", "1", "--nice", "0", "--every", "0.2"]
    command = [sys.executable, "-m", "largede.cli", *words]
    first = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    hold = hold_path(trained, "step-00000002")
    end = time.monotonic() + 60
    while not hold.exists() and time.monotonic() < end:
        time.sleep(0.05)
    evaluating = json.loads(hold.read_text())["pid"]
    first.kill()
    first.wait()
    with contextlib.suppress(ProcessLookupError):
        subprocess.run(["kill", "-9", str(evaluating)], check=True)
    assert read_records(trained) == []
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    records = read_records(trained)
    assert [record.step for record in records] == [2, 4]
    assert done.stdout.splitlines()[-1].startswith("2 checkpoints evaluated; the best is step-0000000")
    shown = scalars(trained)
    assert shown["evaluation/ndcg@10"] == [(record.step, round(record.value, 4)) for record in records]
    assert "loss/contrastive" in shown
    left = sorted(path.name for path in (trained / "evaluations" / "step-00000004").iterdir() if path.is_dir())
    assert left == ["pictures"] and not list((trained / "evaluations").glob("*.hold"))
    points = (trained / TENSORBOARD / "projector" / "step-00000004.points.tsv").read_text().splitlines()
    labels = (trained / TENSORBOARD / "projector" / "step-00000004.labels.tsv").read_text().splitlines()
    assert len(labels) == len(points) + 1 == 17
    assert len(points[0].split("\t")) == 768 and labels[1].split("\t")[1] == "question"

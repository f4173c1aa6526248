"""`largede watch`: evaluate every checkpoint of a run as it appears, mark the best, stop a run that no longer improves.

Everything that is known lies in the run folder (see `checkpoint_evaluation`), so a watcher may be killed and started
again, and several may share the work: a checkpoint is evaluated by whoever claims it first, once. Each evaluation is
a process of its own; this one holds neither model nor GPU.
"""

import json
import os
import secrets
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from largede.errors import CheckpointError, DataError, MachineError
from largede.evaluation.watching.board import publish
from largede.evaluation.watching.checkpoint_evaluation import (
    EXIT_HELD,
    EXIT_NO_CHECKPOINT,
    CheckpointJob,
    system_and_measure,
)
from largede.evaluation.watching.waiting import CHECKPOINT_PATTERN, Waiting
from largede.files import read_json_object, write_json
from largede.runs.claims import Claim, remove_abandoned
from largede.runs.evaluated import (
    Evaluated,
    best_of,
    fingerprint_of_checkpoint,
    steps_without_progress,
    watchers_folder,
)
from largede.runs.files import (
    ASKED_TO_STOP,
    CHECKPOINTS,
    EVALUATIONS,
    ask_to_stop,
    life_of,
    read_run_state,
    stop_reason,
    words_of_hang,
)

TRIES = 2
FAILURES_IN_A_ROW = 3


@dataclass(frozen=True)
class WatchSettings:
    """What to watch for: `job` says how a checkpoint is evaluated; its `checkpoint` is filled in for each.

    `checkpoints` empty means all; `patience` None never stops the run.
    """

    job: CheckpointJob
    checkpoints: tuple[str, ...] = ()
    once: bool = False
    every_s: float = 30.0
    patience: int | None = None
    min_delta: float = 0.0

    @property
    def run(self) -> Path:
        return Path(self.job.run)


def in_own_process(job: CheckpointJob) -> int:
    """`evaluate_checkpoint` as a process; gives its status. It is ended with us, unless we are killed."""
    command = [sys.executable, "-m", "largede.evaluation.watching.checkpoint_evaluation"]
    threads = {"OMP_NUM_THREADS": str(job.threads)} if job.threads else {}
    process = subprocess.Popen(command, stdin=subprocess.PIPE, env={**os.environ, **threads}, start_new_session=True)
    try:
        process.communicate(json.dumps(asdict(job)).encode())
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()
    return process.returncode


def watch(
    settings: WatchSettings,
    say: Callable[[str], None] = print,
    evaluate: Callable[[CheckpointJob], int] = in_own_process,
) -> None:
    """Follow the run until it is finished and everything is evaluated; with `once`, evaluate what is there.

    Raises:
        DataError: no run there, unusable data, or the run was watched with other data, metric or settings.
        CheckpointError: a checkpoint asked for by name cannot be evaluated.
        MachineError: evaluations keep failing.
    """
    check(settings)
    watcher = Watcher(settings, say, evaluate)
    claim = claim_as_watcher(settings.run, beat=watcher.waiting.names)
    try:
        watcher.follow()
    finally:
        claim.release()


def claim_as_watcher(run: Path, beat: Callable[[], object]) -> Claim:
    """While it is held, the run keeps checkpoints that wait to be evaluated; claims of killed watchers are removed."""
    folder = watchers_folder(run)
    remove_abandoned(folder)
    claim = Claim(folder / f"{secrets.token_hex(8)}.json", beat)
    claim.take()
    return claim


class Watcher:
    """One watcher at work: what it has seen fail, and what it has said."""

    def __init__(
        self, settings: WatchSettings, say: Callable[[str], None], evaluate: Callable[[CheckpointJob], int]
    ) -> None:
        self.settings = settings
        self.run = settings.run
        self.say = say
        self.evaluate = evaluate
        self.failures: Counter[str] = Counter()
        self.failures_in_a_row = 0
        self.waiting = Waiting(self.run, settings.checkpoints)
        self.last_said = ""

    def follow(self) -> None:
        records = self.bring_up_to_date()
        self.say(f"watching {self.run}: {len(records)} checkpoints evaluated, {len(self.waiting.names())} waiting")
        while True:
            has_ended = self.run_has_ended()  # asked first: its last checkpoint is there by then
            is_idle = True
            for checkpoint in self.waiting.names():
                is_idle = not self.take_on(checkpoint) and is_idle
                self.tell_missed()
            self.tell_missed()
            no_more_come = has_ended or self.settings.checkpoints
            if self.settings.once or (no_more_come and not self.waiting.names()):
                break
            if is_idle:
                time.sleep(self.settings.every_s)
        self.close()

    def take_on(self, checkpoint: str) -> bool:
        """Evaluate one checkpoint; false when another process is at it."""
        try:
            fingerprint = fingerprint_of_checkpoint(self.run / CHECKPOINTS / checkpoint)
        except CheckpointError:
            return True  # removed since we looked
        self.say(f"evaluating {checkpoint}")
        status = self.evaluate(replace(self.settings.job, checkpoint=checkpoint))
        if status == EXIT_HELD:
            self.say_once(f"{checkpoint} is being evaluated by another process")
            return False
        if status == EXIT_NO_CHECKPOINT:
            self.waiting.passed_over.add(fingerprint)
        elif status:
            self.note_failure(checkpoint, fingerprint, status)
        else:
            self.failures_in_a_row = 0
            self.tell(checkpoint, self.bring_up_to_date())
        return True

    def note_failure(self, checkpoint: str, fingerprint: str, status: int) -> None:
        self.failures[fingerprint] += 1
        self.failures_in_a_row += 1
        self.say(f"the evaluation of {checkpoint} ended with status {status}; its words are above")
        if self.settings.once or self.failures[fingerprint] >= TRIES:
            self.waiting.passed_over.add(fingerprint)
        if self.failures_in_a_row >= FAILURES_IN_A_ROW:
            raise self.failed(f"{FAILURES_IN_A_ROW} evaluations in a row failed, {checkpoint} last")

    def failed(self, what: str) -> MachineError:
        return MachineError(
            what, expected="evaluations that end well", mend="see what they said above, and start the watch again"
        )

    def bring_up_to_date(self) -> list[Evaluated]:
        """Make best.json and TensorBoard follow from the records, whoever wrote them; stop the run if it is time."""
        records = publish(self.run)
        self.stop_the_run_if_it_no_longer_improves(records)
        return records

    def tell(self, checkpoint: str, records: list[Evaluated]) -> None:
        record = next(record for record in records if record.checkpoint == checkpoint)
        best = max(records, key=lambda r: (r.value, -r.step))
        place = "the best so far" if record == best else f"best: {best.value:.4f} of {best.checkpoint}"
        self.say(f"{checkpoint}: {record.metric} {record.value:.4f}, {place} ({record.took_s:.0f} s)")

    def tell_missed(self) -> None:
        for name in self.waiting.newly_missed():
            self.say(
                f"{name} was removed before it was evaluated: run.keep_unevaluated says how many wait, "
                "run.checkpoint_every how often one comes"
            )

    def stop_the_run_if_it_no_longer_improves(self, records: list[Evaluated]) -> None:
        patience, asked = self.settings.patience, self.run / EVALUATIONS / ASKED_TO_STOP
        if patience is None or stop_reason(self.run) or self.run_has_ended():
            return
        # A run that was let go on after it was stopped gets the whole patience again.
        since = int(read_json_object(asked)["step"]) if asked.is_file() else -1
        if steps_without_progress(records, self.settings.min_delta, since) < patience:
            return
        best, last = best_of(records), records[-1]
        assert best is not None
        reason = f"{best.metric} has not improved on {best.value:.4f} of {best.checkpoint} in {patience} checkpoints"
        ask_to_stop(self.run, reason, "largede watch", last.step)
        write_json(asked, {"step": last.step})
        self.say(f"asked the run to stop: {reason}")

    def run_has_ended(self) -> bool:
        """Whether no further checkpoint is to be expected, unless somebody starts the run again."""
        try:
            said = read_run_state(self.run)
        except DataError as error:
            self.say_once(str(error))
            return False
        life = life_of(self.run, said)
        if said is not None and life in ("died", "failed", "stopped"):
            why = said.why or words_of_hang(self.run, said.time) or "no word why"
            self.say_once(f"the run has {life} at step {said.step} of {said.steps}: {why}")
        return life == "finished" or (life == "stopped" and bool(stop_reason(self.run)))

    def say_once(self, words: str) -> None:
        if words != self.last_said:
            self.say(words)
        self.last_said = words

    def close(self) -> None:
        records = self.bring_up_to_date()
        best = best_of(records)
        if best is not None:
            missed = f", {len(self.waiting.missed)} removed before that" if self.waiting.missed else ""
            found = f"the best is {best.checkpoint}, {best.metric} {best.value:.4f}"
            self.say(f"{len(records)} checkpoints evaluated{missed}; {found}")
        if self.failures_in_a_row and self.settings.once:
            raise self.failed(f"{self.failures_in_a_row} evaluations failed")
        missing = set(self.settings.checkpoints) - {record.checkpoint for record in records}
        unclaimed = [name for name in sorted(missing) if name not in self.waiting.names()]
        if unclaimed:
            raise CheckpointError(
                f"{', '.join(unclaimed)} of {self.run} cannot be evaluated",
                expected="whole checkpoints",
                mend="name others; the lines above say what is wrong with these",
            )


def check(settings: WatchSettings) -> None:
    """Refuse what cannot work before the first model is loaded, and records that could not be compared."""
    from largede.evaluation.datasets.benchmarks import open_collection
    from largede.evaluation.datasets.collections import open_collections

    run, job = settings.run, settings.job
    if not (run / CHECKPOINTS).is_dir() and not (run / "run.json").is_file():
        raise DataError(f"{run} is no run folder", expected="the --run.out of a training", mend="check the path")
    absent = [name for name in settings.checkpoints if not (run / CHECKPOINTS / name).is_dir()]
    if absent:
        raise CheckpointError(
            f"{run} has no checkpoint {', '.join(absent)}",
            expected="the name of a folder below checkpoints/",
            mend=f"there are: {', '.join(sorted(p.name for p in (run / CHECKPOINTS).glob(CHECKPOINT_PATTERN)))}",
        )
    collections = open_collections(job.data, split=job.split, cache=job.cache_folder, offline=job.offline)
    for collection in collections:
        if system_and_measure(job.metric)[1] not in map(str.lower, collection.measures):
            raise DataError(
                f"--metric {job.metric} on {collection.name}",
                expected=f"one of {', '.join(map(str.lower, collection.measures))}, with fused- before it or not",
                mend="choose a measure that all collections have",
            )
    comparable: dict[str, Any] = {
        "metric": job.metric,
        "split": job.split,
        "bm25": job.bm25,
        "compute_dtype": job.compute_dtype,
        "max_query_tokens": job.max_query_tokens,
        "max_passage_tokens": job.max_passage_tokens,
        "data": {collection.name: open_collection(collection).fingerprint for collection in collections},
    }
    refuse_other_settings(run / EVALUATIONS / "settings.json", comparable)


def refuse_other_settings(path: Path, now: dict[str, Any]) -> None:
    """The records of one run are compared with each other, so all are made alike."""
    if not path.is_file():
        write_json(path, now)
    before = read_json_object(path)
    changed = [name for name in now if before.get(name) != now[name]]
    if changed:
        name = changed[0]
        raise DataError(
            f"{path.parent} was begun with {name} {before.get(name)}, not {now[name]}",
            expected="checkpoints of one run evaluated alike, so that they can be compared",
            mend=f"give the same again, or move {path.parent} away and evaluate all of them anew",
        )

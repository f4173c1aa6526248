"""`largede-data shard`: files of pairs, shuffled globally, into shards of blocks with an index.

The pairs are put in the order of random keys (`sorted_runs`) and cut into shards of equal length, one pair more or
less. So the shards are a function of the pairs, the seed and the lengths asked for, and of nothing else.

The work is done beside OUT, in OUT.work. Every batch of inputs is one task of the first stage, every few shards one of
the second; a task leaves a folder that is whole or absent (`work.py`), so a run that was stopped goes on with the tasks
that are missing. OUT appears in one step, when every shard is there.
"""

import os
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from data_tools.differences import differences
from data_tools.dropped import Dropped
from data_tools.inputs import Content, InputFile, input_files
from data_tools.read_pairs import BatchTask, batches_of, merged_sources, read_batch
from data_tools.shard_settings import Machine, ShardResult, ShardSettings, fingerprint
from data_tools.sorted_runs import SortedRuns, bin_count
from data_tools.wording import counted
from data_tools.work import REPORT, Report, run_stage
from data_tools.working import remove_finished, working, working_folder
from data_tools.write_shards import (
    Cut,
    ShardsTask,
    load_shards,
    shard_name,
    shard_tasks,
    workers_that_fit,
    write_shards,
)
from largede.errors import DataError
from largede.files import read_json_object, remove_folder, write_json
from largede.streams.index import INDEX_NAME, ShardIndex
from largede.streams.places.local import LocalPlace

MADE_FROM = "made_from.json"
"""Beside the index: the inputs, the settings, what was left out and why, pairs by source."""

_READ = "read"
_WRITE = "write"
_OUT = "out"


def shard(inputs: Sequence[Path], out: Path, settings: ShardSettings, machine: Machine | None = None) -> ShardResult:
    """Write the pairs of `inputs`, files or folders of files, as shards into the new folder `out`, or find them there.

    `out` must be absent, empty, or made from the same inputs (by content, in the same order) and settings; in the last
    case nothing happens, and inputs of unchanged name, size and time are not read. Raises DataError for anything else
    and for unusable inputs, MachineError on a full disk or when a process is killed; then `out` is as it was, and what
    is finished stays in OUT.work for the same command to go on with. The work takes about as much room as the shards.
    """
    started = time.monotonic()
    machine = machine or Machine()
    files = input_files(inputs)
    present = _present(out, files, settings)
    work, plan = working_folder(out), _plan(files, settings, machine.workers)
    if present is not None:
        remove_finished(out, plan, _essence)
        return ShardResult(present, written=False, skipped=0, left_out=0, seconds=0.0)
    # The batches and bins stay, though workers or sizes of inputs may differ.
    with working(out, plan, _essence, keeps=("batches", "bins")) as plan:
        tasks = [BatchTask.of(number, batch, files, plan["bins"]) for number, batch in enumerate(plan["batches"])]
        _forget_changed(work, tasks)
        reports = _read(work, tasks, settings, machine)
        made_from = _made_from(reports, settings)
        _demand_pairs(made_from, inputs, work)
        _write(work, made_from, settings, machine)
        os.replace(work / _OUT, out)
    remove_folder(work)
    skipped = sum(entry["count"] for entry in made_from["bad_lines"].values())
    seconds = time.monotonic() - started
    return ShardResult(ShardIndex.load(out), True, skipped, made_from["left_out"], seconds)


def _present(out: Path, files: Sequence[InputFile], settings: ShardSettings) -> ShardIndex | None:
    """The index in `out` when it was made from the same; None when there is nothing in the way."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return None
    if not out.is_dir():
        raise _in_the_way(f"{out} is a file")
    if not (out / INDEX_NAME).exists():
        raise _in_the_way(f"{out} is not empty")
    if not (out / MADE_FROM).exists():
        raise _in_the_way(f"{out} holds shards that do not say what they were made from")
    index, record = ShardIndex.load(out), read_json_object(out / MADE_FROM)
    contents = [Content(**entry) for entry in record["inputs"]]
    differing = _differing(record["settings"], contents, files, settings)
    if differing:
        raise _in_the_way(f"{out} holds shards of other inputs or settings: {differing}")
    return index


def _differing(
    before: dict[str, Any], contents: Sequence[Content], files: Sequence[InputFile], settings: ShardSettings
) -> str:
    """What is not as it was; nothing: an empty answer."""
    if before != settings.to_dict():
        return differences(before, settings.to_dict())
    if len(contents) != len(files):
        return f"{counted(len(files), 'input')}, not {len(contents)}"
    changed = (file for content, file in zip(contents, files, strict=True) if not content.is_of(file))
    return next((f"{file.path} holds something else" for file in changed), "")


def _in_the_way(given: str) -> DataError:
    return DataError(
        given, expected="a new or empty folder for the shards", mend="choose another --out, or remove that one yourself"
    )


def _plan(files: Sequence[InputFile], settings: ShardSettings, workers: int) -> dict[str, Any]:
    """What a later run has to agree on (`_essence`), and how this one divides the work."""
    return {
        "inputs": [str(file.path.absolute()) for file in files],
        "settings": settings.to_dict(),
        "batches": batches_of(files, workers),
        "bins": bin_count(sum(file.expected_text_bytes for file in files)),
    }


def _essence(plan: dict[str, Any]) -> dict[str, Any]:
    return {key: plan[key] for key in ("inputs", "settings")}


def _forget_changed(work: Path, tasks: Sequence[BatchTask]) -> None:
    """Remove what was read from inputs that have changed since, and every shard if there were any."""
    for task in tasks:
        folder = work / _READ / task.name
        if (folder / REPORT).exists():
            contents = [Content(**entry) for entry in read_json_object(folder / REPORT)["inputs"]]
            if not all(content.is_of(file) for content, file in zip(contents, task.files, strict=True)):
                for made in (work / _OUT, work / _WRITE):
                    remove_folder(made)
                remove_folder(folder)


def _read(work: Path, tasks: Sequence[BatchTask], settings: ShardSettings, machine: Machine) -> list[Report]:
    read = partial(read_batch, settings=settings, run_bytes=machine.bytes_per_worker // 2)
    text_bytes = sum(file.expected_text_bytes for task in tasks for file in task.files)
    return run_stage(work / _READ, tasks, read, machine.workers_for(text_bytes), "reading")


def _made_from(reports: Sequence[Report], settings: ShardSettings) -> dict[str, Any]:
    """What the inputs held. Raises DataError when all together have too many bad lines."""
    bad = Dropped()
    for report in reports:
        bad.merge(report["bad_lines"])
    if bad.total() > settings.skip_bad:
        reasons = "; ".join(
            f"{reason}, {counted(count, 'time')} (such as {bad.examples[reason]})" for reason, count in bad.items()
        )
        raise DataError(
            f"{counted(bad.total(), 'bad line')}: {reasons}",
            expected=f"at most {settings.skip_bad:,}",
            mend="correct or remove those lines, or pass over them with --skip-bad",
        )
    inputs = [entry for report in reports for entry in report["inputs"]]
    return {
        "fingerprint": fingerprint((Content(**entry) for entry in inputs), settings),
        "settings": settings.to_dict(),
        **{name: sum(report[name] for report in reports) for name in ("pairs", "text_bytes", "left_out")},
        "bad_lines": bad.to_dict(),
        "sources": merged_sources(reports),
        "inputs": inputs,
    }


def _demand_pairs(made_from: dict[str, Any], inputs: Sequence[Path], work: Path) -> None:
    if made_from["pairs"]:
        return
    remove_folder(work)
    named = ", ".join(map(str, inputs))
    if made_from["left_out"]:
        raise DataError(
            f"no query of {named} falls into the fraction",
            expected="one pair at least",
            mend="raise --query-fraction, or choose another --fraction-seed",
        )
    raise DataError(f"{named} holds no pairs", expected="one pair at least", mend="name another input")


def _write(work: Path, made_from: dict[str, Any], settings: ShardSettings, machine: Machine) -> None:
    """Make every shard, and the folder that is to become OUT."""
    runs = SortedRuns(sorted((work / _READ).glob("batch-*")))
    cut = Cut(made_from["pairs"], settings.shard_pairs, settings.block_pairs)
    finished = [ShardsTask.shards_of(report.parent.name) for report in (work / _WRITE).glob(f"*/{REPORT}")]
    tasks = shard_tasks(cut, made_from["text_bytes"], machine, finished)
    write = partial(write_shards, runs=runs, places=runs.places(), cut=cut)
    workers = workers_that_fit(cut, made_from["text_bytes"], machine)
    reports = run_stage(work / _WRITE, tasks, write, workers, "writing")
    found = [(task, work / _WRITE / task.name, report) for task, report in zip(tasks, reports, strict=True)]
    shards = tuple(shard for task, folder, report in found for shard in load_shards(folder, task, report))
    _assemble(work / _OUT, found)
    ShardIndex(LocalPlace(work / _OUT), settings.seed, made_from["fingerprint"], shards).save(work / _OUT)
    write_json(work / _OUT / MADE_FROM, made_from)


def _assemble(ready: Path, found: Sequence[tuple[ShardsTask, Path, Report]]) -> None:
    """Move all shards into one folder. Goes on where a run was killed in the middle of it."""
    ready.mkdir(exist_ok=True)
    for task, folder, _ in found:
        for number in task.shards:
            name = shard_name(number)
            if not (ready / name).exists():
                os.replace(folder / name, ready / name)

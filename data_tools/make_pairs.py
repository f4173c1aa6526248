"""`largede-data pairs`: real dumps into parts of pairs, in constant memory, by several processes, restartably.

The work is done in stages beside OUT, in OUT.work: every input is one task of the first stage; a format with groupings
has one more stage for each, whose tasks are buckets of keys. A stage's folder goes when the next is complete. At the
end the parts are moved into place and OUT appears, with pairs.json.

Parts hold the same pairs in the same order whatever the number of processes and however often the run was stopped.
"""

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from data_tools.differences import differences
from data_tools.dropped import Dropped
from data_tools.format import Format, Record, options_as_json
from data_tools.groups import Bucket, buckets_of, groups, writing_groups
from data_tools.inputs import refuse_twice
from data_tools.parts import MANIFEST, demand_whole, part_name, write_parts
from data_tools.wording import counted
from data_tools.work import REPORT, Report, Task, run_stage
from data_tools.working import COMPLETE, remove_finished, working, working_folder
from largede.errors import DataError
from largede.files import read_json_object, refuse_existing, remove_folder, sha256_file, write_json

VERSION = 3
"""Raise it when the same inputs give other parts, so that old ones are not taken for finished."""
_RECORDS = "records"


@dataclass(frozen=True)
class PairsSettings:
    """`workers` processes; parts of at most `part_pairs` pairs; `max_bytes` of text from one compressed input."""

    workers: int = 1
    part_pairs: int = 100_000
    max_bytes: int | None = None


@dataclass(frozen=True)
class PairsResult:
    """What pairs.json in `folder` says, and whether this call wrote it."""

    folder: Path
    manifest: dict[str, Any]
    written: bool

    def __str__(self) -> str:
        m = self.manifest
        made = f"{counted(m['pairs'], 'pair')} in {counted(len(m['parts']), 'part')}"
        counts = f"{made}, {m['text_bytes']:,} bytes of text"
        if not self.written:
            return f"{self.folder} is up to date: {counts}, made from the same inputs and options"
        per_core_s = f"{counted(m['pairs_per_cpu_s'], 'pair')} and {m['input_mb_per_cpu_s']:.2f} MB of input"
        rate = f"{per_core_s} in a second of one core"
        lines = [f"{self.folder}: {counts}; {m['seconds']:.1f} s, {rate}"]
        for reason, entry in m["dropped"].items():
            example = f", such as {entry['example']}" if entry["example"] else ""
            lines.append(f"  dropped {entry['count']:,}: {reason}{example}")
        return "\n".join(lines)


@dataclass(frozen=True)
class InputTask(Task):
    """One input file."""

    path: Path
    modified_ns: int


@dataclass(frozen=True)
class BucketTask(Task):
    """One bucket of the records that the tasks of the stage before wrote below `records`."""

    records: Path
    bucket: Bucket


def make_pairs(format: Format, options: Any, inputs: Sequence[Path], out: Path, settings: PairsSettings) -> PairsResult:
    """Write the pairs of `inputs` into the new folder `out`, or find them there already.

    A run that was stopped goes on when called again with the same format, options and inputs; an input that changed
    since is read again. Raises DataError for unusable inputs and for anything else in the way, MachineError when the
    disk is full or a process dies; then `out` is as it was, and what is finished stays in OUT.work.
    """
    started = time.monotonic()
    out = out.absolute()
    tasks = _input_tasks(format.files(inputs, options))
    plan = _plan(format, options, tasks, settings)
    present = _present(out, plan)
    if present is not None:
        remove_finished(out, plan, _essence)
        return PairsResult(out, present, written=False)
    work = working_folder(out)
    with working(out, plan, partial(_essence, changed_inputs=True)):
        reports = _stages(format, options, tasks, work, settings)
        manifest = _manifest(plan, reports, time.monotonic() - started)
        _demand_pairs(manifest, work)
        _move_into_place(manifest, reports[-1], work, out)
    remove_folder(work)
    return PairsResult(out, manifest, written=True)


def _input_tasks(paths: Sequence[Path]) -> list[InputTask]:
    refuse_twice(paths)
    stats = [path.stat() for path in paths]
    return [
        InputTask(f"input-{number:05d}", stat.st_size, path, stat.st_mtime_ns)
        for number, (path, stat) in enumerate(zip(paths, stats, strict=True))
    ]


def _plan(format: Format, options: Any, tasks: Sequence[InputTask], settings: PairsSettings) -> dict[str, Any]:
    """What decides the parts, as far as it can be told without reading the inputs."""
    return {
        "version": VERSION,
        "format": format.name,
        "options": options_as_json(options),
        "part_pairs": settings.part_pairs,
        "inputs": [{"name": str(task.path), "bytes": task.bytes, "modified_ns": task.modified_ns} for task in tasks],
    }


def _present(out: Path, plan: dict[str, Any]) -> dict[str, Any] | None:
    """The manifest in `out` when it was made by the same plan; None when there is nothing in the way."""
    if not (out / MANIFEST).is_file():
        refuse_existing(out, DataError)
        return None
    manifest = read_json_object(out / MANIFEST)
    if _essence(manifest) == _essence(plan):
        demand_whole(out, MANIFEST, manifest["parts"])
        return manifest
    raise DataError(
        f"{out} holds pairs of other inputs or options: {differences(_essence(manifest), _essence(plan))}",
        expected="a new or empty folder, or one made by the same command from unchanged inputs"
        " (known by path, size and time of change)",
        mend="choose another --out, or remove that one yourself",
    )


def _essence(plan: dict[str, Any], changed_inputs: bool = False) -> dict[str, Any]:
    """What the parts come of. `changed_inputs`: inputs of the same names may have other content."""
    kept = ("name",) if changed_inputs else ("name", "bytes", "modified_ns")
    inputs = [{key: entry[key] for key in kept} for entry in plan["inputs"]]
    return {key: plan[key] for key in ("version", "format", "options", "part_pairs")} | {"inputs": inputs}


def _stages(
    format: Format, options: Any, tasks: Sequence[InputTask], work: Path, settings: PairsSettings
) -> list[list[Report]]:
    """Do the stages that are not complete; the reports of all, stage after stage."""
    last = len(format.groupings)
    _forget_changed(work, tasks)
    reports = []
    for stage in range(last + 1):
        folder = work / f"stage-{stage}"
        if (folder / COMPLETE).exists():
            reports.append(read_json_object(folder / COMPLETE)["reports"])
            continue
        of_stage = tasks if stage == 0 else _bucket_tasks(work / f"stage-{stage - 1}")
        do = partial(_do_input if stage == 0 else _do_bucket, format, options, stage, settings.part_pairs)
        label = "reading" if stage == 0 else f"grouping {stage} of {last}"
        reports.append(run_stage(folder, of_stage, do, settings.workers, label, settings.max_bytes))
        write_json(folder / COMPLETE, {"reports": reports[-1]})
        if stage:
            _remove_tasks(work / f"stage-{stage - 1}")
    return reports


def _do_input(format: Format, options: Any, stage: int, part_pairs: int, task: InputTask, folder: Path) -> Report:
    dropped = Dropped()
    report = _write(format.read(task.path, options, dropped), folder, format, stage, part_pairs, dropped)
    digest = sha256_file(task.path)
    stat = task.path.stat()
    if (stat.st_size, stat.st_mtime_ns) != (task.bytes, task.modified_ns):
        raise DataError(f"{task.path} changed while it was read", expected="inputs at rest", mend="run it again")
    return report | {"input": {"bytes": task.bytes, "modified_ns": task.modified_ns, "sha256": digest}}


def _do_bucket(format: Format, options: Any, stage: int, part_pairs: int, task: BucketTask, folder: Path) -> Report:
    dropped = Dropped()
    grouping = format.groupings[stage - 1]
    grouped = groups(_record_files(task.records), task.bucket)
    results = (result for key, records in grouped for result in grouping(key, records, options, dropped))
    return _write(results, folder, format, stage, part_pairs, dropped)


def _write(
    results: Iterator[Any], folder: Path, format: Format, stage: int, part_pairs: int, dropped: Dropped
) -> Report:
    """Pairs in the last stage, records in those before."""
    if stage == len(format.groupings):
        parts = write_parts(results, folder, part_pairs, dropped)
        return {"parts": parts, "dropped": dropped.to_dict()}
    _write_records(results, folder / _RECORDS)
    return {"parts": [], "dropped": dropped.to_dict()}


def _write_records(records: Iterator[Record], path: Path) -> None:
    with writing_groups(path) as writer:
        for key, record in records:
            writer.add(key, record)


def _bucket_tasks(records: Path) -> list[BucketTask]:
    return [
        BucketTask(f"bucket-{number:05d}", bucket.bytes, records, bucket)
        for number, bucket in enumerate(buckets_of(_record_files(records)))
    ]


def _record_files(stage: Path) -> list[Path]:
    return sorted(stage.glob(f"*/{_RECORDS}"))


def _forget_changed(work: Path, tasks: Sequence[InputTask]) -> None:
    """Remove what was made of inputs that have changed since, and everything that came of it."""
    first = work / "stage-0"
    read = [(task, _input_read(first, number, task)) for number, task in enumerate(tasks)]
    now = [{"bytes": task.bytes, "modified_ns": task.modified_ns} for task in tasks]
    changed = [
        task
        for (task, before), after in zip(read, now, strict=True)
        if before is not None and any(before[key] != after[key] for key in after)
    ]
    if changed:
        for folder in (work / "out", *work.glob("stage-*")):
            if folder != first:
                remove_folder(folder)
        (first / COMPLETE).unlink(missing_ok=True)
        for task in changed:
            remove_folder(first / task.name)


def _input_read(first: Path, number: int, task: InputTask) -> dict[str, Any] | None:
    """What the first stage remembers of an input; None when it has not read it."""
    if (first / COMPLETE).exists():
        return dict(read_json_object(first / COMPLETE)["reports"][number]["input"])
    report = first / task.name / REPORT
    return dict(read_json_object(report)["input"]) if report.exists() else None


def _remove_tasks(stage: Path) -> None:
    """The task folders, whose content nobody needs any more; what the tasks reported stays."""
    for folder in stage.iterdir():
        if folder.is_dir():
            remove_folder(folder)


def _manifest(plan: dict[str, Any], reports: Sequence[Sequence[Report]], seconds: float) -> dict[str, Any]:
    flat = [report for stage in reports for report in stage]
    dropped = Dropped()
    for report in flat:
        dropped.merge(report["dropped"])
    parts = [part for report in flat for part in report["parts"]]
    sums = {key: sum(part[key] for part in parts) for key in ("pairs", "text_bytes", "bytes")}
    cpu_s = max(1e-3, sum(report["cpu_seconds"] for report in flat))
    inputs = [entry | report["input"] for entry, report in zip(plan["inputs"], reports[0], strict=True)]
    input_bytes = sum(entry["bytes"] for entry in inputs)
    return (
        plan
        | sums
        | {
            "inputs": inputs,
            "parts": [part | {"name": part_name(number)} for number, part in enumerate(parts)],
            "dropped": dropped.to_dict(),
            "seconds": round(seconds, 1),
            "cpu_seconds": round(cpu_s, 1),
            "pairs_per_cpu_s": round(sums["pairs"] / cpu_s),
            "input_mb_per_cpu_s": round(input_bytes / cpu_s / 1e6, 2),
        }
    )


def _demand_pairs(manifest: dict[str, Any], work: Path) -> None:
    if manifest["pairs"]:
        return
    remove_folder(work)
    reasons = "; ".join(f"{reason}, {counted(entry['count'], 'time')}" for reason, entry in manifest["dropped"].items())
    raise DataError(
        f"no pairs in {', '.join(entry['name'] for entry in manifest['inputs'])} ({reasons or 'no records at all'})",
        expected=f"one pair at least of format {manifest['format']}",
        mend="name another format or other inputs, or change the options that drop",
    )


def _move_into_place(manifest: dict[str, Any], reports: Sequence[Report], work: Path, out: Path) -> None:
    """Number the parts of all tasks through. Goes on where a run was killed in the middle of it."""
    ready = work / "out"
    ready.mkdir(exist_ok=True)
    stage = max(work.glob("stage-*"), key=lambda folder: int(folder.name.removeprefix("stage-")))
    numbers = count()
    for folder, report in zip(_task_folders(stage, len(reports)), reports, strict=True):
        for part in report["parts"]:
            target = ready / part_name(next(numbers))
            if not target.exists():
                os.replace(folder / part["name"], target)
    write_json(ready / MANIFEST, manifest)
    os.replace(ready, out)


def _task_folders(stage: Path, tasks: int) -> list[Path]:
    folders = sorted(folder for folder in stage.iterdir() if folder.is_dir())
    assert len(folders) == tasks
    return folders

"""A pipeline from the command to the finished folder: nothing is taken as finished before all of it is.

While it runs, everything lies in `OUT.work`: the settings it was begun with, the parts written so far, datatrove's
marks of finished tasks, logs. The last stage writes the report and renames the results to `OUT`. The same command goes
on where it was stopped; another one is refused.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datatrove.pipeline.base import PipelineStep

from data_tools.differences import differences
from data_tools.inputs import InputFile, described, input_files
from data_tools.parts import REPORT, demand_whole
from data_tools.pipelines.executors import Executor
from data_tools.pipelines.report import merged, write_report
from data_tools.pipelines.steps import Judge, ReadPart, WritePart, counts_path
from data_tools.pipelines.work import Stage, Work, only_one_command
from data_tools.wording import counted
from largede.errors import DataError, MachineError
from largede.files import read_json_object, remove_folder, write_json

FORMAT_VERSION = 1
_MADE_FROM = "made_from.json"
_NOTHING_KEPT = "nothing_kept.json"


def _no_stages(work: Path, parts: list[InputFile]) -> list[Stage]:
    return []


def _no_facts(work: Path, parts: list[InputFile]) -> dict[str, Any]:
    return {}


@dataclass(frozen=True)
class Plan:
    """What a verb is made of. `settings` (JSON) decide the results, beside the parts and `also_reads`.

    `before` gives the stages that come before the one that reads, judges and writes each part; `facts` what the report
    says beyond counts. Both get the work folder.
    """

    verb: str
    settings: dict[str, Any]
    judges: Callable[[Path], list[Judge]]
    before: Callable[[Path, list[InputFile]], list[Stage]] = _no_stages
    facts: Callable[[Path, list[InputFile]], dict[str, Any]] = _no_facts
    also_reads: Sequence[Path] = ()
    skip_bad: int = 0


@dataclass(frozen=True)
class Outcome:
    """`report` is None while the work goes on elsewhere; `message` says where it stands then."""

    out: Path
    report: dict[str, Any] | None
    done_now: bool
    seconds: float = 0.0
    message: str = ""

    def __str__(self) -> str:
        if self.report is None:
            return self.message
        read, kept = self.report["read"], self.report["kept"]
        counts = f"{counted(read, 'pair')} read, {kept:,} kept, {read - kept:,} removed; see {self.out / 'report.md'}"
        if not self.done_now:
            return f"{self.out} is up to date: {counts}"
        return f"{self.out}: {counts}; {self.seconds:.1f} s, {read / max(self.seconds, 1e-9):,.0f} pairs a second"


def run_plan(plan: Plan, inputs: Sequence[Path], out: Path, executor: Executor) -> Outcome:
    """Bring `out` about, or find it there.

    Raises DataError for unusable inputs, for other work in the way, and when no pair is kept. An error before any task
    was finished leaves nothing behind, so that a corrected command may come; one of the machine leaves its logs.
    """
    started, message, done_now = time.monotonic(), None, False
    out = out.resolve()
    parts = input_files([path.resolve() for path in inputs])
    made_from = {
        "verb": plan.verb,
        "version": FORMAT_VERSION,
        "settings": plan.settings | {"skip_bad": plan.skip_bad},
        "inputs": [file.to_dict() for file in [*parts, *map(described, plan.also_reads)]],
    }
    work = Work(out.with_name(out.name + ".work"))
    present = _finished(out, made_from)
    if present is None or work.folder.exists():
        with only_one_command(work):
            # Another command may have finished it while this one waited.
            present = _finished(out, made_from)
            if present is None:
                message = _carry_out(work, made_from, executor, stages_of(plan, parts, work, out))
                present, done_now = _finished(out, made_from), True
            if present is not None:
                _tidy(work, out)
    if present is None:
        return Outcome(out, None, False, message=message or f"{out} is not finished; logs in {work.folder / 'logs'}")
    return Outcome(out, present, done_now, time.monotonic() - started)


def _carry_out(work: Work, made_from: dict[str, Any], executor: Executor, stages: Sequence[Stage]) -> str | None:
    """Begin or go on; what the executor says of work that goes on elsewhere."""
    _open_work(work, made_from)
    try:
        message = executor.execute(stages, work)
    except MachineError:
        raise  # the same command goes on when the machine is mended, and the message may name logs
    except BaseException:
        if not work.has_finished_tasks():
            remove_folder(work.folder)
        raise
    _demand_kept(work)
    return message


def stages_of(plan: Plan, parts: list[InputFile], work: Work, out: Path) -> list[Stage]:
    """The one definition that every executor runs."""
    folder = work.folder
    steps = [
        ReadPart(parts, plan.skip_bad),
        *plan.judges(folder),
        WritePart(parts, folder / "results", folder / "counts"),
    ]
    collect = Collect(plan, parts, folder, out)
    return [*plan.before(folder, parts), Stage(plan.verb, len(parts), steps), Stage("collect", 1, [collect])]


class Collect(PipelineStep):
    """Add up the counts of all parts, write the report, and give the results their name."""

    type, name = "collect", "counts and parts"

    def __init__(self, plan: Plan, parts: list[InputFile], work: Path, out: Path) -> None:
        super().__init__()
        self.parts = parts
        self.work = work
        self.out = out
        self.facts = plan.facts

    def run(self, data: object = None, rank: int = 0, world_size: int = 1) -> None:
        if _is_something(self.out):
            return  # a run that was killed after the renaming
        made_from = read_json_object(self.work / _MADE_FROM)
        counts = [read_json_object(counts_path(self.work / "counts", rank)) for rank in range(len(self.parts))]
        report = merged(made_from, counts, self.facts(self.work, self.parts))
        if not report["kept"]:
            # Wherever this task runs, it is for the command to say so and to take the work away.
            write_json(self.work / _NOTHING_KEPT, report)
            return
        results = self.work / "results"
        for left in results.glob(".*.partial"):
            left.unlink()  # what a killed task was writing
        write_report(results, report)
        results.replace(self.out)


def _is_something(out: Path) -> bool:
    return out.exists() and (not out.is_dir() or any(out.iterdir()))


def _finished(out: Path, made_from: dict[str, Any]) -> dict[str, Any] | None:
    """The report in `out` when it was made from the same and is whole; None when nothing is in the way."""
    if not _is_something(out):
        return None
    if not (out / REPORT).is_file():
        raise _in_the_way(f"{out} is there and holds no {REPORT}")
    report = read_json_object(out / REPORT)
    if "made_from" not in report:
        raise _in_the_way(f"{out / REPORT} does not say what {out} was made from")
    _demand_same(report["made_from"], made_from, f"{out} was made")
    demand_whole(out, REPORT, report["parts"])
    return report


def _open_work(work: Work, made_from: dict[str, Any]) -> None:
    """Begin, or go on with what was begun with the same inputs and settings."""
    _demand_kept(work)
    if (work.folder / "logs" / "collect" / "completions" / "00000").exists():
        _empty(work)  # of results that were finished, and then removed
    settings, results = work.folder / _MADE_FROM, work.folder / "results"
    if settings.exists():
        _demand_same(read_json_object(settings), made_from, f"{work.folder} is unfinished work")
    elif any(path not in (work.lock, results) for path in work.folder.iterdir()) or _is_something(results):
        raise _in_the_way(f"{work.folder} is there and was not made by this command")
    # The settings come first: whatever else lies here has them beside it.
    write_json(settings, made_from)
    results.mkdir(exist_ok=True)


def _demand_same(before: dict[str, Any], now: dict[str, Any], what: str) -> None:
    old, new = _essence(before), _essence(now)
    if old["skip_bad"] < new["skip_bad"]:
        old["skip_bad"] = new["skip_bad"]  # what was written under the lower limit is within the higher one
    if old != new:
        raise _in_the_way(f"{what} from other inputs or settings: {differences(old, new)}")


def _essence(made_from: dict[str, Any]) -> dict[str, Any]:
    """What the results come of. An input is known by its name without folder, its size and its time of change."""
    inputs = [entry | {"name": Path(entry["name"]).name} for entry in made_from["inputs"]]
    return {"verb": made_from["verb"], "version": made_from["version"], "inputs": inputs} | made_from["settings"]


def _demand_kept(work: Work) -> None:
    """Raise DataError, and take the work away, when it has come to its end and no pair was left."""
    if not (work.folder / _NOTHING_KEPT).exists():
        return
    report = read_json_object(work.folder / _NOTHING_KEPT)
    remove_folder(work.folder)
    named = ", ".join(dict.fromkeys(str(Path(part["input"]).parent) for part in report["parts"]))
    if not report["read"]:
        raise DataError(f"{named} holds no pairs", expected="one pair at least", mend="name another input")
    reasons = "; ".join(f"{reason}, {counted(count, 'time')}" for reason, count in report["removed"].items())
    raise DataError(
        f"of the {counted(report['read'], 'pair')} of {named} none is kept ({reasons})",
        expected="one pair at least to keep",
        mend="change the settings that remove, or name other inputs",
    )


def _empty(work: Work) -> None:
    for path in work.folder.iterdir():
        if path.is_dir():
            remove_folder(path)
        elif path != work.lock:
            path.unlink()


def _tidy(work: Work, out: Path) -> None:
    """Keep the logs with the results, and nothing else."""
    if not work.folder.exists():
        return
    if not (out / "logs").exists() and (work.folder / "logs").exists():
        (work.folder / "logs").replace(out / "logs")
    remove_folder(work.folder)


def _in_the_way(given: str) -> DataError:
    return DataError(
        given,
        expected="a new folder, or one that the same command began on the same inputs",
        mend="choose another --out, or remove that one yourself",
    )

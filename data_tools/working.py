"""OUT.work: the folder beside OUT in which a command works restartably, and the plan that tells its run from others."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from data_tools.differences import differences
from data_tools.work import REPORT, alone
from largede.errors import DataError
from largede.files import read_json_object, remove_folder, write_json

COMPLETE = "complete.json"
"""In the folder of a stage whose tasks are all done and may have been removed."""

Plan = dict[str, Any]
Essence = Callable[[Plan], Plan]
"""What of a plan has to be equal for two runs to be the same."""

_PLAN = "plan.json"


def working_folder(out: Path) -> Path:
    return out.with_name(f"{out.name}.work")


@contextmanager
def working(out: Path, plan: Plan, essence: Essence, keeps: Sequence[str] = ()) -> Iterator[Plan]:
    """Hold the working folder of `out`, new or left by a stopped run of the same, against other processes.

    Yields `plan` with what it `keeps` of an earlier run. Raises DataError for work of another plan. When the block ends
    with an error before any task was finished, the folder goes: nothing is lost, and a corrected command may come.
    """
    work = working_folder(out)
    work.mkdir(parents=True, exist_ok=True)
    with alone(work / "lock") as held:
        if not held:
            raise DataError(
                f"another process is writing {out}",
                expected="one at a time",
                mend="wait for it, or choose another --out",
            )
        before = _plan_in(work)
        if before is not None and essence(before) != essence(plan):
            differing = differences(essence(before), essence(plan))
            raise DataError(
                f"{work} was left by a run with other inputs or settings: {differing}",
                expected="the same command again, to go on with it (inputs are known by their paths)",
                mend="remove that folder to begin anew, or choose another --out",
            )
        plan = plan | {key: before[key] for key in keeps} if before is not None else plan
        write_json(work / _PLAN, plan)
        try:
            yield plan
        except BaseException:
            if not any(work.glob(f"*/*/{REPORT}")) and not any(work.glob(f"*/{COMPLETE}")):
                remove_folder(work)
            raise


def remove_finished(out: Path, plan: Plan, essence: Essence) -> None:
    """Remove what a run of the same left that was killed after `out` had appeared."""
    work = working_folder(out)
    before = _plan_in(work)
    if before is not None and essence(before) == essence(plan):
        remove_folder(work)


def _plan_in(work: Path) -> Plan | None:
    return read_json_object(work / _PLAN) if (work / _PLAN).exists() else None

"""The same stages on the cores of one machine, through Slurm, or on a Ray cluster: datatrove's executors, kept quiet.

Datatrove marks every finished task; a task that has its mark is not run again by any of them.
"""

import contextlib
import copy
import multiprocessing
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from datatrove.executor.local import LocalPipelineExecutor
from datatrove.executor.ray import RayPipelineExecutor
from datatrove.executor.slurm import SlurmPipelineExecutor
from datatrove.utils.logging import logger

from data_tools.pipelines.watch import watched
from data_tools.pipelines.work import Stage, Work, sharing
from data_tools.termination import with_processes
from data_tools.work import leave_with_parent
from largede.errors import DataError, MachineError
from largede.files import read_json_object, write_json
from largede.processors import processors


class Executor(Protocol):
    def execute(self, stages: Sequence[Stage], work: Work) -> str | None:
        """Run the stages to their end (None), or say what still runs elsewhere.

        Raises what a task raised where that can be known, MachineError otherwise.
        """


@dataclass(frozen=True)
class Local:
    """`workers` tasks at a time on this machine."""

    workers: int

    def execute(self, stages: Sequence[Stage], work: Work) -> None:
        logger.remove()  # what datatrove says about tasks is in their log files
        for stage in stages:
            with watched(stage, work):
                _QuietLocal(
                    stage.steps,
                    tasks=stage.tasks,
                    workers=min(self.workers, stage.tasks),
                    logging_dir=str(work.logs(stage)),
                    lock=work.lock,
                ).run()


class _QuietLocal(LocalPipelineExecutor):
    """Logs go to files alone, the first error ends the stage, and no task outlives the command.

    Datatrove's own pool leaves processes behind when the command is killed.
    """

    def __init__(self, *args: Any, lock: Path, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.lock = lock

    def run(self) -> None:
        ranks = self.get_incomplete_ranks()
        if not ranks:
            return
        self.save_executor_as_json()
        if self.workers == 1:
            for rank in ranks:
                copy.deepcopy(self).run_task(rank)
        else:
            self._run_in_processes(ranks)

    def _run_in_processes(self, ranks: list[int]) -> None:
        context = multiprocessing.get_context("forkserver")
        # Imported once, before the processes are forked from it.
        context.set_forkserver_preload([type(step).__module__ for step in self.pipeline])
        with with_processes() as started, ProcessPoolExecutor(self.workers, context, leave_with_parent) as pool:
            tasks = [pool.submit(self.run_task, rank) for rank in ranks]
            started()
            try:
                for task in as_completed(tasks):
                    task.result()
            except BrokenProcessPool:
                raise MachineError(
                    "a task ended without a word, probably for want of memory",
                    expected="memory for as many tasks as --workers",
                    mend="give the same command again with fewer --workers",
                ) from None
            finally:
                pool.shutdown(cancel_futures=True)

    def run_task(self, rank: int) -> None:
        with sharing(self.lock), open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):
            try:
                self._run_for_rank(rank)
            finally:
                logger.remove()


@dataclass(frozen=True)
class Ray:
    """Tasks on the Ray cluster that RAY_ADDRESS names, or on one started here for the purpose."""

    workers: int
    memory_gib: int
    tasks_per_job: int

    def execute(self, stages: Sequence[Stage], work: Work) -> None:
        try:
            import ray
        except ImportError:
            raise MachineError(
                "Ray is not installed", expected="the package ray", mend="pip install ray, or use another --executor"
            ) from None
        logger.remove()
        ray.init(log_to_driver=False, logging_level="ERROR", include_dashboard=False)
        try:
            for stage in stages:
                self._execute_stage(stage, work)
        finally:
            ray.shutdown()

    def _execute_stage(self, stage: Stage, work: Work) -> None:
        with watched(stage, work):
            RayPipelineExecutor(
                stage.steps,
                tasks=stage.tasks,
                workers=min(self.workers, stage.tasks),
                logging_dir=str(work.logs(stage)),
                mem_per_cpu_gb=self.memory_gib,
                tasks_per_job=self.tasks_per_job,
            ).run()
        demand_finished(stage, work)


def demand_finished(stage: Stage, work: Work) -> None:
    """Raise MachineError when a task of the stage has not ended well."""
    unfinished = work.unfinished(stage)
    if unfinished:
        raise MachineError(
            f"{len(unfinished)} of {stage.tasks} tasks of {stage.name} failed, the first is task {unfinished[0]}",
            expected="every task to end well",
            mend=f"read its log in {work.logs(stage)}, mend the cause and give the same command again"
            f" (where inputs had to change, remove {work.folder} first)",
        )


@dataclass(frozen=True)
class Slurm:
    """Array jobs, one behind the other, submitted with sbatch; `wait` stays until they have ended."""

    partition: str
    time: str
    workers: int | None
    memory_gib: int
    tasks_per_job: int
    qos: str | None
    wait: bool

    def execute(self, stages: Sequence[Stage], work: Work) -> str | None:
        self._demand_slurm()
        logger.remove()
        jobs = work.folder / "slurm_jobs.json"
        waiting = _queued(read_json_object(jobs)["ids"]) if jobs.exists() else []
        if not waiting:
            waiting = self._submit(stages, work)
            write_json(jobs, {"ids": waiting})
        while self.wait and waiting:
            time.sleep(2)
            waiting = _queued(waiting)
        if waiting:
            return _standing(stages, work, waiting)
        for stage in stages:
            demand_finished(stage, work)
        return None

    def _submit(self, stages: Sequence[Stage], work: Work) -> list[str]:
        """The ids of the submitted jobs; datatrove leaves out stages whose tasks are all done."""
        chain: list[SlurmPipelineExecutor] = []
        for stage in stages:
            executor = self._executor(stage, work, chain[-1] if chain else None)
            # sbatch says which job it made on standard output, datatrove's messages go nowhere.
            executor.launch_job()
            chain.append(executor)
        return [executor.job_id for executor in chain if executor.job_id != -1]

    def _executor(self, stage: Stage, work: Work, depends: SlurmPipelineExecutor | None) -> SlurmPipelineExecutor:
        return SlurmPipelineExecutor(
            stage.steps,
            tasks=stage.tasks,
            time=self.time,
            partition=self.partition,
            mem_per_cpu_gb=self.memory_gib,
            workers=self.workers or -1,
            job_name=f"largede-{stage.name}",
            qos=self.qos,
            env_command=_environment(),
            # Without it, jobs behind a failed one wait for ever.
            sbatch_args={"kill-on-invalid-dep": "yes"},
            depends=depends,
            logging_dir=str(work.logs(stage)),
            tasks_per_job=self.tasks_per_job,
        )

    def _demand_slurm(self) -> None:
        if "SLURM_ARRAY_TASK_ID" in os.environ:
            raise MachineError(
                "this runs inside a Slurm array job",
                expected="a login node, or a job that is no array",
                mend="give the command where jobs are submitted from",
            )
        for program in ("sbatch", "squeue"):
            if shutil.which(program) is None:
                raise MachineError(
                    f"there is no program {program}",
                    expected="Slurm's commands on the PATH",
                    mend="give the command on a node of the cluster, or use --executor local",
                )


def _environment() -> str:
    """Shell lines that give a job this Python, also where the submitting shell had not activated it."""
    lines = [f"export PATH={str(Path(sys.executable).parent)!r}:$PATH"]
    if os.environ.get("PYTHONPATH"):
        lines.append(f"export PYTHONPATH={os.environ['PYTHONPATH']!r}")
    return "; ".join(lines)


def _queued(ids: Sequence[str]) -> list[str]:
    """Those of the jobs that wait or run. squeue fails when it has forgotten a job, which then has ended."""
    found = []
    for job in ids:
        asked = subprocess.run(["squeue", "-h", "-j", str(job), "-o", "%F"], capture_output=True, text=True)
        if asked.returncode == 0 and asked.stdout.strip():
            found.append(str(job))
        elif asked.returncode != 0 and "Invalid job id" not in asked.stderr:
            raise MachineError(
                f"squeue failed: {asked.stderr.strip()}",
                expected="an answer about the jobs submitted earlier",
                mend="give the same command again when Slurm answers",
            )
    return found


def _standing(stages: Sequence[Stage], work: Work, waiting: Sequence[str]) -> str:
    done = ", ".join(f"{stage.name} {stage.tasks - len(work.unfinished(stage))} of {stage.tasks}" for stage in stages)
    return (
        f"Slurm jobs {', '.join(waiting)} wait or run; tasks done: {done}\n"
        f"logs in {work.folder / 'logs'}; give the same command again to see how far they are"
    )


def executor_of(kind: str, options: dict[str, Any]) -> Executor:
    """The executor that the flags describe. Raises DataError when Slurm is to run without partition or time."""
    workers, memory, per_job = options["workers"], options["memory_gib"], options["tasks_per_job"]
    if kind == "ray":
        return Ray(workers or processors(), memory, per_job)
    if kind == "local":
        return Local(workers or processors())
    for flag in ("slurm_partition", "slurm_time"):
        if not options[flag]:
            raise DataError(
                f"--executor slurm without --{flag.replace('_', '-')}",
                expected="a partition and a time limit for each task",
                mend="add for example --slurm-partition cpu --slurm-time 04:00:00",
            )
    return Slurm(
        options["slurm_partition"],
        options["slurm_time"],
        workers,
        memory,
        per_job,
        options["slurm_qos"],
        options["wait"],
    )

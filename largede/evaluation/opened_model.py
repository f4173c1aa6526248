"""What `--model` may name: a model folder (ours or a published one), or a run folder or checkpoint, exported first."""

import multiprocessing
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from largede.errors import LargedeError, MachineError, ModelError
from largede.retrieval.encoder import Model, is_model_folder, open_model
from largede.retrieval.processes import Process
from largede.runs.evaluated import fingerprint_of_checkpoint
from largede.runs.files import CHECKPOINTS

LONGEST_EXPORT = timedelta(days=2)
VISIBLE_WITHIN_S = 120.0


def say_aloud(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def open_any_model(
    path: Path,
    work: Path,
    *,
    device: str | None = None,
    dtype: str = "float32",
    process: Process | None = None,
    say: Callable[[str], None] = say_aloud,
) -> Model:
    """A model that is not loaded yet.

    A run folder (its newest sound checkpoint) or a step-… folder is exported to a folder in `work` that is named after
    the checkpoint's fingerprint, unless it is there. Every process of a launcher calls this: the first one chooses the
    checkpoint and exports, the others wait for it, so all use the same while the run goes on.

    Raises:
        ModelError: `path` is none of these, or a model folder that `work` lies in.
        CheckpointError: no checkpoint there, or a damaged one; on all processes.
        MachineError: not enough room; or `work` is on a disk that another process does not see.
    """
    if is_model_folder(path):
        if path.resolve() in work.resolve().parents:
            raise ModelError(
                f"--out lies within the model folder {path}",
                expected="a folder outside it: what is written there would make another model of it",
                mend="name another --out",
            )
        return open_model(path, device=device, dtype=dtype)
    if not _is_ours(path):
        raise ModelError(
            f"{path} is no model" if path.exists() else f"there is no model folder {path}",
            expected="a folder that `largede export` or sentence-transformers wrote, a run folder, or a step-… folder",
            mend="check --model",
        )
    process = process or Process()
    name = _export_once(path, work, say) if process.world_size == 1 else _first_exports(process, path, work)
    _wait_for(work / name)
    return replace(open_model(work / name, device=device, dtype=dtype), name=name.rpartition(".")[0])


def _is_ours(path: Path) -> bool:
    return (path / CHECKPOINTS).is_dir() or (path / "state.json").is_file()


def _export_once(path: Path, work: Path, say: Callable[[str], None]) -> str:
    """The name in `work` of the export of this checkpoint, which is made if it is not there."""
    from largede.training.export import export_checkpoint, newest_of

    found = path / CHECKPOINTS / newest_of(path / CHECKPOINTS) if (path / CHECKPOINTS).is_dir() else path
    if (found / "state.json").is_file() and is_model_folder(work / _export_name(found)):
        return _export_name(found)
    # The name is known only afterwards: of a run whose newest checkpoint is damaged, the one before is taken.
    made = work / ".being-exported"
    found = export_checkpoint(path, made, again=True, say=say)
    name = _export_name(found)
    if is_model_folder(work / name):
        return name
    made.rename(work / name)
    return name


def _export_name(checkpoint: Path) -> str:
    """RUN-step-00001000.FINGERPRINT"""
    run = checkpoint.resolve().parent.parent.name
    return f"{run}-{checkpoint.name}.{fingerprint_of_checkpoint(checkpoint)[:12]}"


def _first_exports(process: Process, path: Path, work: Path) -> str:
    """What `_export_once` gives on the first process, or its error, on every process."""
    import torch.distributed as dist

    # A group of its own: the launcher's would give up after minutes. When the first process dies, it breaks at once.
    group = dist.new_group(backend="gloo", timeout=LONGEST_EXPORT)
    answer: list[str | LargedeError | None] = [None]
    if process.is_first:
        # In a process without ranks: where there are some, looking for a sound checkpoint is a matter of all of them.
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as alone:
            try:
                answer = [alone.submit(_export_once, path, work, say_aloud).result()]
            except LargedeError as error:
                answer = [error]
    dist.broadcast_object_list(answer, src=0, group=group)
    dist.destroy_process_group(group)
    if isinstance(answer[0], LargedeError):
        raise answer[0]
    return str(answer[0])


def _wait_for(folder: Path) -> None:
    """Network file systems show a new folder late to other hosts."""
    began = time.monotonic()
    while not is_model_folder(folder):
        if time.monotonic() - began > VISIBLE_WITHIN_S:
            raise MachineError(
                f"{folder} was made by the first process and cannot be seen from here",
                expected="a folder on a disk that all hosts share",
                mend="name another --out",
            )
        time.sleep(0.2)

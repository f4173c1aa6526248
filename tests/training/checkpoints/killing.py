"""Runs of real processes that are killed at random moments, and what is left of them.

Run as a program, it kills many times and prints what each kill hit:

    python tests/training/checkpoints/killing.py --kills 20 --slow-writer 1 --out FOLDER

A small checkpoint is written in an instant, which kills would hardly ever hit; `--slow-writer` stretches it.
"""

import argparse
import json
import mmap
import multiprocessing
import os
import random
import signal
import socket
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from batches_for_tests import small_recipe
from made_world import MadeWorld, make_world
from ranks import start_server

from largede.config.recipe import Recipe
from largede.files import sha256_file
from largede.training.checkpoints.state import read_state

WORLD = 2
MAIN = ("starting", "loading", "stepping", "saving", "waiting for slices", "publishing", "ending", "exporting")
PATIENCE_S = 600.0
FIELDS = 3
"""Bytes of a rank on the board: what its main thread does, whether its writer writes, its steps modulo 256."""

processes = multiprocessing.get_context("forkserver")


def tells_of_saving(phase: str) -> bool:
    return any(word in phase for word in ("saving", "writing", "waiting", "publishing"))


class Board:
    """What every rank is doing, in a file that all see at once and that outlives whoever wrote to it."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            path.write_bytes(bytes(FIELDS * WORLD))
        with path.open("r+b") as file:
            self.memory = mmap.mmap(file.fileno(), 0)

    def note(self, rank: int, field: int, value: int) -> None:
        self.memory[FIELDS * rank + field] = value

    def noted(self, rank: int, field: int) -> int:
        return self.memory[FIELDS * rank + field]

    def phase(self, rank: int) -> str:
        main, writing, _ = self.memory[FIELDS * rank : FIELDS * (rank + 1)]
        return MAIN[main] + (" and writing" if writing else "")

    def is_saving(self, rank: int) -> bool:
        return tells_of_saving(self.phase(rank))

    def steps(self) -> int:
        return self.memory[2]


@dataclass(frozen=True)
class Hit:
    """One kill: what each rank that was killed was doing, and how long the ranks that were left took to end."""

    whom: str
    phases: dict[int, str]
    others_ended_s: float | None

    @property
    def is_of_saving(self) -> bool:
        return any(map(tells_of_saving, self.phases.values()))


def note_phases(board: Board, rank: int) -> None:
    """Have this process write down what it is doing."""
    from largede.training.checkpoints import background as saving
    from largede.training.trainer import Trainer

    def noted(owner: Any, name: str, during: int, after: int | None = None, field: int = 0) -> None:
        """While a function runs, `during` is noted; then `after`, or what was noted before."""
        original = getattr(owner, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            before = board.noted(rank, field)
            board.note(rank, field, during)
            try:
                return original(*args, **kwargs)
            finally:
                board.note(rank, field, before if after is None else after)

        setattr(owner, name, call)

    noted(Trainer, "__init__", MAIN.index("loading"), MAIN.index("stepping"))
    noted(Trainer, "close", MAIN.index("ending"), MAIN.index("ending"))
    noted(saving.CheckpointSaver, "save", MAIN.index("saving"))
    noted(saving.CheckpointSaver, "_publish", MAIN.index("waiting for slices"))
    noted(saving, "publish", MAIN.index("publishing"))
    noted(saving, "write_files", 1, field=1)
    original = Trainer.train_step

    def train_step(self: Trainer) -> Any:
        report = original(self)
        board.note(rank, 2, self.steps_done % 256)
        return report

    Trainer.train_step = train_step  # type: ignore[method-assign]


def slow_the_writer(seconds: float) -> None:
    """Stretch what a kill could tear: every file is written in about so many seconds, and published in as many.

    A file's pace is drawn anew each time, so that now one rank waits for the other's slices, now the other.
    """
    from largede.training.checkpoints import tensor_file, write

    pieces_of = tensor_file._pieces

    def slow_pieces(file: tensor_file.TensorFile) -> Iterator[Any]:
        pause = random.uniform(0, 2 * seconds) / (1 + len(file.tensors))
        for piece in pieces_of(file):
            time.sleep(pause)
            yield piece

    def after_a_pause(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            time.sleep(seconds / 4)
            return original(*args)

        return call

    tensor_file._pieces = slow_pieces
    # Without state.json; with it, not yet renamed; renamed, not yet synced; the old ones still there.
    for name in ("write_json", "sync_folder", "retire"):
        setattr(write, name, after_a_pause(getattr(write, name)))


def one_rank(rank: int, port: int, recipe: Recipe, board: str, log: str, slow_writer_s: float) -> None:
    """A process of its own: one rank of a run, as the command would be it."""
    number = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(number, 1)
    os.dup2(number, 2)
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(WORLD), LOCAL_WORLD_SIZE=str(WORLD))
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), CUDA_VISIBLE_DEVICES="", DS_ACCELERATOR="cpu")
    note_phases(Board(Path(board)), rank)
    if slow_writer_s:
        slow_the_writer(slow_writer_s)
    status = 0
    try:
        from largede.training.trainer import train

        train(recipe, lambda line: print(line, flush=True))
    except SystemExit as leaving:
        status = int(leaving.code or 0)
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    os._exit(status)


def one_export(checkpoint: str, out: str, board: str, log: str) -> None:
    """A process of its own: the export of a checkpoint."""
    number = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(number, 1)
    os.dup2(number, 2)
    from largede.training.export import export_checkpoint

    Board(Path(board)).note(0, 0, MAIN.index("exporting"))
    export_checkpoint(Path(checkpoint), Path(out))
    os._exit(0)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(recipe: Recipe, slow_writer_s: float = 0.0) -> Iterator[tuple[list[Any], Board]]:
    """The ranks of a run, and what they are doing; on the way out, none is left alive."""
    folder = Path(recipe.run.out).parent
    board = folder / "board"
    board.unlink(missing_ok=True)
    shared, port = Board(board), free_port()
    log = str(folder / f"{Path(recipe.run.out).name}.log")
    rest = (port, recipe, str(board), log, slow_writer_s)
    ranks = [processes.Process(target=one_rank, args=(rank, *rest)) for rank in range(WORLD)]
    for process in ranks:
        process.start()
    try:
        yield ranks, shared
    finally:
        for process in ranks:
            process.kill()
            process.join()


def wait_until(condition: Callable[[], bool], what: str) -> None:
    limit = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > limit:
            raise AssertionError(f"not within {PATIENCE_S} s: {what}")
        time.sleep(0.001)


def run_through(recipe: Recipe) -> list[int]:
    """Run to the end; the exit status of each rank."""
    with running(recipe) as (ranks, _):
        for process in ranks:
            process.join(PATIENCE_S)
        return [process.exitcode for process in ranks]


def wait_for_a_moment(has_ended: Callable[[], bool], board: Board, chance: random.Random, slow_writer_s: float) -> None:
    """Amid loading, saving (half of the time, if the writer is slow) or the next steps; at once if the run ended."""
    wait_until(lambda: has_ended() or board.phase(0) != "starting", "the ranks to start")
    drawn = chance.random()
    if drawn < 0.2:
        time.sleep(chance.uniform(0, 2))
        return
    wait_until(lambda: has_ended() or board.phase(0) != "loading", "loading")
    if slow_writer_s and drawn < 0.7:
        wait_until(lambda: has_ended() or any(board.is_saving(rank) for rank in range(WORLD)), "saving")
        time.sleep(chance.uniform(0, 2 * slow_writer_s))
        return
    began, further = board.steps(), chance.randrange(6)
    wait_until(lambda: has_ended() or (board.steps() - began) % 256 >= further, "steps")
    time.sleep(chance.uniform(0, 0.15))


def run_and_kill(recipe: Recipe, whom: str, chance: random.Random, slow_writer_s: float) -> Hit | None:
    """Kill `all` ranks or `one` at a random moment; None if the run ended before."""
    with running(recipe, slow_writer_s) as (ranks, board):
        has_ended = lambda: all(process.exitcode is not None for process in ranks)  # noqa: E731
        wait_for_a_moment(has_ended, board, chance, slow_writer_s)
        if has_ended():
            return None
        victims = list(range(WORLD)) if whom == "all" else [chance.randrange(WORLD)]
        for victim in victims:
            os.kill(ranks[victim].pid, signal.SIGKILL)
        phases, killed = {victim: board.phase(victim) for victim in victims}, time.monotonic()
        for process in ranks:
            process.join(PATIENCE_S)
            assert process.exitcode is not None, "a rank outlived the other"
        return Hit(whom, phases, None if whom == "all" else time.monotonic() - killed)


def survive(recipe: Recipe, whom: list[str], chance: random.Random, slow_writer_s: float = 0.0) -> list[Hit]:
    """Start a run again and again, killing it as often as `whom` says, and then let it end."""
    hits: list[Hit] = []
    for number, victims in enumerate(whom):
        hit = run_and_kill(recipe, victims, chance, slow_writer_s)
        refuse_half_checkpoints(Path(recipe.run.out))
        if hit is None:
            print(f"the run ended before kill {number + 1}", flush=True)
            break
        hits.append(hit)
        print(hit, flush=True)
    assert run_through(recipe) == [0] * WORLD, Path(f"{recipe.run.out}.log").read_text()[-3000:]
    return hits


def refuse_half_checkpoints(out: Path) -> None:
    """Whatever has a checkpoint's name is whole."""
    for checkpoint in (out / "checkpoints").glob("step-*"):
        for name, facts in read_state(checkpoint).files.items():
            assert sha256_file(checkpoint / name) == facts["sha256"], checkpoint / name


def refuse_leftovers(out: Path, steps: int) -> None:
    """After the end there are the two checkpoints to keep, which one is the latest, and nothing else."""
    names = {path.name for path in (out / "checkpoints").iterdir()}
    assert names == {f"step-{steps - 2:08d}", f"step-{steps:08d}", "latest.json"}, names


def curve(out: Path) -> list[tuple[float, ...]]:
    """What a run wrote of each step, its clock and memory apart."""
    lines = [json.loads(line) for line in (out / "figures.jsonl").read_text(encoding="utf-8").splitlines()]
    kept = ("step", "loss/contrastive", "optimizer/gradient_norm", "quality/in_batch_mrr")
    return [tuple(line[name] for name in kept) for line in lines]


def end_of(out: Path, steps: int) -> dict[str, Any]:
    """Size and checksum of every file of the last checkpoint: weights, moments, all of it."""
    return read_state(out / "checkpoints" / f"step-{steps:08d}").files


def kill_exports(checkpoint: Path, folder: Path, kills: int, chance: random.Random) -> list[str]:
    """Kill exports at random moments; what is left each time. Then an export must end well and give the same."""
    board, log = folder / "export-board", str(folder / "export.log")
    shared = Board(board)
    whole = folder / "whole-export"

    def start(out: Path) -> Any:
        shared.note(0, 0, 0)
        process = processes.Process(target=one_export, args=(str(checkpoint), str(out), str(board), log))
        process.start()
        wait_until(lambda: process.exitcode is not None or shared.phase(0) == "exporting", "the export to start")
        return process

    began, process = time.monotonic(), start(whole)
    began = time.monotonic()
    process.join(PATIENCE_S)
    took, out, left = time.monotonic() - began, folder / "killed-export", []
    assert process.exitcode == 0, Path(log).read_text()[-3000:]
    for _ in range(kills):
        process = start(out)
        time.sleep(chance.uniform(0, took))
        process.kill()
        process.join()
        left.append("whole" if out.exists() else "nothing")
        if out.exists():
            assert contents(out) == contents(whole)
            os.rename(out, folder / f"ended-before-the-kill-{len(left)}")
    process = start(out)
    process.join(PATIENCE_S)
    assert process.exitcode == 0 and contents(out) == contents(whole)
    return left


def contents(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): sha256_file(p) for p in sorted(folder.rglob("*")) if p.is_file()}


def recipe_to_kill(world: MadeWorld, folder: Path, out: str, steps: int) -> Recipe:
    """Saves at every second step and keeps few, so that kills meet saving, publishing and removing often."""
    recipe = small_recipe(
        folder,
        3,
        model__tokenizer=str(world.vocabulary),
        model__dropout=0.1,
        data__shards=str(world.shards),
        data__lanes=2,
        data__hard_negatives=1,
        batch__queries=16,
        batch__chunk_tokens=120,
        optimizer__learning_rate=0.01,
        run__steps=steps,
        run__log_every=1,
        run__checkpoint_every=2,
        run__keep_checkpoints=2,
        run__dry_run=False,
        engine__cpu_threads=1,
    )
    return replace(recipe, run=replace(recipe.run, out=str(folder / out)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20, help="of each sort")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--slow-writer", type=float, default=0.0, help="seconds; see `slow_the_writer`")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sorts", nargs="+", choices=("all", "one", "export"), default=["all", "one", "export"])
    args = parser.parse_args()
    args.out.mkdir(parents=True)
    start_server()
    world = make_world(args.out)
    steps = 3 * args.kills + args.kills % 2  # even: the last is a checkpoint like the others
    through = recipe_to_kill(world, args.out, "through", steps)
    assert run_through(through) == [0] * WORLD
    chance = random.Random(args.seed)
    for whom in [sort for sort in args.sorts if sort != "export"]:
        hits: list[Hit] = []
        for part in range(10 * args.kills):
            if len(hits) >= args.kills:
                break
            recipe = recipe_to_kill(world, args.out, f"{whom}-{part}", steps)
            hits += survive(recipe, [whom] * (args.kills - len(hits)), chance, args.slow_writer)
            same = curve(Path(recipe.run.out)) == curve(Path(through.run.out))
            same_end = end_of(Path(recipe.run.out), steps) == end_of(Path(through.run.out), steps)
            print(f"{whom}: run {part} ended; curve equal: {same}; last checkpoint equal: {same_end}", flush=True)
            assert same and same_end
            refuse_leftovers(Path(recipe.run.out), steps)
        print(f"kills of {whom}: {len(hits)}, {sum(hit.is_of_saving for hit in hits)} of them amid saving")
        for (rank, phase), count in sorted(Counter(hurt for hit in hits for hurt in hit.phases.items()).items()):
            print(f"  {count:3}  rank {rank} {phase}")
        waits = sorted(hit.others_ended_s for hit in hits if hit.others_ended_s is not None)
        if waits:
            print(f"  the other rank ended after {waits[0]:.2f} to {waits[-1]:.2f} s", flush=True)
    if "export" in args.sorts:
        last = Path(through.run.out) / "checkpoints" / f"step-{steps:08d}"
        left = kill_exports(last, args.out, args.kills, chance)
        print(f"kills of export: {len(left)}, left: {dict(Counter(left))}")


if __name__ == "__main__":
    main()

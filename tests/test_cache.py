from pathlib import Path

import pytest

from largede.cache import cache_folder


def test_the_cache_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LARGEDE_CACHE", str(tmp_path / "own"))
    assert cache_folder("datasets") == tmp_path / "own" / "datasets"
    monkeypatch.delenv("LARGEDE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder("datasets", "nq") == tmp_path / "largede" / "datasets" / "nq"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "largede"

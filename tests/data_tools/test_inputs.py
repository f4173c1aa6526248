from pathlib import Path

import pytest

from data_tools.inputs import input_files, refuse_twice
from largede.errors import DataError


def test_a_file_named_twice_is_refused_by_whatever_way_it_is_named(tmp_path: Path) -> None:
    folder, part = tmp_path / "parts", tmp_path / "parts" / "a.jsonl"
    folder.mkdir()
    part.write_text("{}\n")
    (folder / "b.jsonl").write_text("{}\n")
    (tmp_path / "link").symlink_to(folder)
    assert [file.path.name for file in input_files([folder])] == ["a.jsonl", "b.jsonl"]
    for inputs in (
        [folder, folder],
        [folder, part],
        [part, folder / ".." / "parts" / "a.jsonl"],
        [folder, tmp_path / "link"],
    ):
        with pytest.raises(DataError, match="a.jsonl is named twice"):
            input_files(inputs)


def test_each_of_many_paths_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = []
    resolve = Path.resolve

    def noted(path: Path) -> Path:
        looks.append(path)
        return resolve(path)

    monkeypatch.setattr(Path, "resolve", noted)
    paths = [Path(f"dump-{number}") for number in range(500)]
    refuse_twice(paths)
    assert looks == paths

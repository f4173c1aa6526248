import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data_tools.cli import main
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


VERBS = ["shard", "filter", "dedup", "vocabulary"]
FAULTS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "lost": (lambda folder: (folder / "part-00001.jsonl.zst").unlink(), "part-00001.jsonl.zst is missing"),
    "cut": (
        lambda folder: os.truncate(folder / "part-00001.jsonl.zst", 9),
        "part-00001.jsonl.zst has 9 bytes, not",
    ),
    "added": (lambda folder: (folder / "more.jsonl").write_text("{}\n"), "more.jsonl is no part of what was written"),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders that `pairs` and `filter` wrote, of three parts each."""
    folder = tmp_path_factory.mktemp("made")
    lines = [{"query": f"question number {i}", "positive": f"The answer to {i} is {i} apples."} for i in range(30)]
    (folder / "all.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    pairs = ["pairs", "jsonl", str(folder / "all.jsonl"), "--out", str(folder / "pairs"), "--part-pairs", "10"]
    assert main(pairs) == 0
    assert main(["filter", str(folder / "pairs"), "--out", str(folder / "filter"), "--workers", "1"]) == 0
    return folder


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("writer", ["pairs", "filter"])
def test_every_verb_reads_a_folder_by_its_manifest(
    writer: str, fault: str, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "parts"
    shutil.copytree(made / writer, folder)
    assert [file.path.name for file in input_files([folder])] == [f"part-0000{i}.jsonl.zst" for i in range(3)]
    damage, message = FAULTS[fault]
    damage(folder)
    for verb in VERBS:
        assert main([verb, str(folder), "--out", str(tmp_path / verb)]) == 2
        assert message in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["parts"]


def test_a_second_run_does_not_take_a_folder_without_a_part_for_finished(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["pairs", "jsonl", str(made / "all.jsonl"), "--out", str(tmp_path / "out"), "--part-pairs", "10"]
    assert main(command) == 0 and main(command) == 0
    (tmp_path / "out" / "part-00002.jsonl.zst").unlink()
    assert main(command) == 2
    assert "part-00002.jsonl.zst is missing" in capsys.readouterr().err


def test_a_manifest_of_another_shape_is_refused(tmp_path: Path) -> None:
    for parts in ([{"name": "a.jsonl"}], ["a.jsonl"], [{"name": "a.jsonl", "bytes": "many"}]):
        (tmp_path / "pairs.json").write_text(json.dumps({"parts": parts}))
        with pytest.raises(DataError, match="pairs.json does not give name and bytes of every part"):
            input_files([tmp_path])


def test_a_report_that_names_no_parts_is_no_manifest(tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text('{"figures": {}}')
    (tmp_path / "a.jsonl").write_text("{}\n")
    assert [file.path.name for file in input_files([tmp_path])] == ["a.jsonl"]

import json
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard

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


@pytest.mark.parametrize("writer", ["pairs", "filter"])
def test_every_verb_counts_the_pairs_of_a_part(
    writer: str, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A sound part of the same size, with fewer pairs: a frame to be skipped makes up for them."""
    folder = tmp_path / "parts"
    shutil.copytree(made / writer, folder)
    part = folder / "part-00001.jsonl.zst"
    lines = zstandard.ZstdDecompressor().stream_reader(part.read_bytes()).read().splitlines(keepends=True)
    fewer = zstandard.ZstdCompressor().compress(b"".join(lines[:4]))
    missing = part.stat().st_size - len(fewer) - 8
    part.write_bytes(fewer + struct.pack("<II", 0x184D2A50, missing) + b"\0" * missing)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "corpus.jsonl").write_text('{"_id": "d", "title": "", "text": "nothing of the kind"}\n')
    (tmp_path / "empty" / "queries.jsonl").write_text('{"_id": "q", "text": "nothing at all"}\n')
    (tmp_path / "empty" / "qrels").mkdir()
    (tmp_path / "empty" / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq\td\t1\n")
    for verb in [*VERBS, "decontaminate"]:
        command = [verb, str(folder), "--out", str(tmp_path / verb)]
        command += ["--against", str(tmp_path / "empty")] if verb == "decontaminate" else []
        assert main(command) == 2
        assert "part-00001.jsonl.zst holds 4 pairs, not the 10 that were written" in capsys.readouterr().err
        assert not (tmp_path / verb).exists()


def test_bad_lines_that_are_passed_over_count_as_lines_of_a_part(made: Path, tmp_path: Path) -> None:
    folder = tmp_path / "parts"
    shutil.copytree(made / "pairs", folder)
    part = folder / "part-00001.jsonl.zst"
    lines = zstandard.ZstdDecompressor().stream_reader(part.read_bytes()).read().splitlines(keepends=True)
    part.write_bytes(zstandard.ZstdCompressor().compress(b"".join([*lines[:-1], b"no pair\n"])))
    manifest = json.loads((folder / "pairs.json").read_text())
    manifest["parts"][1]["bytes"] = part.stat().st_size
    (folder / "pairs.json").write_text(json.dumps(manifest))
    for verb in ("shard", "filter"):
        assert main([verb, str(folder), "--out", str(tmp_path / verb), "--workers", "1"]) == 2
        assert main([verb, str(folder), "--out", str(tmp_path / verb), "--workers", "1", "--skip-bad", "1"]) == 0


@pytest.mark.parametrize("lost", [0, 1])
def test_a_folder_that_lost_its_manifest_and_a_part_is_refused(
    lost: int, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "parts"
    shutil.copytree(made / "pairs", folder)
    (folder / "pairs.json").unlink()
    assert len(input_files([folder])) == 3
    (folder / f"part-0000{lost}.jsonl.zst").unlink()
    for verb in VERBS:
        assert main([verb, str(folder), "--out", str(tmp_path / verb)]) == 2
        assert f"has a part with number 2, none with number {lost} and no manifest" in capsys.readouterr().err
    assert len(input_files(sorted(folder.iterdir()))) == 2


def test_a_second_run_does_not_take_a_folder_without_a_part_for_finished(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["pairs", "jsonl", str(made / "all.jsonl"), "--out", str(tmp_path / "out"), "--part-pairs", "10"]
    assert main(command) == 0 and main(command) == 0
    (tmp_path / "out" / "part-00002.jsonl.zst").unlink()
    assert main(command) == 2
    assert "part-00002.jsonl.zst is missing" in capsys.readouterr().err


def test_a_manifest_of_another_shape_is_refused(tmp_path: Path) -> None:
    whole = {"name": "a.jsonl", "bytes": 3, "pairs": 1}
    for parts in (
        [{**whole, "bytes": "many"}],
        ["a.jsonl"],
        *([{**whole, key: None}] for key in whole if key != "name"),
    ):
        (tmp_path / "pairs.json").write_text(json.dumps({"parts": parts}))
        with pytest.raises(DataError, match="pairs.json does not give name, bytes and pairs of every part"):
            input_files([tmp_path])


def test_a_report_that_names_no_parts_is_no_manifest(tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text('{"figures": {}}')
    (tmp_path / "a.jsonl").write_text("{}\n")
    assert [file.path.name for file in input_files([tmp_path])] == ["a.jsonl"]

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import zstandard
from made_formats import CHAIN, DYING, PLAIN, MadeOptions

from data_tools import groups
from data_tools import make_pairs as make_pairs_module
from data_tools.format import Format
from data_tools.make_pairs import PairsSettings, make_pairs
from data_tools.pairs import PairReader
from data_tools.parts import pairs_in
from largede.errors import DataError, MachineError
from largede.streams.pair import Pair

OPTIONS = MadeOptions()


def plain_input(path: Path, lines: int, first: int = 0) -> Path:
    path.write_text("".join(f"question {i}|passage {i}\n" for i in range(first, first + lines)))
    return path


def chain_inputs(folder: Path, numbers: int = 300, topics: int = 40) -> list[Path]:
    """Questions in one file, passages in the other, in another order; some of each without the other."""
    questions = "".join(f"q {i} {i % topics} question {i}\n" for i in range(numbers))
    passages = "".join(f"p {i} - passage {i}\n" for i in reversed(range(5, numbers + 5)))
    (folder / "questions").write_text(questions)
    (folder / "passages").write_text(passages)
    return [folder / "questions", folder / "passages"]


def parts(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(out.glob("part-*"))}


def read(out: Path) -> list[Pair]:
    return list(PairReader(pairs_in(out)))


def manifest(out: Path) -> dict[str, object]:
    return dict(json.loads((out / "pairs.json").read_text()))


def test_pairs_come_in_the_order_of_the_inputs_in_parts_of_one_frame(tmp_path: Path) -> None:
    inputs = [plain_input(tmp_path / "b", 25), plain_input(tmp_path / "a", 10, first=25)]
    result = make_pairs(PLAIN, OPTIONS, inputs, tmp_path / "out", PairsSettings(part_pairs=10))
    assert [pair.query for pair in read(tmp_path / "out")] == [f"question {i}" for i in range(35)]
    sizes = [part["pairs"] for part in result.manifest["parts"]]
    assert sizes == [10, 10, 5, 10] and sorted(parts(tmp_path / "out")) == [f"part-0000{i}.jsonl.zst" for i in range(4)]
    for data in parts(tmp_path / "out").values():
        frame = zstandard.ZstdDecompressor().decompressobj()
        text = frame.decompress(data)
        assert frame.eof and not frame.unused_data and text.count(b"\n") in (5, 10)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("out")] == ["out"]


def test_the_manifest_counts_everything(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("q1|p1\nno bar here\n|empty\nand here\n")
    make_pairs(PLAIN, MadeOptions(prefix=""), [tmp_path / "a"], tmp_path / "out", PairsSettings())
    said = manifest(tmp_path / "out")
    assert said["pairs"] == 1 and said["format"] == "plain" and said["options"] == {"prefix": "", "pause_s": 0.0}
    assert said["dropped"] == {
        "no bar": {"count": 2, "example": "no bar here"},
        "question or passage is empty": {"count": 1, "example": "|"},
    }
    [entry] = said["inputs"]  # type: ignore[misc]
    assert entry["bytes"] == 34 and len(entry["sha256"]) == 64
    line = b"".join(
        zstandard.ZstdDecompressor().decompressobj().decompress(d) for d in parts(tmp_path / "out").values()
    )
    assert said["text_bytes"] == len(line)


def test_two_groupings_join_what_lies_apart(tmp_path: Path) -> None:
    make_pairs(CHAIN, OPTIONS, chain_inputs(tmp_path), tmp_path / "out", PairsSettings())
    found = read(tmp_path / "out")
    assert sorted((p.query, p.positive) for p in found) == sorted(
        (f"question {i}", f"passage {i}") for i in range(5, 300)
    )
    assert all(int(p.query.split()[1]) % 40 == int(p.group) for p in found)
    topics = [p.group for p in found]
    assert len([t for t, before in zip(topics, [None, *topics], strict=False) if t != before]) == 40, "a topic is split"
    assert manifest(tmp_path / "out")["dropped"] == {
        "half a pair": {"count": 10, "example": manifest(tmp_path / "out")["dropped"]["half a pair"]["example"]}  # type: ignore[index]
    }


@pytest.mark.parametrize("format", [PLAIN, CHAIN], ids=["plain", "chain"])
def test_the_number_of_processes_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: Format
) -> None:
    inputs = chain_inputs(tmp_path) if format is CHAIN else [plain_input(tmp_path / n, 50) for n in ("a", "b", "c")]
    monkeypatch.setattr(groups, "BUCKET_BYTES", 25_000)
    for workers in (1, 2):
        make_pairs(format, OPTIONS, inputs, tmp_path / f"out{workers}", PairsSettings(workers, part_pairs=7))
    assert parts(tmp_path / "out1") == parts(tmp_path / "out2")
    assert manifest(tmp_path / "out1")["dropped"] == manifest(tmp_path / "out2")["dropped"]


def test_the_size_of_buckets_changes_no_pair_and_no_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = chain_inputs(tmp_path)
    make_pairs(CHAIN, OPTIONS, inputs, tmp_path / "one", PairsSettings())
    monkeypatch.setattr(groups, "BUCKET_BYTES", 3000)
    monkeypatch.setattr(groups, "RUN_BYTES", 2000)
    make_pairs(CHAIN, OPTIONS, inputs, tmp_path / "many", PairsSettings())
    assert len(parts(tmp_path / "many")) > 5
    assert read(tmp_path / "one") == read(tmp_path / "many")


def test_a_second_run_does_nothing(tmp_path: Path) -> None:
    inputs = [plain_input(tmp_path / "a", 25)]
    make_pairs(PLAIN, OPTIONS, inputs, tmp_path / "out", PairsSettings())
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    again = make_pairs(PLAIN, OPTIONS, inputs, tmp_path / "out", PairsSettings(workers=2))
    assert not again.written and "up to date: 25 pairs in 1 part," in str(again)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()} == before


def test_other_inputs_or_options_are_refused_and_nothing_is_touched(tmp_path: Path) -> None:
    one, other = plain_input(tmp_path / "a", 25), plain_input(tmp_path / "b", 25)
    make_pairs(PLAIN, OPTIONS, [one], tmp_path / "out", PairsSettings())
    before = parts(tmp_path / "out")
    for options, inputs, part_pairs in (
        (MadeOptions("x"), [one], 100_000),
        (OPTIONS, [other], 100_000),
        (OPTIONS, [one], 7),
    ):
        with pytest.raises(DataError, match="holds pairs of other inputs or options"):
            make_pairs(PLAIN, options, inputs, tmp_path / "out", PairsSettings(part_pairs=part_pairs))
    plain_input(one, 26)
    with pytest.raises(DataError, match="holds pairs of other inputs or options"):
        make_pairs(PLAIN, OPTIONS, [one], tmp_path / "out", PairsSettings())
    assert parts(tmp_path / "out") == before


@pytest.mark.parametrize("in_the_way", ["file", "folder"])
def test_something_else_at_out_is_refused(tmp_path: Path, in_the_way: str) -> None:
    out = tmp_path / "out"
    if in_the_way == "file":
        out.write_text("precious")
    else:
        out.mkdir()
        (out / "thesis.txt").write_text("precious")
    with pytest.raises(DataError, match="already exists"):
        make_pairs(PLAIN, OPTIONS, [plain_input(tmp_path / "a", 3)], out, PairsSettings())
    assert not (tmp_path / "out.work").exists()


def test_no_pairs_at_all_is_an_error_that_says_why(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("nothing\nhere\n")
    with pytest.raises(DataError, match="no pairs in .*no bar, 2 times"):
        make_pairs(PLAIN, OPTIONS, [tmp_path / "a"], tmp_path / "out", PairsSettings())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a"]


@pytest.mark.parametrize(
    ("names", "complaint"), [(["a", "a"], "named twice"), (["missing"], "does not exist"), ([""], "is a folder")]
)
def test_unusable_inputs_are_named(tmp_path: Path, names: list[str], complaint: str) -> None:
    plain_input(tmp_path / "a", 3)
    with pytest.raises(DataError, match=complaint):
        make_pairs(PLAIN, OPTIONS, [tmp_path / name for name in names], tmp_path / "out", PairsSettings())


def test_a_run_under_way_is_not_joined_by_another(tmp_path: Path) -> None:
    from data_tools.work import alone

    (tmp_path / "out.work").mkdir()
    with alone(tmp_path / "out.work" / "lock") as held:
        assert held
        with pytest.raises(DataError, match="another process is writing"):
            make_pairs(PLAIN, OPTIONS, [plain_input(tmp_path / "a", 3)], tmp_path / "out", PairsSettings())


def test_what_a_stopped_run_left_is_not_used_for_other_options(tmp_path: Path) -> None:
    inputs = [plain_input(tmp_path / "a", 30), damaged(tmp_path / "b.zst")]
    with pytest.raises(DataError, match="cannot be decompressed"):
        make_pairs(PLAIN, OPTIONS, inputs, tmp_path / "out", PairsSettings())
    with pytest.raises(DataError, match="left by a run with other inputs or settings: prefix is 'x', not ''"):
        make_pairs(PLAIN, MadeOptions("x"), inputs, tmp_path / "out", PairsSettings())


@pytest.mark.parametrize("workers", [1, 2])
def test_where_every_input_fails_nothing_is_left_that_another_command_would_find(tmp_path: Path, workers: int) -> None:
    inputs = [damaged(tmp_path / "a.zst"), damaged(tmp_path / "b.zst")]
    with pytest.raises(DataError, match="cannot be decompressed"):
        make_pairs(PLAIN, OPTIONS, inputs, tmp_path / "out", PairsSettings(workers))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zst", "b.zst"]
    sound = [plain_input(tmp_path / "c", 3)]
    assert make_pairs(PLAIN, OPTIONS, sound, tmp_path / "out", PairsSettings(workers)).written


def test_work_whose_first_stage_is_complete_stays_when_the_next_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = chain_inputs(tmp_path)
    monkeypatch.setattr(make_pairs_module, "groups", None)
    with pytest.raises(TypeError):
        make_pairs(CHAIN, OPTIONS, inputs, tmp_path / "out", PairsSettings())
    assert (tmp_path / "out.work" / "stage-0" / "complete.json").exists()


def damaged(path: Path) -> Path:
    path.write_bytes(zstandard.ZstdCompressor().compress(b"q|p\n" * 1000)[:-3])
    return path


@pytest.mark.parametrize("workers", [1, 2])
def test_after_a_damaged_input_is_replaced_only_that_one_is_read_again(tmp_path: Path, workers: int) -> None:
    inputs = [plain_input(tmp_path / "a", 30), damaged(tmp_path / "b.zst"), plain_input(tmp_path / "c", 30)]
    with pytest.raises(DataError, match="b.zst line .* cannot be decompressed"):
        make_pairs(PLAIN, OPTIONS, inputs, tmp_path / "out", PairsSettings(workers))
    assert not (tmp_path / "out").exists()
    finished = tmp_path / "out.work" / "stage-0" / "input-00000" / "part-00000.jsonl.zst"
    written = finished.stat().st_mtime_ns
    inputs[1].write_bytes(zstandard.ZstdCompressor().compress(b"q|p\n" * 5))
    make_pairs(PLAIN, OPTIONS, inputs, tmp_path / "out", PairsSettings(workers))
    assert [pair.source for pair in read(tmp_path / "out")] == ["a"] * 30 + ["b.zst"] * 5 + ["c"] * 30
    assert (tmp_path / "out" / "part-00000.jsonl.zst").stat().st_mtime_ns == written


def test_an_input_changed_between_two_runs_is_read_again_with_all_that_came_of_it(tmp_path: Path) -> None:
    inputs = chain_inputs(tmp_path)
    strike(tmp_path, inputs, until="stage-1/bucket-00000", pause_s=0.002)
    inputs[0].write_text(inputs[0].read_text().replace("question 7\n", "question seven\n"))
    options = MadeOptions(pause_s=0.002)
    make_pairs(CHAIN, options, inputs, tmp_path / "out", PairsSettings(part_pairs=20))
    make_pairs(CHAIN, options, inputs, tmp_path / "fresh", PairsSettings(part_pairs=20))
    assert read(tmp_path / "out") == read(tmp_path / "fresh")
    assert "question seven" in Counter(pair.query for pair in read(tmp_path / "out"))


def test_a_process_that_dies_is_one_message(tmp_path: Path) -> None:
    inputs = [plain_input(tmp_path / name, 3) for name in ("a", "b")]
    with pytest.raises(MachineError, match="was killed"):
        make_pairs(DYING, OPTIONS, inputs, tmp_path / "out", PairsSettings(workers=2))


def test_a_full_disk_is_one_message_and_the_run_goes_on_when_there_is_room(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("limited", "free")]
    for folder in folders:
        folder.mkdir()
        chain_inputs(folder)
    limited, free = folders
    words = ["bash", "-c", f"ulimit -f 16; exec {sys.executable} {limited / 'script.py'} {limited} 1 0"]
    assert command(free, 1, 0).wait() == 0
    (limited / "script.py").write_text(SCRIPT)
    done = subprocess.run(words, env=ENVIRONMENT, capture_output=True, text=True)
    assert "NoRoomError: no room left to write" in done.stderr and not (limited / "out").exists()
    assert command(limited, 1, 0).wait() == 0
    assert parts(limited / "out") == parts(free / "out")


ENVIRONMENT = os.environ | {
    "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), str(Path(__file__).parents[2])])
}
SCRIPT = """
import sys
from pathlib import Path
from made_formats import CHAIN, MadeOptions
from data_tools import groups
from data_tools import make_pairs as make_pairs_module
from data_tools.make_pairs import PairsSettings, make_pairs

if __name__ == "__main__":
    groups.BUCKET_BYTES = 25_000
    folder, workers, pause_s = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    inputs = [folder / "questions", folder / "passages"]
    make_pairs(CHAIN, MadeOptions(pause_s=pause_s), inputs, folder / "out", PairsSettings(workers, part_pairs=20))
"""


def command(folder: Path, workers: int, pause_s: float) -> subprocess.Popen[bytes]:
    (folder / "script.py").write_text(SCRIPT)
    words = [sys.executable, str(folder / "script.py"), str(folder), str(workers), str(pause_s)]
    return subprocess.Popen(words, env=ENVIRONMENT)


def strike(folder: Path, inputs: list[Path], until: str, pause_s: float) -> None:
    """Kill a run without warning as soon as `until` lies in its working folder."""
    running = command(folder, 1, pause_s)
    while not (folder / "out.work" / until).exists():
        assert running.poll() is None, "finished before it could be killed"
        time.sleep(0.002)
    running.kill()
    assert running.wait() == -signal.SIGKILL


@pytest.mark.parametrize("workers", [1, 2])
def test_runs_killed_at_any_moment_end_with_the_bytes_of_one_that_was_not(tmp_path: Path, workers: int) -> None:
    inputs = chain_inputs(tmp_path)
    assert command(tmp_path, 1, 0.001).wait() == 0
    (tmp_path / "out").rename(tmp_path / "whole")
    kills = 0
    for moment in (0.3, 0.5, 0.9, 1.2, 1.5, 60.0):
        running = command(tmp_path, workers, 0.001)
        try:
            running.wait(moment)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()
            kills += 1
            continue
        break
    assert running.returncode == 0 and kills >= 2
    assert parts(tmp_path / "out") == parts(tmp_path / "whole") and len(parts(tmp_path / "out")) > 5
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "passages", "questions", "script.py", "whole"]
    assert inputs

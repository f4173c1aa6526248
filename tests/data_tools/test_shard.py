import hashlib
import json
import os
import resource
import subprocess
import sys
import tarfile
from collections import Counter
from pathlib import Path

import pytest
from shard_sets import all_places, write_pairs

from data_tools import read_pairs, shard_settings
from data_tools.cli import main
from data_tools.pairs import PairReader
from data_tools.shard import MADE_FROM, shard
from data_tools.shard_settings import Machine, ShardSettings
from data_tools.write_shards import Cut, shard_tasks, workers_that_fit
from largede.errors import DataError, MachineError
from largede.streams.index import ShardIndex
from largede.streams.pair import Pair
from largede.streams.read import BlockReader

SHARED = Path(os.environ.get("LARGEDE_SHARED_DATA", Path(__file__).parents[3] / "shared" / "data"))
SMALL = ShardSettings(shard_pairs=40, block_pairs=16, seed=5)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def read_all(folder: Path) -> list[Pair]:
    index = ShardIndex.load(folder)
    return BlockReader(index).pairs(all_places(index))


def test_every_pair_comes_back_once_in_shuffled_order(tmp_path: Path) -> None:
    pairs = write_pairs(tmp_path / "in.jsonl", 130)
    result = shard([tmp_path / "in.jsonl"], tmp_path / "out", SMALL)
    back = read_all(tmp_path / "out")
    assert Counter(back) == Counter(pairs)
    assert back != pairs
    assert [entry.samples for entry in result.index.shards] == [32, 33, 32, 33]
    assert result.index.block_sizes == [[16, 16], [16, 16, 1]] * 2


def test_index_agrees_with_the_tars(tmp_path: Path) -> None:
    write_pairs(tmp_path / "in.jsonl", 100)
    shard([tmp_path / "in.jsonl"], tmp_path / "out", SMALL)
    names = []
    for entry in ShardIndex.load(tmp_path / "out").shards:
        path = tmp_path / "out" / entry.name
        assert hashlib.sha256(path.read_bytes()).hexdigest() == entry.sha256
        with tarfile.open(path) as tar:
            members = tar.getmembers()
        assert [(m.offset_data, m.size) for m in members] == [(o, s) for o, s, *_ in entry.blocks.tolist()]
        assert all((m.mtime, m.uid, m.gid, m.uname, m.gname) == (0, 0, 0, "", "") for m in members)
        names += [m.name for m in members]
    assert names == [f"block-{number:07d}.msgpack.zst" for number in range(9)]


def test_shards_are_byte_for_byte_reproducible_and_follow_the_seed(tmp_path: Path) -> None:
    write_pairs(tmp_path / "in.jsonl", 100)
    for out in ("a", "b"):
        shard([tmp_path / "in.jsonl"], tmp_path / out, SMALL)
    shard([tmp_path / "in.jsonl"], tmp_path / "c", ShardSettings(40, 16, seed=6))
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert read_all(tmp_path / "a") != read_all(tmp_path / "c")


def test_workers_and_memory_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = [tmp_path / f"{number}.jsonl" for number in range(5)]
    for number, path in enumerate(inputs):
        write_pairs(path, 100 * number + 1)
    shard(inputs, tmp_path / "one", SMALL, Machine(workers=1))
    monkeypatch.setattr(shard_settings, "PROCESS_BYTES", 1)
    monkeypatch.setattr(read_pairs, "BATCH_BYTES", 1)
    # The least memory that is allowed, and an input a batch.
    shard(inputs, tmp_path / "two", SMALL, Machine(workers=2, memory_gib=2 / 16))
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_shards_too_long_for_the_memory_of_every_worker_leave_some_idle() -> None:
    cut = Cut(pairs=1000, shard_pairs=250, block_pairs=10)
    machine = Machine(workers=8, memory_gib=2)
    text_bytes = 4 * (300 << 20)
    assert workers_that_fit(cut, text_bytes, machine) == 3
    assert [len(task.shards) for task in shard_tasks(cut, text_bytes, machine, finished=[])] == [1, 1, 1, 1]
    assert [task.shards for task in shard_tasks(cut, 0, Machine(1), finished=[range(1, 3)])] == [
        range(1),
        range(1, 3),
        range(3, 4),
    ]


@pytest.mark.parametrize(("workers", "memory_gib"), [(0, None), (4, 0.1)])
def test_an_impossible_machine(workers: int, memory_gib: float | None) -> None:
    with pytest.raises(DataError, match="--workers|--memory-gib"):
        Machine(workers, memory_gib)


def test_a_folder_of_parts_is_read_in_the_order_of_names(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    for name, count in (("part-1.jsonl", 50), ("part-0.jsonl", 60), (".hidden.jsonl", 7), ("notes.txt", 3)):
        write_pairs(tmp_path / "parts" / name, count)
    result = shard([tmp_path / "parts"], tmp_path / "out", SMALL)
    named = shard([tmp_path / "parts" / f"part-{n}.jsonl" for n in (0, 1)], tmp_path / "named", SMALL)
    assert result.index.samples == 110
    assert contents(result.index.folder) == contents(named.index.folder)
    with pytest.raises(DataError, match="the folder .* holds no pairs"):
        (tmp_path / "empty").mkdir()
        shard([tmp_path / "empty"], tmp_path / "new", SMALL)


def test_pairs_named_twice_are_refused_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "clean").mkdir()
    write_pairs(tmp_path / "clean" / "part-0.jsonl", 10)
    folder, out = str(tmp_path / "clean"), str(tmp_path / "out")
    assert main(["shard", folder, folder, "--out", out]) != 0
    assert "part-0.jsonl is named twice" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["clean"]


def write_queries(path: Path, queries: int) -> None:
    """Queries q0, q1, ... with three passages each, every other one with an id."""
    ids = [{"query_id": f"id {i}"} if i % 2 else {} for i in range(queries)]
    rows = [{"query": f"q{i}", "positive": f"p{i}-{n}", **ids[i]} for n in range(3) for i in range(queries)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_a_fraction_of_the_queries_keeps_all_pairs_of_each_and_is_nested(tmp_path: Path) -> None:
    write_queries(tmp_path / "in.jsonl", 2000)
    kept = {}
    for fraction in (0.1, 0.2, 1.0):
        out = tmp_path / str(fraction)
        result = shard([tmp_path / "in.jsonl"], out, ShardSettings(query_fraction=fraction))
        kept[fraction] = Counter(pair.query for pair in read_all(out))
        assert result.left_out == 6000 - result.index.samples
        assert set(kept[fraction].values()) == {3}
    assert set(kept[0.1]) < set(kept[0.2]) < set(kept[1.0])
    assert abs(len(kept[0.1]) - 200) < 60 and abs(len(kept[0.2]) - 400) < 80
    other = shard([tmp_path / "in.jsonl"], tmp_path / "s", ShardSettings(query_fraction=0.1, fraction_seed=1))
    assert {pair.query for pair in read_all(tmp_path / "s")} != set(kept[0.1])
    assert "pairs of queries outside the fraction left out" in str(other)


@pytest.mark.parametrize("fraction", [0.0, -1.0, 1.5])
def test_impossible_fractions(fraction: float) -> None:
    with pytest.raises(DataError, match="--query-fraction"):
        ShardSettings(query_fraction=fraction)


def test_a_fraction_that_keeps_nothing(tmp_path: Path) -> None:
    write_queries(tmp_path / "in.jsonl", 3)
    with pytest.raises(DataError, match="no query of .* falls into the fraction"):
        shard([tmp_path / "in.jsonl"], tmp_path / "out", ShardSettings(query_fraction=1e-9))
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


def test_pairs_by_source_and_the_inputs_are_remembered(tmp_path: Path) -> None:
    rows = [{"query": f"q{i}", "positive": "p", "source": "ab"[i % 3 == 0]} for i in range(10)]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    shard([tmp_path / "in.jsonl"], tmp_path / "out", SMALL)
    record = json.loads((tmp_path / "out" / MADE_FROM).read_text())
    assert record["sources"] == {"a": 6, "b": 4}
    digest = hashlib.sha256((tmp_path / "in.jsonl").read_bytes()).hexdigest()
    assert [(entry["name"], entry["sha256"]) for entry in record["inputs"]] == [("in.jsonl", digest)]


def test_whether_all_is_up_to_date_is_told_without_reading_the_inputs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "in.jsonl"
    write_pairs(path, 30)
    shard([path], tmp_path / "out", SMALL)
    with monkeypatch.context() as patch:
        patch.setattr("data_tools.inputs.sha256_file", lambda _: pytest.fail("an input was read"))
        assert not shard([path], tmp_path / "out", SMALL).written
    # Touched, the content decides.
    os.utime(path, ns=(0, 0))
    assert not shard([path], tmp_path / "out", SMALL).written
    path.write_bytes(path.read_bytes().replace(b"question 1", b"question X"))
    with pytest.raises(DataError, match="holds shards of other inputs or settings: .*in.jsonl holds something else"):
        shard([path], tmp_path / "out", SMALL)


def test_a_second_run_changes_nothing_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_pairs(tmp_path / "in.jsonl", 30)
    command = ["shard", str(tmp_path / "in.jsonl"), "--out", str(tmp_path / "out")]
    assert main(command) == 0
    assert "30 pairs in 1 shard," in capsys.readouterr().out
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    assert main(command) == 0
    assert f"{tmp_path / 'out'} is up to date" in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}


@pytest.mark.parametrize("change", ["seed", "input", "order of inputs", "foreign file", "file in place"])
def test_what_is_in_the_way_stays(tmp_path: Path, change: str, capsys: pytest.CaptureFixture[str]) -> None:
    inputs, out = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"], tmp_path / "out"
    write_pairs(inputs[0], 30)
    write_pairs(inputs[1], 31)
    if change == "foreign file":
        out.mkdir()
        (out / "thesis.txt").write_text("mine")
    elif change == "file in place":
        out.write_text("mine")
    else:
        shard(inputs, out, ShardSettings())
    if change == "input":
        write_pairs(inputs[0], 29)
    before = out.read_bytes() if out.is_file() else contents(out)
    flags = ["--seed", "1"] if change == "seed" else []
    named = reversed(inputs) if change == "order of inputs" else inputs
    assert main(["shard", *map(str, named), "--out", str(out), *flags]) == 2
    assert "to mend:  choose another --out" in capsys.readouterr().err
    assert before == (out.read_bytes() if out.is_file() else contents(out))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl", "b.jsonl", "out"]


def test_an_empty_folder_is_no_obstacle(tmp_path: Path) -> None:
    write_pairs(tmp_path / "in.jsonl", 30)
    (tmp_path / "out").mkdir()
    assert shard([tmp_path / "in.jsonl"], tmp_path / "out", SMALL).written


def test_bad_lines_stop_or_are_counted_and_nothing_is_left(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_pairs(tmp_path / "in.jsonl", 30)
    with (tmp_path / "in.jsonl").open("a") as stream:
        stream.write('{"query": "only a question"}\n')
    command = ["shard", str(tmp_path / "in.jsonl"), "--out", str(tmp_path / "new" / "out")]
    assert main(command) == 2
    error = capsys.readouterr().err
    assert f"largede-data shard: {tmp_path / 'in.jsonl'} line 31 has no positive" in error
    assert not any((tmp_path / "new").iterdir())
    assert main([*command, "--skip-bad", "1"]) == 0
    assert "30 pairs in 1 shard," in (said := capsys.readouterr().out)
    assert "1 bad line passed over" in said


def test_no_pairs_at_all(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text("\n\n")
    with pytest.raises(DataError, match="holds no pairs"):
        shard([tmp_path / "in.jsonl"], tmp_path / "out", SMALL)
    with pytest.raises(DataError, match="nowhere.jsonl: No such file"):
        shard([tmp_path / "nowhere.jsonl"], tmp_path / "out", SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


@pytest.mark.parametrize("numbers", [(10, 0, 0, 0), (10, 16, 0, 0), (10, 5, 0, -1)])
def test_impossible_settings(numbers: tuple[int, int, int, int]) -> None:
    with pytest.raises(DataError, match="or more"):
        ShardSettings(*numbers)


def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    # A limit on the length of files stands in for the disk: the kernel refuses the write in the same way.
    write_pairs(tmp_path / "in.jsonl", 3000)
    code = "import sys; from data_tools.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "shard", str(tmp_path / "in.jsonl"), "--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=limit_files, check=False)
    assert done.returncode == 2
    assert f"no room left to write {tmp_path / 'out'}" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]
    assert MachineError.__name__ not in done.stderr


def limit_files() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))


def test_help_imports_nothing_heavy() -> None:
    heavy = ["torch", "transformers", "webdataset", "faiss", "pyserini", "deepspeed", "matplotlib"]
    code = (
        "import sys, contextlib\nfrom data_tools.cli import main\n"
        "with contextlib.suppress(SystemExit): main(['--help'])\n"
        f"sys.exit(' '.join(set({heavy}) & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.strip()) in [(0, ""), (1, "")], done.stderr
    assert "shard" in done.stdout
    assert "verify" in done.stdout


def test_real_pairs_come_back(tmp_path: Path) -> None:
    source = SHARED / "pairs" / "stackexchange.jsonl.gz"
    if not source.exists():
        pytest.skip(f"no {source.name}: the shared data folder is not there")
    result = shard([source], tmp_path / "out", ShardSettings(shard_pairs=2000))
    assert result.index.samples == 5731
    assert Counter(read_all(tmp_path / "out")) == Counter(PairReader([source]))

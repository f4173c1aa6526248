import hashlib
import os
import resource
import subprocess
import sys
import tarfile
from collections import Counter
from pathlib import Path

import pytest
from shard_sets import all_places, write_pairs

from data_tools.buckets import bucket_count, shuffled
from data_tools.cli import main
from data_tools.pairs import PairReader
from data_tools.shard import ShardSettings, shard
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
    assert [entry.samples for entry in result.index.shards] == [40, 40, 40, 10]
    assert result.index.block_sizes == [[16, 16, 8]] * 3 + [[10]]


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
    assert names == [f"block-{number:07d}.msgpack.zst" for number in range(8)]


def test_shards_are_byte_for_byte_reproducible_and_follow_the_seed(tmp_path: Path) -> None:
    write_pairs(tmp_path / "in.jsonl", 100)
    for out in ("a", "b"):
        shard([tmp_path / "in.jsonl"], tmp_path / out, SMALL)
    shard([tmp_path / "in.jsonl"], tmp_path / "c", ShardSettings(40, 16, seed=6))
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert read_all(tmp_path / "a") != read_all(tmp_path / "c")


def test_the_shuffle_does_not_depend_on_the_number_of_buckets(tmp_path: Path) -> None:
    records = [f"record {number}".encode() for number in range(10_000)]
    orders = []
    for buckets in (1, 7, 64):
        folder = tmp_path / str(buckets)
        folder.mkdir()
        orders.append(list(shuffled(records, 3, buckets, folder)))
        assert not any(folder.iterdir())
    assert orders[0] == orders[1] == orders[2]
    assert sorted(orders[0]) == sorted(records)


def test_buckets_grow_with_the_input_up_to_a_bound() -> None:
    assert [bucket_count(size) for size in (0, 10**9, 10**13)] == [1, 8, 512]


def test_plain_webdataset_reads_the_blocks(tmp_path: Path) -> None:
    import msgpack
    import webdataset
    import zstandard

    pairs = write_pairs(tmp_path / "in.jsonl", 100)
    index = shard([tmp_path / "in.jsonl"], tmp_path / "out", SMALL).index
    urls = [str(tmp_path / "out" / entry.name) for entry in index.shards]
    back = []
    for sample in webdataset.WebDataset(urls, shardshuffle=False):
        block = msgpack.unpackb(zstandard.decompress(sample["msgpack.zst"]))
        back += list(zip(block["query"], block["positive"], strict=True))
    assert Counter(back) == Counter((pair.query, pair.positive) for pair in pairs)


def test_a_second_run_changes_nothing_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_pairs(tmp_path / "in.jsonl", 30)
    command = ["shard", str(tmp_path / "in.jsonl"), "--out", str(tmp_path / "out")]
    assert main(command) == 0
    assert "30 pairs in 1 shards" in capsys.readouterr().out
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
    assert "30 pairs in 1 shards" in (said := capsys.readouterr().out)
    assert "1 bad lines passed over" in said


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

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from range_server import Served, serving
from same_batches import BATCH, batches, joined, take
from shard_sets import all_places, flip_byte, make_shards

from largede.errors import DataError
from largede.streams.index import ShardIndex
from largede.streams.places import patience, place_of
from largede.streams.places.copy import local_file
from largede.streams.places.place import NotThere, Place, Unreadable
from largede.streams.read import BlockReader


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("served")) as served:
        yield served


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> ShardIndex:
    return make_shards(tmp_path_factory.mktemp("data"))


@pytest.fixture
def place(server: Served, local: ShardIndex) -> Place:
    return place_of(server.begin_anew(local.folder))


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "FIRST_PAUSE_S", 0.001)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("world_size", [1, 2])
def test_batches_are_those_of_the_local_folder(place: Place, local: ShardIndex, world_size: int, workers: int) -> None:
    assert joined(place, world_size, workers=workers) == joined(local.folder, 1)


def test_a_batch_asks_for_exactly_the_blocks_it_needs(place: Place, local: ShardIndex, server: Served) -> None:
    stream = batches(place)
    server.requests.clear()
    take(stream, 3)
    rows = [row[-3:] for step in range(3) for row in stream._stream.order.rows(step, 0, BATCH).tolist()]
    needed = {(shard, block) for shard, block, _ in rows}
    blocks = [(local.shards[shard].name, *local.shards[shard].blocks[block, :2].tolist()) for shard, block in needed]
    assert sorted(server.requests) == sorted(blocks)


def test_opening_asks_for_one_byte_of_each_shard_in_the_ranks_share(place: Place, server: Served) -> None:
    for rank in range(2):
        ShardIndex.load(place, rank=rank, world_size=2)
    shards = [request for request in server.requests if request[0].endswith(".tar")]
    assert sorted(shards) == [(f"shard-{i:05d}.tar", 0, 1) for i in range(5)]


def test_processes_forked_while_connections_are_open_make_their_own(place: Place, local: ShardIndex) -> None:
    index = ShardIndex.load(place)
    rows = all_places(index)[:40]
    before = BlockReader(index).pairs(rows)
    children = []
    for _ in range(3):
        child = os.fork()
        if child == 0:
            os._exit(0 if BlockReader(index).pairs(rows) == before else 1)
        children.append(child)
    assert BlockReader(index).pairs(rows) == before
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]
    assert BlockReader(index).pairs(rows) == before == BlockReader(local).pairs(rows)


@pytest.mark.parametrize("fault", [{"fail_with": 503}, {"fail_with": 429}, {"fail_with": 0}])
@pytest.mark.parametrize("workers", [0, 2])
def test_every_third_request_may_fail(
    place: Place, local: ShardIndex, server: Served, fault: dict[str, int], workers: int
) -> None:
    server.faults.fail_every = 3
    server.faults.fail_with = fault["fail_with"]
    stream = batches(place, workers=workers)
    assert take(stream) == take(batches(local.folder))
    assert stream.skipped == {}


def test_failures_are_said_once_in_a_while(
    place: Place, server: Served, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = ShardIndex.load(place)
    server.asked, server.faults.fail_first = 0, 4
    BlockReader(index).pairs(all_places(index)[:1])
    (line,) = caplog.messages
    assert line.startswith(f"{server.address}/shard-00000.tar: status 503; attempt 2 of 8 in 0.0 s")
    monkeypatch.setattr(patience, "SAID_EVERY_S", 0.0)
    server.asked, server.faults.fail_first = 0, 1
    BlockReader(index).pairs(all_places(index)[:1])
    assert caplog.messages[1].endswith("(3 more failures since the last such line)")


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("cut_answers", "cannot be read (ClientPayloadError"),
        ("short_answers", "bytes came of"),
        ("fail_every", "cannot be read (status 503)"),
    ],
)
def test_what_keeps_failing_counts_as_damaged(
    place: Place, local: ShardIndex, server: Served, fault: str, reason: str
) -> None:
    reader = BlockReader(ShardIndex.load(place), damaged_limit=0)
    setattr(server.faults, fault, 1)
    server.asked = 0
    with pytest.raises(DataError) as raised:
        reader.pairs(all_places(local)[:1])
    assert "shard-00000.tar block 0" in raised.value.given
    assert reason in raised.value.given
    assert server.asked >= patience.ATTEMPTS


def test_all_missing_shards_are_named_at_the_start(place: Place, server: Served) -> None:
    server.faults.missing = {"shard-00001.tar", "shard-00004.tar"}
    with pytest.raises(DataError) as raised:
        batches(place)
    address = server.address
    assert raised.value.given == f"{address}/shard-00001.tar is missing; {address}/shard-00004.tar is missing"


@pytest.mark.parametrize("fault", ["cut_answers", "fail_every"])
def test_a_place_that_does_not_tell_the_sizes_is_an_error_of_the_data(place: Place, server: Served, fault: str) -> None:
    setattr(server.faults, fault, 1)
    with pytest.raises(DataError, match="the sizes of its shards cannot be had"):
        batches(place)


def test_a_shard_that_disappears_is_asked_for_again_and_then_named(
    place: Place, local: ShardIndex, server: Served
) -> None:
    stream = iter(batches(place))
    next(stream)
    server.asked = 0
    server.faults.missing = {shard.name for shard in local.shards}
    with pytest.raises(DataError, match=r"shard-0000\d\.tar is missing"):
        list(stream)
    assert server.asked == patience.ATTEMPTS


@pytest.mark.parametrize("workers", [0, 2])
def test_a_shard_replaced_under_way_is_counted_and_then_stops_the_run(
    tmp_path: Path, server: Served, workers: int
) -> None:
    for name in ("ours", "others"):
        (tmp_path / name).mkdir()
    index = make_shards(tmp_path / "ours")
    stream = batches(place_of(server.begin_anew(index.folder)), workers=workers, damaged_limit=3)
    others = make_shards(tmp_path / "others", count=201, block_pairs=7)
    path = index.folder / "shard-00002.tar"
    path.write_bytes((others.folder / "shard-00002.tar").read_bytes())
    with pytest.raises(DataError, match="at most 3 damaged blocks") as raised:
        take(stream)
    assert "shard-00002.tar block" in raised.value.given
    assert stream.skipped == {"shard-00002.tar": 4}


def test_a_shard_cut_short_under_way_is_not_asked_for_again_and_again(tmp_path: Path, server: Served) -> None:
    index = make_shards(tmp_path)
    distant = ShardIndex.load(place_of(server.begin_anew(index.folder)))
    path = index.folder / "shard-00000.tar"
    second = int(index.shards[0].blocks[1, 0])
    path.write_bytes(path.read_bytes()[: second + 10])
    server.asked = 0
    reader = BlockReader(distant, damaged_limit=5)
    reader.pairs(all_places(index)[:40])
    sizes = index.shards[0].blocks[:, 1].tolist()
    reasons = [f"has {10 if block == 1 else 0} bytes of {sizes[block]}" for block in range(1, 5)]
    assert reader.damaged == {(0, block + 1): reason for block, reason in enumerate(reasons)}
    # Two sound blocks, and for each of the others its length beside.
    assert server.asked == 2 + 2 * 4


@pytest.mark.parametrize("world_size", [1, 2])
def test_ranks_agree_on_what_replaces_a_damaged_block(tmp_path: Path, server: Served, world_size: int) -> None:
    index = make_shards(tmp_path)
    before = joined(index.folder, 1)
    flip_byte(index, 1, 2)
    flip_byte(index, 3, 0)
    place = place_of(server.begin_anew(index.folder))
    after = joined(place, world_size, damaged_limit=2)
    assert after == joined(index.folder, 1, damaged_limit=2)
    assert after != before


def test_a_server_that_ignores_ranges_is_refused_before_a_shard_is_transferred(place: Place, server: Served) -> None:
    server.faults.ignore_ranges = True
    with pytest.raises(DataError, match="ignores range requests"):
        batches(place)


def test_a_server_that_stops_knowing_ranges_is_refused(place: Place, server: Served) -> None:
    stream = batches(place)
    server.faults.ignore_ranges = True
    with pytest.raises(DataError, match="ignores range requests"):
        take(stream)


def test_a_server_that_wants_credentials_is_asked_once(place: Place, server: Served) -> None:
    server.faults.fail_every, server.faults.fail_with = 1, 403
    with pytest.raises(DataError, match=r"may not be read \(status 403\)"):
        place.read("shard-00000.tar", 512, 100)
    assert server.asked == 1


def test_a_slow_read_says_so_while_it_lasts(
    place: Place, server: Served, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "SLOW_S", 0.06)
    monkeypatch.setattr(patience, "_watch", patience._Watch())
    server.faults.delay_s = 0.3
    with caplog.at_level(logging.WARNING):
        place.read("shard-00000.tar", 512, 100)
    slow = [line for line in caplog.messages if "reading has taken" in line]
    assert slow
    assert slow[0].startswith(f"{server.address}/shard-00000.tar")


def test_no_server_is_a_clear_error(tmp_path: Path) -> None:
    with serving(tmp_path) as served:
        address = served.address
    with pytest.raises(DataError, match="index.json cannot be read"):
        ShardIndex.load(place_of(address))


def test_an_address_without_an_index(server: Served, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has no index\.json"):
        ShardIndex.load(place_of(server.begin_anew(tmp_path)))


def test_a_whole_shard_comes_in_pieces_up_to_its_length(place: Place, local: ShardIndex) -> None:
    shard = local.shards[0]
    assert b"".join(place.pieces(shard.name, shard.bytes)) == (local.folder / shard.name).read_bytes()
    with pytest.raises(Unreadable, match=f"more than {shard.bytes - 1}"):
        list(place.pieces(shard.name, shard.bytes - 1))


def test_a_shard_as_a_local_file_is_a_copy_that_does_not_stay(place: Place, local: ShardIndex) -> None:
    shard = local.shards[1]
    with local_file(place, shard.name, shard.bytes) as path:
        assert path.read_bytes() == (local.folder / shard.name).read_bytes()
    assert not path.parent.exists()
    with pytest.raises(Unreadable, match="more than 100"), local_file(place, shard.name, 100):
        pass
    with pytest.raises(NotThere), local_file(place, "shard-99999.tar", 100):
        pass
    with local_file(local.place, shard.name, shard.bytes) as path:
        assert path == local.folder / shard.name
    assert path.exists()

"""The store: contents by digest, results by key."""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from pathlib import Path

import pytest

from pipeline.store import Record, Store, key_of
from pipeline.tree import Entry, Tree, scan


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "cache")


def put(store: Store, files: dict[str, bytes], key: str = "k" * 64, stage: str = "archive") -> Record:
    with store.scratch() as scratch:
        for path, data in files.items():
            (scratch / path).parent.mkdir(parents=True, exist_ok=True)
            (scratch / path).write_bytes(data)
        tree = Tree.of(store.take(scratch))
    record = Record(key=key, stage=stage, tree=tree.digest, material={"params": {"key": key}}, subject="config#name")
    store.commit(record, tree)
    return record


def test_a_key_is_what_it_was_in_the_last_release() -> None:
    # Pinned: if this changes, every user's cache is lost. Raise store.SCHEMA when that is meant.
    material = {
        "stage": "serialize",
        "version": 1,
        "params": {"save_mode": "torchscript", "max_length": 128},
        "tools": {"torch": "2.13.0"},
        "inputs": {"download": "0" * 64},
    }
    text = (
        '{"inputs":{"download":"' + "0" * 64 + '"},"params":{"max_length":128,"save_mode":"torchscript"},'
        '"schema":1,"stage":"serialize","tools":{"torch":"2.13.0"},"version":1}'
    )
    assert key_of(material) == hashlib.sha256(text.encode()).hexdigest()
    assert key_of(material) == "9994d98068246bc21f46e4313ed728063d92843d4c8b7fae10ba8cd5fd414ce0"


def test_digests_are_those_of_independent_libraries(tmp_path: Path) -> None:
    data = os.urandom(3_000_000)
    (tmp_path / "file").write_bytes(data)
    assert scan(tmp_path / "file", "x") == Entry("x", hashlib.sha256(data).hexdigest(), len(data), zlib.crc32(data))


def test_what_is_put_in_is_found_again_by_key_and_laid_out_whole(store: Store, tmp_path: Path) -> None:
    record = put(store, {"a": b"one", "sub/b": b"two"})
    assert store.find("archive", record.key) == record
    folder = store.lay_out(store.tree(record.tree), None, tmp_path / "out")
    assert (folder / "a").read_bytes() == b"one"
    assert (folder / "sub/b").read_bytes() == b"two"


def test_equal_folders_have_equal_digests_and_are_kept_once(store: Store) -> None:
    first, second = put(store, {"a": b"same"}, "1" * 64), put(store, {"a": b"same"}, "2" * 64)
    assert first.tree == second.tree
    assert len(list(store.root.glob("blobs/*/*"))) == 1


def test_blobs_cannot_be_written_to(store: Store) -> None:
    put(store, {"a": b"sealed"})
    (blob,) = store.root.glob("blobs/*/*")
    assert blob.stat().st_mode & 0o222 == 0


def test_a_missing_or_shortened_blob_makes_its_result_a_miss(store: Store) -> None:
    record = put(store, {"a": b"contents"})
    (blob,) = store.root.glob("blobs/*/*")
    blob.chmod(0o644)
    blob.write_bytes(b"cont")
    assert store.find("archive", record.key) is None
    blob.unlink()
    assert store.find("archive", record.key) is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"key": 1}'], ids=["empty", "cut", "list", "fields"])
def test_a_damaged_record_is_a_miss_not_an_error(store: Store, text: str) -> None:
    record = put(store, {"a": b"contents"})
    (store.root / "keys" / "archive" / f"{record.key}.json").write_text(text)
    assert store.find("archive", record.key) is None


def test_a_damaged_listing_is_a_miss(store: Store) -> None:
    record = put(store, {"a": b"contents"})
    (listing,) = store.root.glob("trees/*/*.json")
    listing.write_text(listing.read_text().replace('"a"', '"b"'))
    assert store.find("archive", record.key) is None


def test_damage_finds_a_changed_byte_and_repair_removes_it(store: Store) -> None:
    record = put(store, {"a": b"contents"})
    assert store.damage() == []
    (blob,) = store.root.glob("blobs/*/*")
    blob.chmod(0o644)
    blob.write_bytes(b"c0ntents")
    assert len(store.damage(repair=True)) == 2  # the blob, and the result that needs it
    assert store.find("archive", record.key) is None
    assert store.damage() == []


def test_a_file_outside_is_known_until_it_changes(store: Store, tmp_path: Path) -> None:
    file = tmp_path / "weights"
    file.write_bytes(b"first")
    assert store.known(file) is None
    entry = store.read(file, "weights")
    assert store.known(file) == entry
    file.write_bytes(b"second")
    assert store.known(file) is None


def test_a_result_whose_files_lie_outside_is_a_miss_once_they_change(store: Store, tmp_path: Path) -> None:
    file = tmp_path / "weights"
    file.write_bytes(b"first")
    tree = Tree.of([store.read(file, "weights")])
    record = Record(key="k" * 64, stage="download", tree=tree.digest, material={}, subject="s#n", origin=str(tmp_path))
    store.commit(record, tree)
    assert store.find("download", record.key) == record
    file.write_bytes(b"other")
    assert store.find("download", record.key) is None


def test_a_users_file_is_linked_to_by_name_and_never_shared(store: Store, tmp_path: Path) -> None:
    file = tmp_path / "weights"
    file.write_bytes(b"first")
    tree = Tree.of([store.read(file, "weights")])
    laid = store.lay_out(tree, str(tmp_path), tmp_path / "out") / "weights"
    assert laid.is_symlink()
    assert file.stat().st_nlink == 1


def test_garbage_collection_keeps_what_results_name(store: Store) -> None:
    record = put(store, {"a": b"kept"})
    stray = store.blob("f" * 64)
    stray.parent.mkdir(parents=True, exist_ok=True)
    stray.write_bytes(b"stray bytes")
    assert store.collect(dry_run=True) == 11
    assert stray.exists()
    assert store.collect() == 11
    assert not stray.exists()
    assert store.find("archive", record.key) == record


def test_garbage_collection_drops_the_longest_unused_first(store: Store) -> None:
    old, new = put(store, {"a": b"x" * 100}, "1" * 64), put(store, {"a": b"y" * 100}, "2" * 64)
    os.utime(store.root / "keys" / "archive" / f"{old.key}.json", (1, 1))
    store.collect(max_size=150)
    assert store.find("archive", old.key) is None
    assert store.find("archive", new.key) == new


def test_garbage_collection_drops_what_was_not_used_for_long(store: Store) -> None:
    record = put(store, {"a": b"x"})
    os.utime(store.root / "keys" / "archive" / f"{record.key}.json", (1, 1))
    store.collect(older_than=60)
    assert store.find("archive", record.key) is None
    assert list(store.root.glob("blobs/*/*")) == []


def test_garbage_is_not_collected_while_a_build_runs(store: Store) -> None:
    with store.in_use(), pytest.raises(BlockingIOError), store.exclusive():
        pass


def test_two_builds_use_the_store_side_by_side(store: Store) -> None:
    with store.in_use(), store.in_use():
        (store.root / "tmp" / "mine").mkdir(parents=True)
        with store.in_use():
            assert (store.root / "tmp" / "mine").is_dir()


def test_leftovers_of_killed_builds_go_with_the_next_one(store: Store) -> None:
    (store.root / "tmp" / "left").mkdir(parents=True)
    with store.in_use():
        assert not (store.root / "tmp" / "left").exists()


def test_the_latest_run_of_a_subject_is_remembered(store: Store) -> None:
    record = put(store, {"a": b"x"})
    assert store.latest("archive", "config#name") == record.material
    assert store.latest("archive", "another") is None


def test_a_record_reads_back_as_it_was_written(store: Store) -> None:
    record = put(store, {"a": b"x"})
    written = json.loads((store.root / "keys" / "archive" / f"{record.key}.json").read_text())
    assert Record(**written) == record

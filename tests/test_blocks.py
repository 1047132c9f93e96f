"""The store of blocks: within its budget, and unharmed by whatever happens to it."""

import fcntl
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import time
from contextlib import contextmanager, suppress

import pytest
import torch

import trainable.blocks
import trainable.budget
from trainable.blocks import BlockStore
from trainable.lock import take_lock

BLOCK = torch.arange(25_000, dtype=torch.float32)
"""100 kB."""
SIZE = 100_200


def store_in(folder, budget=10 * SIZE, since=0.0) -> BlockStore:
    return BlockStore(folder, budget, since)


def save(store, key, count, first=0) -> int:
    """Save blocks; how many found room."""
    with store.open(key, lambda: {"data": key}) as shelf:
        return sum(shelf.save(0, block, BLOCK + block) for block in range(first, first + count))


def has_blocks(folder) -> bool:
    """While others evict: unlike glob, walk passes over a folder that has just gone."""
    return any(name.endswith(".safetensors") for _, _, names in os.walk(folder) for name in names)


def bytes_in(folder) -> int:
    """While nobody reserves or evicts; a file that is renamed meanwhile counts once."""
    sizes = {}
    with open(folder / "ledger", "a") as ledger:
        fcntl.flock(ledger, fcntl.LOCK_EX)
        for file in folder.glob("*/*"):
            if file.suffix in (".safetensors", ".part"):
                with suppress(FileNotFoundError):
                    stat = file.stat()
                    sizes[stat.st_ino] = stat.st_size
    return sum(sizes.values())


def test_what_was_saved_is_loaded(tmp_path) -> None:
    for kind in (torch.float32, torch.bfloat16, torch.uint8):
        with store_in(tmp_path).open(str(kind), lambda: {}) as shelf:
            x = torch.randint(255, (3, 4, 5)).to(kind)
            assert shelf.save(2, 7, x)
            assert shelf.has(2, 7)
            assert torch.equal(shelf.load(2, 7), x)
            assert shelf.load(2, 7).dtype == kind
            assert shelf.load(2, 8) is None


def test_the_budget_holds_and_the_least_recently_used_goes_first(tmp_path) -> None:
    store = store_in(tmp_path)
    for number, key in enumerate(("a", "b", "c")):
        assert save(store, key, 3) == 3
        os.utime(tmp_path / key / "about.json", (1000 + number, 1000 + number))
    with store.open("a", lambda: {}):
        pass  # a is the last used now
    os.utime(tmp_path / "a" / "about.json", (1010, 1010))
    old = store_in(tmp_path, since=2000)
    assert save(old, "d", 3) == 3
    assert sorted(folder.name for folder in tmp_path.iterdir() if folder.is_dir()) == ["a", "c", "d"]
    assert bytes_in(tmp_path) <= 10 * SIZE


def test_what_was_used_since_the_search_began_stays(tmp_path) -> None:
    store = store_in(tmp_path, budget=5 * SIZE, since=time.time() - 60)
    assert save(store, "a", 3) == 3
    assert save(store, "b", 3) == 2
    assert {view.folder.name for view in store.views()} == {"a", "b"}


def test_what_is_in_use_stays(tmp_path) -> None:
    store = store_in(tmp_path, budget=5 * SIZE, since=time.time() + 60)
    save(store, "a", 3)
    with store.open("a", lambda: {}) as shelf:
        assert save(store, "b", 3) == 2
        assert shelf.load(0, 0) is not None
    assert save(store_in(tmp_path, budget=5 * SIZE, since=time.time() + 60), "b", 3) == 3
    assert not (tmp_path / "a").exists()


def test_blocks_that_somebody_removed_leave_room(tmp_path) -> None:
    save(store_in(tmp_path), "a", 10)
    shutil.rmtree(tmp_path / "a")
    assert save(store_in(tmp_path), "b", 10) == 9 + (bytes_in(tmp_path) > 9.5 * SIZE)


@pytest.mark.parametrize("damaged", [b"x", b"", b"\xb14200", "²".encode(), b"0", b"0 00000000", b"9" * 5000])
def test_a_damaged_ledger_is_written_anew(tmp_path, damaged) -> None:
    save(store_in(tmp_path), "a", 4)
    (tmp_path / "ledger").write_bytes(damaged)
    assert save(store_in(tmp_path), "b", 10) <= 6
    assert bytes_in(tmp_path) <= 10 * SIZE


def test_what_was_allocated_counts_though_its_writer_died(tmp_path, monkeypatch) -> None:
    allocated = trainable.budget._allocated

    def dying(file, size):
        allocated(file, size).close()
        raise KeyboardInterrupt

    assert save(store_in(tmp_path, budget=5 * SIZE), "a", 1) == 1
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(trainable.budget, "_allocated", dying)
        save(store_in(tmp_path, budget=5 * SIZE), "a", 1, first=1)
    # What the dead one left behind goes when it is in the way, not before.
    most = 0
    for block in range(2, 6):
        save(store_in(tmp_path, budget=5 * SIZE), "a", 1, first=block)
        most = max(most, bytes_in(tmp_path))
    assert most <= 5 * SIZE
    assert len(list(tmp_path.glob("a/*.safetensors"))) >= 4


def test_a_view_that_was_half_removed_counts_and_goes(tmp_path) -> None:
    save(store_in(tmp_path), "a", 3)
    save(store_in(tmp_path), "b", 3)
    (tmp_path / "a" / "about.json").unlink()
    (tmp_path / "b").rename(tmp_path / "b.0.gone")
    assert [view.folder.name for view in store_in(tmp_path).views()] == ["a"]
    assert save(store_in(tmp_path, budget=5 * SIZE, since=time.time() + 60), "c", 4) == 4
    assert sorted(folder.name for folder in tmp_path.iterdir() if folder.is_dir()) == ["c"]


def test_a_view_that_another_process_began_anew_is_not_removed(tmp_path, monkeypatch) -> None:
    """Between the opening of its lock and the taking, it was removed, and is in use again."""
    store = store_in(tmp_path)
    save(store, "a", 1)
    (view,) = store.views()

    def late(stream) -> bool:
        shutil.rmtree(tmp_path / "a")
        save(store_in(tmp_path), "a", 2)
        return take_lock(stream)

    monkeypatch.setattr(trainable.blocks, "take_lock", late)
    assert not store.remove(view)
    assert len(list(tmp_path.glob("a/*.safetensors"))) == 2


def test_where_the_folder_is_removed_meanwhile_nothing_is_stored_and_nothing_fails(tmp_path) -> None:
    with store_in(tmp_path / "memo").open("a", lambda: {}) as shelf:
        assert shelf.save(0, 0, BLOCK)
        shutil.rmtree(tmp_path / "memo")
        with shelf.claim(1) as mine:
            assert mine
            assert not shelf.save(0, 1, BLOCK)
        assert shelf.load(0, 0) is None


def test_a_folder_that_cannot_be_used_has_a_problem_and_others_have_none(tmp_path) -> None:
    assert store_in(tmp_path / "new").problem() is None
    assert list((tmp_path / "new").iterdir()) == []
    (tmp_path / "file").touch()
    assert "Not a directory" in str(store_in(tmp_path / "file" / "memo").problem())


def test_a_folder_that_is_a_file_is_no_room(tmp_path) -> None:
    (tmp_path / "memo").write_text("")
    with store_in(tmp_path / "memo").open("a", lambda: {}) as shelf:
        assert shelf is None
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "use.lock").symlink_to(tmp_path / "nowhere" / "lock")
    with store_in(tmp_path).open("b", lambda: {}) as shelf:
        assert shelf is None


def _save_for_ever(folder) -> None:
    chance = random.Random(os.getpid())
    while True:
        with BlockStore(folder, 10 * SIZE, time.time() + 60).open(f"key{chance.randrange(3)}", lambda: {}) as shelf:
            if shelf is not None:
                block = chance.randrange(5)
                shelf.save(0, block, BLOCK + block)


def test_processes_that_are_killed_at_any_moment_leave_nothing_half_done(tmp_path) -> None:
    """Two at a time write, evict and die; the budget holds throughout, and no block is ever wrong."""
    context, chance = multiprocessing.get_context("spawn"), random.Random(0)
    children = [context.Process(target=_save_for_ever, args=(tmp_path,)) for _ in range(2)]
    for child in children:
        child.start()
    try:
        killed, most = 0, 0
        deadline = time.monotonic() + 100
        while killed < 6 and time.monotonic() < deadline:
            until = time.monotonic() + chance.uniform(0.02, 0.3) + (0 if has_blocks(tmp_path) else 1)
            while time.monotonic() < until:
                most = max(most, bytes_in(tmp_path))
            if not has_blocks(tmp_path):
                continue  # not yet at work
            victim = children[killed % 2]
            os.kill(victim.pid, signal.SIGKILL)
            victim.join(10)
            children[killed % 2] = context.Process(target=_save_for_ever, args=(tmp_path,))
            children[killed % 2].start()
            killed += 1
        assert killed == 6
    finally:
        for child in children:
            child.kill()
            child.join(10)
    assert most <= 10 * SIZE
    found = 0
    for key in range(3):
        with store_in(tmp_path).open(f"key{key}", lambda: {}) as shelf:
            for block in range(5):
                x = shelf.load(0, block)
                assert x is None or torch.equal(x, BLOCK + block)
                found += x is not None
    assert found
    assert save(store_in(tmp_path, since=time.time() + 60), "after", 9) == 9
    assert not list(tmp_path.rglob("*.part"))


@contextmanager
def small_disk(folder):
    """A file system of 1 MB."""
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"a small disk needs the right to mount one: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def test_a_full_disk_is_no_room(tmp_path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        store = store_in(disk / "memo", budget=2**30)
        saved = save(store, "a", 20)
        assert 5 <= saved < 20
        with store_in(disk / "memo", budget=2**30).open("a", lambda: {}) as shelf:
            for block in range(saved):
                assert torch.equal(shelf.load(0, block), BLOCK + block)
            assert not list(disk.rglob("*.part"))
        (disk / "filler").write_bytes(bytes(shutil.disk_usage(disk).free))
        with store_in(disk / "memo", budget=2**30).open("b", lambda: {}) as shelf:
            assert shelf is None or not shelf.save(0, 0, BLOCK)


def test_a_folder_that_cannot_be_written_is_no_room(tmp_path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    tmp_path.chmod(0o500)
    with store_in(tmp_path / "memo").open("a", lambda: {}) as shelf:
        assert shelf is None

"""Sources found, or said why not; the ants and bees here are 397 tiny stand-ins, served from the loopback."""

import functools
import importlib.util
import shutil
import threading
import zipfile
from collections import Counter
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from trainable.errors import InputError
from trainable.sources import SOURCES, find_source

HYMENOPTERA = {"train/ants": 123, "train/bees": 121, "val/ants": 70, "val/bees": 83}


def find(*sources: Path | str, progress=print):
    return find_source([str(source) for source in sources], progress)


def touch(top: Path, *names: str) -> Path:
    """Listing opens no image, so empty files do."""
    for name in names:
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).touch()
    return top


def places(listing) -> dict[tuple[str | None, str], int]:
    return dict(Counter((file.split, file.class_name) for file in listing.files))


def hymenoptera(top: Path, counts: dict[str, int]) -> Path:
    names = [f"{place}/{number}.jpg" for place, count in counts.items() for number in range(count)]
    return touch(top / "hymenoptera_data", *names, "train/ants/imageNotFound.gif")


def zipped(folder: Path) -> Path:
    """A zip beside the folder, with the folder in it."""
    with zipfile.ZipFile(folder.with_suffix(".zip"), "w") as bundle:
        for path in sorted(folder.rglob("*.*")):
            bundle.write(path, path.relative_to(folder.parent))
    return folder.with_suffix(".zip")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("TRANSFER_SEARCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv("HYMENOPTERA_DATA", raising=False)
    monkeypatch.setenv("HYMENOPTERA_URL", "http://127.0.0.1:9/nobody_listens.zip")
    return tmp_path / "cache"


@pytest.fixture
def served(tmp_path, monkeypatch):
    """A folder whose hymenoptera_data.zip is the one to download."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    folder = tmp_path / "served"
    folder.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setenv("HYMENOPTERA_URL", f"http://127.0.0.1:{server.server_port}/hymenoptera_data.zip")
    yield folder
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_folder_with_splits(tmp_path):
    top = touch(tmp_path / "data", "train/a/1.jpg", "train/b/2.PNG", "val/a/3.webp", "val/b/deep/er/4.jpeg")
    listing = find(top)
    assert listing.source == str(top) and not listing.notes and not listing.problems
    assert places(listing) == {("train", "a"): 1, ("train", "b"): 1, ("val", "a"): 1, ("val", "b"): 1}


def test_a_folder_of_classes_even_if_one_is_called_train(tmp_path):
    listing = find(touch(tmp_path, "bus/1.jpg", "train/2.jpg"))
    assert places(listing) == {(None, "bus"): 1, (None, "train"): 1}


@pytest.mark.parametrize("inside", ["train/a/1.jpg train/b/2.jpg val/a/3.jpg val/b/4.jpg", "a/1.jpg b/2.jpg"])
def test_a_folder_in_a_folder_and_a_zip_of_it(tmp_path, cache, inside):
    plain = places(find(touch(tmp_path / "outer" / "data", *inside.split())))
    assert places(find(tmp_path / "outer")) == plain
    archive = zipped(tmp_path / "outer" / "data")
    said: list[str] = []
    for _ in range(2):
        listing = find(archive, progress=said.append)
        assert places(listing) == plain and listing.source == str(archive)
        assert all(file.path.is_relative_to(cache) for file in listing.files)
    assert len(said) == 1 and said[0].startswith(f"unpacking {archive} into {cache}")


def test_a_zip_that_changed_is_unpacked_again(tmp_path):
    archive = zipped(touch(tmp_path / "data", "a/1.jpg", "b/2.jpg"))
    find(archive)
    touch(tmp_path / "data", "b/3.jpg")
    assert len(find(zipped(tmp_path / "data")).files) == 3


def test_what_is_not_an_image_is_left_out_and_named(tmp_path):
    top = touch(
        tmp_path / "data", "train/a/1.jpg", "train/b/2.jpg", "val/a/3.jpg", "val/b/4.jpg",
        "README.txt", "train/a/imageNotFound.gif", "train/Thumbs.db", "val/a/.DS_Store", "val/b/._4.jpg",
        "val/b/.ipynb_checkpoints/4.jpg", "notes/5.jpg", "val/loose.jpg",
    )  # fmt: skip
    listing = find(top)
    assert len(listing.files) == 4 and not listing.problems
    others, outside = listing.notes
    title, *lines = others.splitlines()
    assert title == "left out, not an image (what is read: .jpg .jpeg .png .ppm .bmp .pgm .tif .tiff .webp):"
    assert [Path(line.strip()).relative_to(top).as_posix() for line in lines] == [
        "README.txt", "train/Thumbs.db", "train/a/imageNotFound.gif", "val/a/.DS_Store", "val/b/._4.jpg",
        "val/b/.ipynb_checkpoints",
    ]  # fmt: skip
    assert outside == f"left out, outside of the folders used:\n  {top}/notes\n  {top}/val/loose.jpg"


def test_a_note_does_not_flood_the_screen(tmp_path):
    top = touch(tmp_path, "a/1.jpg", "b/1.jpg", *(f"a/{number}.xml" for number in range(2000)))
    assert find(top).notes[0].endswith("\n  and 1,950 more") and find(top).notes[0].count("\n") == 51


def test_linked_folders_are_followed_and_rings_are_not(tmp_path):
    touch(tmp_path / "elsewhere", "1.jpg", "sub/2.jpg")
    touch(tmp_path / "data", "b/3.jpg")
    (tmp_path / "data/a").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/sub/ring").symlink_to(tmp_path / "elsewhere")
    assert places(find(tmp_path / "data")) == {(None, "a"): 2, (None, "b"): 1}


@pytest.mark.parametrize(
    ("names", "phrase"),
    [
        ([], "holds no class folders: a data folder must hold train/ and val/"),
        (["1.jpg", "2.jpg"], "holds no class folders: a data folder must hold train/ and val/"),
        (["train/1.jpg", "val/2.jpg"], "holds no class folders"),
        (
            ["val/a/1.jpg", "val/b/2.jpg", "c/1.jpg"],
            "holds val/ but no train/: a data folder must hold train/ and val/",
        ),
        (["train/a/1.jpg", "valid/a/2.jpg"], "must be called train/, val/ and test/: rename valid/ to val/"),
        (["Train/a/1.jpg", "Test/a/2.jpg"], "rename Test/ to test/, Train/ to train/"),
    ],
)
def test_a_folder_that_is_no_data_set(tmp_path, names, phrase):
    (tmp_path / "data").mkdir()
    with pytest.raises(InputError, match=phrase):
        find(touch(tmp_path / "data", *names), "elpv")  # it is there, so the next is not tried


def test_a_test_folder_without_classes_is_a_problem(tmp_path):
    listing = find(touch(tmp_path, "train/a/1.jpg", "train/b/1.jpg", "test/1.jpg"))
    assert listing.problems == (
        (
            f"{tmp_path}/test holds no class folders, so its images have no labels: sort them into a, b, or move the "
            "folder away"
        ),
    )


def test_one_class_is_a_problem(tmp_path):
    listing = find(touch(tmp_path, "train/a/1.jpg", "val/a/1.jpg"))
    assert listing.problems == (f"there must be two classes at least, but {tmp_path} holds only 'a'",)


def test_a_file_that_is_no_archive(tmp_path):
    touch(tmp_path, "data.tar")
    with pytest.raises(InputError, match=r"data\.tar must be a folder of images, or a \.zip of one"):
        find(tmp_path / "data.tar")


@pytest.mark.parametrize(
    ("name", "near"), [("hymenopera", " Did you mean hymenoptera?"), ("elvp", " Did you mean elpv?"), ("no/such", "")]
)
def test_an_unknown_name(name, near):
    with pytest.raises(InputError) as caught:
        find(name)
    assert str(caught.value) == (
        f"data.source cannot be had: {name}: no such folder, and no built-in source of this name.{near} It must be a "
        "folder, a .zip, or one of: hymenoptera, elpv"
    )
    assert list(SOURCES) == ["hymenoptera", "elpv"]


def test_the_first_that_can_be_had_is_used_and_the_others_named(tmp_path):
    listing = find("no/such", "hymenoptera", touch(tmp_path / "data", "a/1.jpg", "b/1.jpg"))
    assert listing.source == str(tmp_path / "data")
    assert listing.notes[0].startswith("cannot be had: no/such: no such folder")
    assert listing.notes[1] == (
        "cannot be had: hymenoptera: http://127.0.0.1:9/nobody_listens.zip cannot be reached: Connection refused "
        "($HYMENOPTERA_DATA can name a copy, and $TRANSFER_SEARCH_CACHE another cache folder)"
    )


def test_none_can_be_had():
    with pytest.raises(InputError) as caught:
        find("no/such", "hymenoptera")
    first, *others = str(caught.value).splitlines()
    assert first == "data.source must name a source that can be had; none of these can:"
    assert [line[:12] for line in others] == ["  - no/such:", "  - hymenopt"]


def test_elpv_that_is_not_installed(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        InputError, match="elpv: its images come inside a package that is not installed: pip install elpv-dataset"
    ):
        find("elpv")  # fmt: skip


def test_elpv_is_found_without_being_imported():
    if importlib.util.find_spec("elpv_dataset") is None:
        pytest.skip("elpv-dataset is not installed")
    listing = find("elpv")
    assert Counter((file.class_name, file.stratum) for file in listing.files) == {
        ("functional", "mono"): 705, ("functional", "poly"): 1098,
        ("defective", "mono"): 369, ("defective", "poly"): 452,
    }  # fmt: skip


def test_hymenoptera_is_downloaded_once(served, cache):
    zipped(hymenoptera(served, HYMENOPTERA))
    said: list[str] = []
    listing = find("hymenoptera", progress=said.append)
    assert places(listing) == {tuple(place.split("/")): count for place, count in HYMENOPTERA.items()}
    assert listing.source.startswith("hymenoptera (the tutorial's 397 photographs of ants and bees, in ")
    assert "imageNotFound.gif" in listing.notes[0]
    assert said[-1].startswith("downloading hymenoptera_data.zip: ") and said[-1].endswith("(100%)")
    shutil.rmtree(served)
    assert find("hymenoptera").files == listing.files
    assert sorted(path.name for path in cache.iterdir()) == [
        "hymenoptera", "hymenoptera.lock", "hymenoptera_data.zip.lock"
    ]  # fmt: skip


@pytest.mark.parametrize("wrong", ["counts", "web page"])
def test_a_wrong_download_is_not_kept(served, cache, wrong):
    zipped(hymenoptera(served, HYMENOPTERA | {"val/bees": 82}))
    if wrong == "web page":
        (served / "hymenoptera_data.zip").write_text("<html>Please log in to this network</html>")
    phrase = {"counts": "244 in train, 152 in val", "web page": r"must be a whole zip archive, but is not: "}[wrong]
    with pytest.raises(InputError, match=phrase):
        find("hymenoptera")
    assert all(path.suffix == ".lock" for path in cache.iterdir())
    shutil.rmtree(served / "hymenoptera_data")
    zipped(hymenoptera(served, HYMENOPTERA))
    assert len(find("hymenoptera").files) == 397


@pytest.mark.parametrize("kind", ["folder", "parent", "zip"])
def test_a_local_copy_of_hymenoptera(tmp_path, monkeypatch, kind):
    folder = hymenoptera(tmp_path / "copy", HYMENOPTERA)
    copy = {"folder": lambda: folder, "parent": lambda: folder.parent, "zip": lambda: zipped(folder)}[kind]()
    monkeypatch.setenv("HYMENOPTERA_DATA", str(copy))
    assert len(find("hymenoptera").files) == 397


def test_a_local_copy_that_is_not_whole(tmp_path, monkeypatch):
    monkeypatch.setenv("HYMENOPTERA_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match=r"hymenoptera: \$HYMENOPTERA_DATA = .*/nowhere: .*/nowhere must be a folder"):
        find("hymenoptera")
    monkeypatch.setenv("HYMENOPTERA_DATA", str(hymenoptera(tmp_path, HYMENOPTERA | {"train/ants": 100})))
    with pytest.raises(
        InputError,
        match="must hold the classes ants and bees with 244 images in train and 153 in val, but holds ants, bees with "
        "221 in train, 153 in val: delete it and get it anew",
    ):
        find("hymenoptera")

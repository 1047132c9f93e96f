"""Downloads against a real server on the loopback that cuts, lies, hangs and changes its mind."""

import hashlib
import random
import socket
import stat
import subprocess
import sys
import threading
import time
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from trainable.archive import unpack
from trainable.download import download, locked
from trainable.errors import InputError

BODY = random.Random(0).randbytes(500_000)


class Server(ThreadingHTTPServer):
    """Serves ``body`` at /file.zip; the tests change how."""

    daemon_threads = True
    body = BODY
    etag: str | None = '"one"'
    modified: str | None = None
    ranges = True
    cut: int | None = None  # bytes after which a response ends
    cuts = 0  # how many responses are cut
    status = 200
    wrong_range = False
    no_length = False
    delay = 0.0  # seconds before it answers

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.requests: list[tuple[str | None, str | None]] = []  # Range and If-Range of each
        self.let_go = threading.Event()
        self.hang = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/file.zip"


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server, wanted, condition = self.server, self.headers["Range"], self.headers["If-Range"]
        server.requests.append((wanted, condition))
        time.sleep(server.delay)
        if server.hang:
            server.let_go.wait(5)
            return
        if server.status != 200:
            self.send_error(server.status)
            return
        start = 0
        if wanted and server.ranges and condition in (server.etag, server.modified):
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            if start >= len(server.body):
                self.send_error(416)
                return
            self.send_response(206)
            shown = start - 1 if server.wrong_range else start
            self.send_header("Content-Range", f"bytes {shown}-{len(server.body) - 1}/{len(server.body)}")
        else:
            self.send_response(200)
        if not server.no_length:
            self.send_header("Content-Length", str(len(server.body) - start))
        for name, value in (("ETag", server.etag), ("Last-Modified", server.modified)):
            if value:
                self.send_header(name, value)
        self.end_headers()
        end = len(server.body)
        if server.cuts:
            server.cuts -= 1
            end = start + (server.cut or 0)
        self.wfile.write(server.body[start:end])

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.let_go.set()
    server.shutdown()
    server.server_close()
    thread.join()


def _left(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.suffix != ".lock"}


def test_a_download_is_whole_and_leaves_nothing_else(server, tmp_path):
    said: list[str] = []
    target = tmp_path / "new" / "file.zip"
    assert download(server.url, target, said.append) == target
    assert target.read_bytes() == BODY
    assert _left(target.parent) == {"file.zip"}
    assert said[0].startswith("downloading file.zip: 0.") and said[-1] == "downloading file.zip: 0.5 of 0.5 MB (100%)"


def test_what_is_there_is_not_downloaded_again(server, tmp_path):
    for _ in range(2):
        download(server.url, tmp_path / "file.zip", print)
    assert len(server.requests) == 1


def test_a_cut_connection_is_resumed_at_once(server, tmp_path):
    server.cut, server.cuts = 200_000, 2
    said: list[str] = []
    download(server.url, tmp_path / "file.zip", said.append)
    assert (tmp_path / "file.zip").read_bytes() == BODY
    assert server.requests == [(None, None), ("bytes=200000-", '"one"'), ("bytes=400000-", '"one"')]
    assert f"{server.url} ended after 200,000 of 500,000 bytes; trying to go on" in said


@pytest.mark.parametrize("etag", ['"one"', None, 'W/"weak"'])
def test_a_later_run_goes_on_where_an_earlier_one_stopped(server, tmp_path, etag):
    server.etag, server.modified = etag, "Mon, 03 Nov 2025 10:00:00 GMT"
    _interrupted_run(server, tmp_path)
    server.requests.clear()
    download(server.url, tmp_path / "file.zip", print)
    assert server.requests == [("bytes=200000-", '"one"' if etag == '"one"' else server.modified)]
    assert (tmp_path / "file.zip").read_bytes() == BODY


def test_a_file_that_changed_meanwhile_is_downloaded_from_the_start(server, tmp_path):
    _interrupted_run(server, tmp_path)
    server.body, server.etag = BODY[::-1], '"two"'
    download(server.url, tmp_path / "file.zip", print)
    assert (tmp_path / "file.zip").read_bytes() == BODY[::-1]


@pytest.mark.parametrize("change", [{"ranges": False}, {"etag": None}], ids=["no Range", "no validator"])
def test_without_range_or_validator_it_starts_again(server, tmp_path, change):
    for name, value in change.items():
        setattr(server, name, value)
    _interrupted_run(server, tmp_path)
    download(server.url, tmp_path / "file.zip", print)
    assert (tmp_path / "file.zip").read_bytes() == BODY


def test_a_part_of_another_address_is_not_used(server, tmp_path):
    _interrupted_run(server, tmp_path)
    server.requests.clear()
    download(server.url + "?other", tmp_path / "file.zip", print)
    assert server.requests == [(None, None)]


def test_a_part_that_is_too_long_is_dropped(server, tmp_path):
    _interrupted_run(server, tmp_path)
    (tmp_path / "file.zip.part").write_bytes(BODY + b"more")
    download(server.url, tmp_path / "file.zip", print)
    assert (tmp_path / "file.zip").read_bytes() == BODY


def test_another_range_than_asked_for_is_refused(server, tmp_path):
    _interrupted_run(server, tmp_path)
    server.wrong_range = True
    with pytest.raises(InputError, match="answered with other bytes than asked for: run it again to start anew"):
        download(server.url, tmp_path / "file.zip", print)
    download(server.url, tmp_path / "file.zip", print)
    assert (tmp_path / "file.zip").read_bytes() == BODY


def test_a_server_that_tells_no_length(server, tmp_path):
    server.no_length = True
    said: list[str] = []
    download(server.url, tmp_path / "file.zip", said.append)
    assert (tmp_path / "file.zip").read_bytes() == BODY
    assert said[0].endswith(" MB")


def test_a_body_that_always_ends_early(server, tmp_path):
    server.ranges, server.cut, server.cuts = False, 1000, 99
    with pytest.raises(InputError, match=r"ended after 1,000 of 500,000 bytes; what came so far is kept in .*\.part"):
        download(server.url, tmp_path / "file.zip", print)
    assert not (tmp_path / "file.zip").exists()


@pytest.mark.parametrize("status", [404, 503])
def test_an_error_of_the_server(server, tmp_path, status):
    server.status = status
    with pytest.raises(InputError, match=rf"{server.url} cannot be downloaded: the server answered {status}"):
        download(server.url, tmp_path / "file.zip", print)
    assert _left(tmp_path) == set()


def test_nobody_listens(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(InputError, match="cannot be reached: Connection refused$"):
        download(f"http://127.0.0.1:{port}/file.zip", tmp_path / "file.zip", print)


def test_a_server_that_hangs(server, tmp_path):
    server.hang = True
    with pytest.raises(InputError, match=r"cannot be reached: no answer within 0\.2 s$"):
        download(server.url, tmp_path / "file.zip", print, timeout=0.2)


@pytest.mark.parametrize("url", ["file:///etc/hostname", "hymenoptera_data.zip"])
def test_an_address_that_is_none(tmp_path, url):
    with pytest.raises(InputError, match=f"must begin with http:// or https://, not '{url}'"):
        download(url, tmp_path / "file.zip", print)


def test_the_digest_is_checked(server, tmp_path):
    with pytest.raises(InputError, match=r"must have the SHA-256 digest 0000, not .*: it was deleted; try again"):
        download(server.url, tmp_path / "file.zip", print, sha256="0000")
    assert not (tmp_path / "file.zip").exists() and not (tmp_path / "file.zip.part").exists()
    download(server.url, tmp_path / "file.zip", print, sha256=hashlib.sha256(BODY).hexdigest())


def test_a_place_that_cannot_be_written(server, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="must be a folder that can be written"):
        download(server.url, tmp_path / "file" / "file.zip", print)
    (tmp_path / "file.zip.part").mkdir()
    with pytest.raises(InputError, match=r"file\.zip cannot be written: Is a directory"):
        download(server.url, tmp_path / "file.zip", print)


def test_two_processes_download_once(server, tmp_path):
    server.delay = 0.5  # so that both are at it
    code = "import sys, pathlib, trainable.download as d; d.download(sys.argv[1], pathlib.Path(sys.argv[2]), print)"
    command = [sys.executable, "-c", code, server.url, str(tmp_path / "file.zip")]
    root = Path(download.__code__.co_filename).parents[1]
    workers = [subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [worker.communicate(timeout=120)[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0]
    assert sum("waiting for another process" in output for output in outputs) == 1
    assert (tmp_path / "file.zip").read_bytes() == BODY
    assert len(server.requests) == 1


def test_who_waits_says_so(tmp_path):
    said: list[str] = []
    thread = threading.Thread(target=lambda: locked(tmp_path / "x", said.append).__enter__())
    with locked(tmp_path / "x", print):
        thread.start()
        while not said:
            thread.join(0.01)
    thread.join()
    assert said == [f"waiting for another process that makes {tmp_path / 'x'}"]


def _interrupted_run(server: Server, folder: Path) -> None:
    """An earlier run that was interrupted after 200,000 bytes."""
    server.cut, server.cuts = 200_000, 1

    def interrupt(line: str) -> None:
        if "trying to go on" in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download(server.url, folder / "file.zip", interrupt)
    assert (folder / "file.zip.part").stat().st_size == 200_000


def _zip(file: Path, entries: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(file, "w") as bundle:
        for name, content in entries.items():
            bundle.writestr(name, content)
    return file


def test_an_archive_is_unpacked_whole(tmp_path):
    (tmp_path / "out.unpacking").mkdir()
    (tmp_path / "out.unpacking" / "left by a killed process").touch()
    unpack(_zip(tmp_path / "a.zip", {"x/1.txt": b"1", "x/y/2.txt": b"2"}), tmp_path / "out")
    assert sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.txt")) == [
        "x/1.txt",
        "x/y/2.txt",
    ]
    assert _left(tmp_path) == {"a.zip", "out"}


def test_an_interrupted_or_refused_archive_leaves_nothing(tmp_path):
    archive = _zip(tmp_path / "a.zip", {"x/1.txt": b"1"})

    def refuse(folder: Path) -> None:
        assert (folder / "x" / "1.txt").exists()
        raise InputError("not what was wanted")

    with pytest.raises(InputError, match="not what was wanted"):
        unpack(archive, tmp_path / "out", refuse)
    assert _left(tmp_path) == {"a.zip"}


@pytest.mark.parametrize("name", ["../out.txt", "/tmp/out.txt", "x/../../out.txt", "..\\out.txt"])
def test_an_archive_stays_in_its_folder(tmp_path, name):
    with pytest.raises(InputError, match="must not write outside of its folder, but holds"):
        unpack(_zip(tmp_path / "a.zip", {"fine.txt": b"", name: b""}), tmp_path / "out")
    assert _left(tmp_path) == {"a.zip"}


def test_a_link_in_an_archive_is_not_followed(tmp_path):
    link = zipfile.ZipInfo("link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as bundle:
        bundle.writestr(link, "/etc")
        bundle.writestr("other", "")
    unpack(tmp_path / "a.zip", tmp_path / "out")
    assert not (tmp_path / "out" / "link").is_symlink()


@pytest.mark.parametrize("damage", [lambda b: b"<html>", lambda b: b[: len(b) // 2], lambda b: b.replace(b"11", b"10")])
def test_what_is_no_whole_archive(tmp_path, damage):
    archive = _zip(tmp_path / "a.zip", {"x/1.txt": b"1" * 99})
    archive.write_bytes(damage(archive.read_bytes()))
    with pytest.raises(InputError, match=r"a\.zip must be a whole zip archive, but is not: "):
        unpack(archive, tmp_path / "out")
    assert _left(tmp_path) == {"a.zip"}

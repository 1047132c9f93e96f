"""A file downloaded: resumed after an interruption, and there only when it is whole."""

import contextlib
import fcntl
import hashlib
import http.client
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

from trainable.errors import InputError
from trainable.lock import take_lock

_CHUNK = 1 << 16  # bytes


def download(
    url: str,
    target: Path,
    progress: Callable[[str], None],
    *,
    sha256: str | None = None,
    timeout: float = 10.0,
) -> Path:
    """Downloads a file, unless it is there already; returns ``target``.

    The bytes go to ``<target>.part``, which takes the target's name only when they are all there. After a cut
    connection, here or in an earlier run, it goes on where it stopped, if the server supports that and the file is
    still the same there (HTTP Range with If-Range); otherwise from the start. Of several processes one downloads,
    and the others wait for it.

    Args:
        progress: told about once a second how far it is, and what it waits for.
        sha256: what the file's digest must be, hexadecimal; None: whatever the server sends.
        timeout: seconds to wait for a connection, and for each next piece.

    Raises InputError where the server cannot be reached, does not have the file, or ends too early.
    """
    with locked(target, progress):
        if target.exists():
            return target
        part = Path(f"{target}.part")
        try:
            _receive_all(url, part, progress, timeout)
            _check_digest(part, sha256)
            os.replace(part, target)
            _tag(part).unlink(missing_ok=True)
        except OSError as error:
            raise InputError(f"{target} cannot be written: {error.strerror}") from error
    return target


@contextlib.contextmanager
def locked(target: Path, progress: Callable[[str], None]) -> Iterator[None]:
    """Only one process at a time makes ``target``. The lock ends with its process, so a crash leaves none behind."""
    with contextlib.ExitStack() as stack:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            stream = stack.enter_context(open(f"{target}.lock", "a"))
            if not take_lock(stream):
                progress(f"waiting for another process that makes {target}")
                fcntl.flock(stream, fcntl.LOCK_EX)
        except OSError as error:
            raise InputError(
                f"{target.parent} must be a folder that can be written and locked: {error.strerror}"
            ) from error
        yield


class _Cut(InputError):
    """The connection ended early; going on may help."""


def _receive_all(url: str, part: Path, progress: Callable[[str], None], timeout: float) -> None:
    """Goes on after each cut for as long as every attempt gets further than the last."""
    while True:
        before = _size(part)
        try:
            return _receive(url, part, progress, timeout)
        except _Cut as cut:
            if _size(part) <= before:
                kept = f"; what came so far is kept in {part}, so run it again to go on" if _size(part) else ""
                raise InputError(f"{cut}{kept}") from cut
            progress(f"{cut}; trying to go on")


def _receive(url: str, part: Path, progress: Callable[[str], None], timeout: float) -> None:
    """One request, from where the part ends."""
    tag = _read_tag(part, url)
    have = _size(part) if tag else 0
    with _request(url, have, tag, timeout) as response:
        resumed = have > 0 and response.headers.get("Content-Range", "").startswith(f"bytes {have}-")
        if response.status == 206 and not resumed:
            _tag(part).unlink()
            raise InputError(f"{url} answered with other bytes than asked for: run it again to start anew")
        have = have if resumed else 0
        total = None if response.length is None else have + response.length
        say = _meter(progress, url.rsplit("/", 1)[-1], total)
        with open(part, "ab" if resumed else "wb") as stream:
            if not resumed:  # the new tag must not be written before the old bytes are gone
                _tag(part).write_text(f"{url}\n{_validator(response)}\n")
            for chunk in _chunks(response, url, timeout):
                stream.write(chunk)
                have += len(chunk)
                say(have)
            stream.flush()
            os.fsync(stream.fileno())
    if total is not None and have != total:
        raise _Cut(f"{url} ended after {have:,} of {total:,} bytes")
    say(have)


def _request(url: str, have: int, tag: str, timeout: float) -> http.client.HTTPResponse:
    headers = {"User-Agent": "transfer-search"} | ({"Range": f"bytes={have}-", "If-Range": tag} if have else {})
    if not url.startswith(("http://", "https://")):
        raise InputError(f"an address to download from must begin with http:// or https://, not {url!r}")
    try:
        return urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=timeout)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and have:  # the part is as long as the file, or longer: from the start
            return _request(url, 0, "", timeout)
        raise InputError(f"{url} cannot be downloaded: the server answered {error.code} {error.reason}") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _Cut(f"{url} cannot be reached: {_reason(error, timeout)}") from error


def _chunks(response: http.client.HTTPResponse, url: str, timeout: float) -> Iterator[bytes]:
    while True:
        try:
            chunk = response.read(_CHUNK)
        except (OSError, http.client.HTTPException) as error:
            raise _Cut(f"{url} ended early: {_reason(error, timeout)}") from error
        if not chunk:
            return
        yield chunk


def _reason(error: BaseException, timeout: float) -> str:
    reason = getattr(error, "reason", error)
    if isinstance(reason, TimeoutError):
        return f"no answer within {timeout:g} s"
    return getattr(reason, "strerror", None) or str(reason) or type(reason).__name__


def _validator(response: http.client.HTTPResponse) -> str:
    """What names this version of the file; "" if nothing does, or only a weak tag, which If-Range does not allow."""
    tag = response.headers.get("ETag", "")
    return tag if tag and not tag.startswith("W/") else response.headers.get("Last-Modified", "")


def _tag(part: Path) -> Path:
    return Path(f"{part}.tag")


def _read_tag(part: Path, url: str) -> str:
    """The validator that the part was received with, "" if there is none."""
    try:
        where, validator = _tag(part).read_text().splitlines()
    except (OSError, ValueError):
        return ""
    return validator if where == url else ""


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


def _check_digest(part: Path, sha256: str | None) -> None:
    if sha256 is None:
        return
    with open(part, "rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != sha256.lower():
        part.unlink()
        raise InputError(f"what came must have the SHA-256 digest {sha256}, not {found}: it was deleted; try again")


def _meter(progress: Callable[[str], None], name: str, total: int | None) -> Callable[[int], None]:
    """Says how far it is, at the start, about once a second, and at the end."""
    said = [-1.0]

    def say(have: int) -> None:
        if time.monotonic() - said[0] < 1 and have != total:
            return
        said[0] = time.monotonic()
        share = f" of {total / 1e6:.1f} MB ({have / total:.0%})" if total else " MB"
        progress(f"downloading {name}: {have / 1e6:.1f}{share}")

    return say

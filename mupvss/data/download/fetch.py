"""Fetches one file from a server that may break off, report wrong lengths or send something else."""

from __future__ import annotations

import http.client
import os
import ssl
import time
import urllib.error
import urllib.request
from pathlib import Path

from mupvss.errors import DownloadError
from mupvss.files import hash_of, lock_for
from mupvss.runtime.log import progress_bar

CHUNK = 1 << 20
TIMEOUT = 30.0
"""Seconds to wait for an answer."""
ATTEMPTS = 6
"""Attempts in a row that may bring nothing new before the download is given up."""
PAUSE = 1.0
"""Seconds before the second attempt; doubled each time."""
MAX_BYTES = 64 << 30
"""More than any file of the known data sets has, so that a server that never stops sending cannot fill the disk."""


def fetch(url: str, sha256: str, target: Path) -> Path:
    """Fetch a file unless `target` already is that file.

    No library is used: huggingface_hub resumes only files on the hub, and pooch resumes nothing. The hash reveals whatever a
    server gets wrong (offset, length or content); a resumed file whose hash is wrong is fetched once more from its start.

    Args:
        url: http or https.
        sha256: 64 hexadecimal digits.
        target: The bytes of a stopped attempt are kept in TARGET.download, where the next attempt resumes.

    Returns:
        `target`.

    Raises:
        DownloadError: The server cannot be reached, or the file that it sends has another hash; `target` is not written then.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with lock_for(target):
        if target.is_file() and hash_of(target) == sha256.lower():
            return target
        partial = target.with_name(target.name + ".download")
        resumed = partial.exists()
        actual = _fetch_whole(url, partial, sha256.lower())
        if actual != sha256.lower() and resumed:  # the partial file may have been of another file
            partial.unlink()
            actual = _fetch_whole(url, partial, sha256.lower())
        if actual != sha256.lower():
            partial.unlink()
            raise DownloadError(f"{url}: its sha256 is {actual}, expected {sha256.lower()}; the file was deleted")
        with partial.open("r+b") as stream:  # Windows cannot flush a file that is open for reading only
            os.fsync(stream.fileno())
        partial.replace(target)
    return target


def _fetch_whole(url: str, partial: Path, expected: str) -> str:
    """Fetches until the hash is right or the server has nothing more; -> the hash."""
    failures, reason = 0, ""
    while failures < ATTEMPTS:
        before, whole = _size(partial), False
        try:
            whole = _fetch_more(url, partial)
        except urllib.error.HTTPError as error:
            if error.code < 500 and error.code not in (408, 429):
                raise DownloadError(f"{url}: the server answered {error.code} {error.reason}") from None
            reason = f"{error.code} {error.reason}"
        except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError, ssl.SSLError) as error:
            reason = str(error) or type(error).__name__
        grown = _size(partial) > before
        if whole and ((found := hash_of(partial)) == expected or not grown):  # the announced length may be too short
            return found
        if grown:
            failures = 0
        else:
            failures += 1
            time.sleep(PAUSE * 2 ** (failures - 1) if failures < ATTEMPTS else 0)
    raise DownloadError(f"{url}: cannot be fetched ({reason}); try again later and it goes on where it stopped")


def _fetch_more(url: str, partial: Path) -> bool:
    """Makes one request for the missing part; -> whether nothing more is to come."""
    start = _size(partial)
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # the server has no further bytes
            return True
        raise
    with response:
        at = start if response.status == 206 else 0
        length = response.headers.get("Content-Length", "")
        total = at + int(length) if length.isdigit() else at
        with partial.open("r+b" if at else "wb") as stream:
            stream.seek(at)
            with progress_bar(partial.stem, max(1, total >> 20), "MB", at >> 20) as advance:
                while chunk := response.read(CHUNK):
                    if at + len(chunk) > MAX_BYTES:
                        raise DownloadError(f"{url}: larger than {MAX_BYTES >> 30} GB, more than any known data set has; stopped")
                    stream.write(chunk)
                    advance(((at + len(chunk)) >> 20) - (at >> 20))
                    at += len(chunk)
            stream.truncate()
    return not length.isdigit() or at == total


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0

"""Downloads against a server that breaks off, lies and cheats; archives that reach outside; SBD's masks."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import shutil
import tarfile
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from mupvss.cli.main import main
from mupvss.data.download import dataset as catalogue
from mupvss.data.download import fetch as fetching
from mupvss.data.download.fetch import fetch
from mupvss.data.download.sbd import read_mat
from mupvss.data.download.unpack import unpack
from mupvss.errors import DataError, DownloadError

CONTENT = np.random.default_rng(0).bytes(3_000_000)
HASH = hashlib.sha256(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    def __init__(self, files):
        self.files, self.requests, self.behaviour = files, [], lambda handler, body, start: handler.send_part(body, start)
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *arguments):
        pass

    def do_GET(self):
        asked = self.headers.get("Range")
        self.server.requests.append((self.path, asked))
        body = self.server.files.get(self.path.lstrip("/"))
        if body is None:
            self.send_error(404)
            return
        with contextlib.suppress(ConnectionError):
            self.server.behaviour(self, body, int(asked[6:-1]) if asked else 0)

    def send_part(self, body, start, sent=None, length=None, offset=None):
        """The part from `start` on, with `length` announced and `sent` bytes of it really sent."""
        if start >= len(body):
            self.send_error(416)
            return
        part = body[start:]
        self.send_response(206 if start else 200)
        if start:
            place = start if offset is None else offset
            self.send_header("Content-Range", f"bytes {place}-{len(body) - 1}/{len(body)}")
        self.send_header("Content-Length", str(len(part) if length is None else length))
        self.end_headers()
        self.wfile.write(part[:sent])


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(fetching, "PAUSE", 0.01)
    served = Server({"file.bin": CONTENT})
    thread = threading.Thread(target=served.serve_forever, daemon=True)
    thread.start()
    yield served
    served.shutdown()
    served.server_close()


def leftovers(folder):
    return sorted(p.name for p in folder.iterdir())


def test_fetched_once_and_verified(server, tmp_path):
    path = fetch(f"{server.url}/file.bin", HASH.upper(), tmp_path / "file.bin")
    assert path.read_bytes() == CONTENT
    fetch(f"{server.url}/file.bin", HASH, path)
    assert len(server.requests) == 1
    assert leftovers(tmp_path) == ["file.bin"]


def test_goes_on_where_the_server_broke_off(server, tmp_path):
    server.behaviour = lambda handler, body, start: handler.send_part(body, start, sent=700_000)
    assert fetch(f"{server.url}/file.bin", HASH, tmp_path / "file.bin").read_bytes() == CONTENT
    assert [asked for _, asked in server.requests] == [None] + [f"bytes={700_000 * k}-" for k in range(1, 5)]


def test_goes_on_where_this_program_stopped(server, tmp_path):
    (tmp_path / "file.bin.download").write_bytes(CONTENT[:1_000_000])
    assert fetch(f"{server.url}/file.bin", HASH, tmp_path / "file.bin").read_bytes() == CONTENT
    assert server.requests == [("/file.bin", "bytes=1000000-")]


def test_what_lay_there_was_of_another_file(server, tmp_path):
    (tmp_path / "file.bin.download").write_bytes(b"x" * 1_000_000)
    assert fetch(f"{server.url}/file.bin", HASH, tmp_path / "file.bin").read_bytes() == CONTENT
    (tmp_path / "file.bin").unlink()
    (tmp_path / "file.bin.download").write_bytes(b"x" * 4_000_000)  # more than the file has
    assert fetch(f"{server.url}/file.bin", HASH, tmp_path / "file.bin").read_bytes() == CONTENT


@pytest.mark.parametrize("announced", [1_000_000, 9_000_000])
def test_lies_about_the_length(server, tmp_path, announced):
    server.behaviour = lambda handler, body, start: handler.send_part(body, start, length=announced)
    assert fetch(f"{server.url}/file.bin", HASH, tmp_path / "file.bin").read_bytes() == CONTENT


def test_a_server_that_knows_no_ranges(server, tmp_path):
    (tmp_path / "file.bin.download").write_bytes(CONTENT[:1_000_000])
    server.behaviour = lambda handler, body, start: handler.send_part(body, 0)
    assert fetch(f"{server.url}/file.bin", HASH, tmp_path / "file.bin").read_bytes() == CONTENT


def test_a_server_that_sends_another_part(server, tmp_path):
    """It says 206 and starts elsewhere: the hash is wrong, and the file is fetched from its start."""
    (tmp_path / "file.bin.download").write_bytes(CONTENT[:1_000_000])
    server.behaviour = lambda handler, body, start: handler.send_part(body, start and start + 5, offset=start)
    assert fetch(f"{server.url}/file.bin", HASH, tmp_path / "file.bin").read_bytes() == CONTENT
    assert leftovers(tmp_path) == ["file.bin"]


def test_wrong_content_is_thrown_away(server, tmp_path):
    server.files["file.bin"] = CONTENT[:-1] + b"x"
    with pytest.raises(DownloadError, match=f"expected {HASH}"):
        fetch(f"{server.url}/file.bin", HASH, tmp_path / "file.bin")
    assert leftovers(tmp_path) == []


def test_an_endless_file_is_stopped(server, tmp_path, monkeypatch):
    monkeypatch.setattr(fetching, "MAX_BYTES", 2 << 20)
    with pytest.raises(DownloadError, match="more than any known data set"):
        fetch(f"{server.url}/file.bin", HASH, tmp_path / "file.bin")


def test_errors_of_the_server(server, tmp_path):
    with pytest.raises(DownloadError, match="404"):
        fetch(f"{server.url}/nothing", HASH, tmp_path / "x")
    server.behaviour = lambda handler, body, start: handler.send_error(503)
    with pytest.raises(DownloadError, match="503"):
        fetch(f"{server.url}/file.bin", HASH, tmp_path / "x")
    assert len(server.requests) == 1 + fetching.ATTEMPTS
    with pytest.raises(DownloadError, match="it goes on where it stopped"):
        fetch("http://127.0.0.1:9/file.bin", HASH, tmp_path / "x")


def as_zip(entries):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in entries.items():
            file.writestr(name, content)
    return stream.getvalue()


def as_tar(entries, mode="w"):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as file:
        for name, content in entries.items():
            info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return stream.getvalue()


@pytest.mark.parametrize("pack", [as_zip, as_tar, lambda entries: as_tar(entries, "w:gz")])
def test_unpacked_beside_what_is_there(tmp_path, pack):
    (tmp_path / "a.bin").write_bytes(pack({"x/1.txt": b"one", "x/y/2.txt": b"two"}))
    (tmp_path / "out" / "x").mkdir(parents=True)
    (tmp_path / "out" / "x" / "mine.txt").write_text("kept")
    unpack(tmp_path / "a.bin", tmp_path / "out")
    found = {str(p.relative_to(tmp_path / "out")): p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file()}
    assert found == {"x/1.txt": b"one", "x/y/2.txt": b"two", "x/mine.txt": b"kept"}


def link(kind, name="link", to="/etc/passwd"):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, to
    return info


def zip_link():
    info = zipfile.ZipInfo("link")
    info.external_attr = 0o120777 << 16
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        file.writestr(info, "/etc/passwd")
    return stream.getvalue()


REFUSED = {
    "tar-up": as_tar({"a/../../out.txt": b"x"}),
    "tar-symlink": as_tar({link(tarfile.SYMTYPE): b""}),
    "tar-hardlink": as_tar({link(tarfile.LNKTYPE): b""}),
    "tar-device": as_tar({link(tarfile.CHRTYPE): b""}),
    "cut-zip": as_zip({"a": CONTENT})[:1_000_000],
    "cut-tgz": as_tar({"a": CONTENT}, "w:gz")[:1_000_000],
    "text": b"<html>Not found</html>",
    "empty": b"",
}
TAMED = {
    "zip-up": as_zip({"fine.txt": b"x", "../out.txt": b"x"}),
    "zip-root": as_zip({"/tmp/out.txt": b"x"}),
    "zip-windows": as_zip({"c:\\out.txt": b"x"}),
    "zip-drive": as_zip({"c:/out.txt": b"x"}),
    "zip-link": zip_link(),
    "tar-root": as_tar({"/out.txt": b"x"}),
}
"""What the standard library puts inside the folder, as plain files."""


@pytest.mark.parametrize("name", REFUSED)
def test_archives_that_are_refused_leave_nothing(tmp_path, name):
    archive = tmp_path / "in" / "archive"
    archive.parent.mkdir()
    archive.write_bytes(REFUSED[name])
    with pytest.raises(DownloadError, match="archive: "):
        unpack(archive, tmp_path / "out")
    assert leftovers(tmp_path / "out") == []
    assert leftovers(tmp_path) == ["in", "out"]


@pytest.mark.parametrize("name", TAMED)
def test_nothing_lands_outside_the_folder(tmp_path, name):
    archive = tmp_path / "in" / "archive"
    archive.parent.mkdir()
    archive.write_bytes(TAMED[name])
    unpack(archive, tmp_path / "out")
    assert leftovers(tmp_path) == ["in", "out"]
    inside = list((tmp_path / "out").rglob("*"))
    assert any(path.is_file() for path in inside)
    assert not any(path.is_symlink() for path in inside)


def png(mask):
    stream = io.BytesIO()
    Image.fromarray(mask).save(stream, "PNG")
    return stream.getvalue()


def mat(mask):
    stream = io.BytesIO()
    savemat(stream, {"GTcls": {"Segmentation": mask, "Boundaries": np.zeros(3)}})
    return stream.getvalue()


@pytest.fixture
def official(server, monkeypatch):
    """VOC and SBD in small, in their own layouts, under hashes of their own."""
    masks = {name: np.full((4, 6), i + 1, np.uint8) for i, name in enumerate(["a", "b", "c", "d", "e"])}
    base, lists = "VOCdevkit/VOC2012", "VOCdevkit/VOC2012/ImageSets/Segmentation"
    voc = as_tar({
        f"{lists}/train.txt": b"a\n", f"{lists}/val.txt": b"b\n", f"{base}/JPEGImages/a.jpg": b"x",
        **{f"{base}/SegmentationClass/{name}.png": png(masks[name]) for name in "ab"},
    })  # fmt: skip
    dataset = "benchmark_RELEASE/dataset"
    sbd = as_tar({
        f"{dataset}/train.txt": b"a\nc\nd\n", f"{dataset}/val.txt": b"b\ne\n",
        **{f"{dataset}/cls/{name}.mat": mat(masks[name] + 1) for name in "abcde"},
    }, "w:gz")  # fmt: skip
    server.files |= {"voc.tar": voc, "sbd.tgz": sbd}
    for name, file, content in (("voc", "voc.tar", voc), ("sbd", "sbd.tgz", sbd)):
        entry = catalogue.Archive(f"{server.url}/{file}", hashlib.sha256(content).hexdigest())
        monkeypatch.setitem(catalogue.ARCHIVES, name, (entry,))
    return server


@pytest.mark.slow
def test_voc_with_sbd(official, tmp_path, capsys):
    assert main(["data", "download", "sbd", str(tmp_path)]) == 1
    assert "download voc first" in capsys.readouterr().err
    assert main(["data", "download", "voc", str(tmp_path)]) == 0
    assert main(["data", "download", "sbd", str(tmp_path)]) == 0
    root = tmp_path / "VOCdevkit" / "VOC2012"
    assert (root / "ImageSets" / "Segmentation" / "train_aug.txt").read_text().split() == ["a", "c", "d", "e"]  # never val's b
    found = {p.stem: int(np.array(Image.open(p))[0, 0]) for p in (root / "SegmentationClassAug").iterdir()}
    assert found == {"a": 1, "b": 2, "c": 4, "d": 5, "e": 6}, "VOC's own masks come first"
    assert leftovers(tmp_path) == [".mupvss-downloads.json", "SBD", "VOCdevkit"]
    asked = len(official.requests)
    assert main(["data", "download", "sbd", str(tmp_path)]) == 0
    assert len(official.requests) == asked, "a second time nothing is fetched"
    shutil.rmtree(root)
    assert main(["data", "download", "voc", str(tmp_path)]) == 0
    assert len(official.requests) == asked, "the folder above is there"
    shutil.rmtree(root.parent)
    assert main(["data", "download", "voc", str(tmp_path)]) == 0
    assert (root / "JPEGImages" / "a.jpg").is_file(), "what was deleted is fetched again"


def test_a_mirror_is_verified_too(official, tmp_path, capsys):
    assert main(["data", "download", "voc", str(tmp_path), "--mirror", f"{official.url}/", "--keep"]) == 0
    assert (tmp_path / "voc.tar").is_file()
    official.files["sbd.tgz"] = b"something else"
    assert main(["data", "download", "sbd", str(tmp_path)]) == 1
    assert "the file was deleted" in capsys.readouterr().err


def test_stopped_while_unpacking(official, tmp_path, monkeypatch):
    """What is half there is done again."""
    real = Path.replace

    def stopped(self, target):
        if Path(target).name == "a.jpg":
            raise KeyboardInterrupt
        return real(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", stopped)
        assert main(["data", "download", "voc", str(tmp_path)]) == 130
    assert main(["data", "download", "voc", str(tmp_path)]) == 0
    assert len(official.requests) == 1
    assert (tmp_path / "VOCdevkit" / "VOC2012" / "JPEGImages" / "a.jpg").is_file()


BAD_MATS = [b"", b"x" * 500, mat(np.full((4, 6), 99, np.uint8)), mat(np.zeros((4, 6))), mat(np.uint8(1))[:300]]


@pytest.mark.parametrize("content", BAD_MATS)
def test_damaged_matlab_files(tmp_path, content):
    path = tmp_path / "a.mat"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.mat"):
        read_mat(path)
    with pytest.raises(DataError, match="delete the folder SBD"):
        read_mat(tmp_path / "b.mat")


def test_hashes_and_names_of_the_catalogue():
    for archives in catalogue.ARCHIVES.values():
        for archive in archives:
            assert len(bytes.fromhex(archive.sha256)) == 32
            assert archive.name.endswith((".tar", ".tgz", ".zip"))
    assert json.dumps(list(catalogue.FOLDERS)) == json.dumps(list(catalogue.ARCHIVES))


def test_two_at_once_fetch_once(server, tmp_path):
    with ThreadPoolExecutor(4) as pool:
        paths = list(pool.map(lambda _: fetch(f"{server.url}/file.bin", HASH, tmp_path / "file.bin"), range(4)))
    assert {path.read_bytes() for path in paths} == {CONTENT}
    assert len(server.requests) == 1


def test_a_folder_that_cannot_be_written_is_no_fault_of_the_server(server, tmp_path):
    (tmp_path / "file.bin.download").mkdir()
    with pytest.raises(IsADirectoryError):
        fetch(f"{server.url}/file.bin", HASH, tmp_path / "file.bin")

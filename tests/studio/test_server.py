"""The studio's server: decisions that survive anything, uploads that are checked, and doors that stay shut."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import struct
import threading
import time
import unicodedata
import zipfile
import zlib
from urllib.parse import quote

import httpx2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mupvss.data.decisions import Decisions, State
from mupvss.data.masks import read_label_image
from mupvss.errors import CheckpointError
from mupvss.studio.guard import COOKIE, MAX_BYTES, checked_name
from mupvss.studio.server import create_app
from mupvss.studio.workspace import Workspace

pytestmark = pytest.mark.slow


@pytest.fixture
def client(studio):
    with httpx2.Client(base_url=studio[0], timeout=30) as found:
        yield found


def png(width=20, height=10):
    stream = io.BytesIO()
    Image.new("RGB", (width, height), "red").save(stream, "PNG")
    return stream.getvalue()


def test_the_page_needs_nothing_from_elsewhere(client):
    page = client.get("/")
    assert page.status_code == 200
    assert "default-src 'self'" in page.headers["content-security-policy"]
    for path in ("/static/studio.js", "/static/board.js", "/static/studio.css"):
        found = client.get(path)
        assert found.status_code == 200
        assert "https://" not in found.text
        assert "http://www.w3.org/2000/svg" in found.text or "http://" not in found.text


def test_the_project_lists_the_most_doubtful_first(client):
    project = client.get("/api/project").json()
    assert project["classes"] == ["blue", "red"]
    assert len(project["pictures"]) == 6
    doubts = [p["doubt"] for p in project["pictures"]]
    assert doubts == sorted(doubts, reverse=True)
    assert {p["status"] for p in project["pictures"]} == {"open"}
    assert len(project["colours"]) == 3


def test_everything_about_a_picture(client, studio):
    about = client.get("/api/pictures/block 0").json()
    assert (about["width"], about["height"], about["tags"]) == (80, 60, ["blue"])
    assert Image.open(io.BytesIO(client.get("/api/pictures/block 0/image").content)).size == (80, 60)
    assert max(Image.open(io.BytesIO(client.get("/api/pictures/block 0/thumbnail").content)).size) <= 160
    for kind in client.get("/api/project").json()["kinds"]:
        found = client.get("/api/pictures/block 0/map", params={"kind": kind, "tag": "blue"})
        assert Image.open(io.BytesIO(found.content)).mode == "L"
    labels = np.frombuffer(client.get("/api/pictures/block 0/labels").content, np.uint8).reshape(60, 80)
    _, workspace = studio
    assert np.array_equal(labels, workspace.labels(workspace.entry("block 0")))
    all_of_it = np.frombuffer(client.get("/api/pictures/block 0/labels?threshold=0.0").content, np.uint8)
    assert (all_of_it == 1).all()
    assert client.get("/api/pictures/block 0/labels?threshold=0.5&refine=true").status_code == 200
    assert client.get("/api/progress").json()["train"]["done"] is True


def test_decisions_are_on_disk_at_once_and_survive(client, run):
    mask = np.zeros((60, 80), np.uint8)
    mask[5:20, 7:30] = 2
    mask[0] = 255
    found = client.put("/api/pictures/block 0/decision?status=accepted", content=mask.tobytes()).json()
    assert (found["status"], found["painted"], found["undo"]) == ("accepted", True, True)
    assert np.array_equal(read_label_image(run / "studio" / "masks" / "block 0.png"), mask)
    again = Workspace(run, device="cpu")  # as after a crash
    assert again.state(again.entry("block 0")) == State("accepted", ("blue", "red"), True)
    assert np.array_equal(again.labels(again.entry("block 0")), mask)
    assert client.put("/api/pictures/block 1/decision?status=rejected").json()["status"] == "rejected"
    accepted = client.put("/api/pictures/block 2/decision?status=accepted").json()  # as it is shown
    assert accepted["painted"] is True
    assert (run / "studio" / "masks" / "block 2.png").is_file()


def test_undo_goes_back_step_by_step(client, run):
    states = [client.get("/api/pictures/block 0/labels").content]
    for value in (1, 2):
        client.put("/api/pictures/block 0/decision?status=open", content=bytes([value]) * 4800)
        states.append(client.get("/api/pictures/block 0/labels").content)
    client.put("/api/pictures/block 0/tags", json={"tags": ["red", "blue"]})
    assert client.get("/api/pictures/block 0").json()["tags"] == ["blue", "red"]
    client.put("/api/pictures/block 0/decision?status=rejected")
    assert client.post("/api/pictures/block 0/undo").json()["status"] == "open"
    assert client.get("/api/pictures/block 0").json()["tags"] == ["blue", "red"]
    for expected in reversed(states):
        client.post("/api/pictures/block 0/undo")
        assert client.get("/api/pictures/block 0/labels").content == expected
    assert client.get("/api/pictures/block 0").json()["undo"] is False
    assert client.post("/api/pictures/block 0/undo").json()["status"] == "open"


def test_other_tags_give_other_maps(client):
    before = client.get("/api/pictures/block 0/labels?threshold=0.01").content
    client.put("/api/pictures/block 0/tags", json={"tags": ["red"]})
    after = client.get("/api/pictures/block 0/labels?threshold=0.01").content
    assert set(before) <= {0, 1}
    assert set(after) <= {0, 2}
    assert client.get("/api/pictures/block 0/map", params={"kind": "default", "tag": "blue"}).status_code == 422
    client.put("/api/pictures/block 0/tags", json={"tags": []})
    assert set(client.get("/api/pictures/block 0/labels").content) == {0}


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "message"),
    [
        ("GET", "/api/pictures/nobody", None, 404, "no picture 'nobody'"),
        ("GET", "/api/pictures/..%2F..%2Fetc%2Fpasswd", None, 404, ""),
        ("GET", "/static/../server.py", None, 404, ""),
        ("GET", "/static/..%2fserver.py", None, 404, ""),
        ("PUT", "/api/pictures/block 0/decision?status=perhaps", None, 422, "expected one of open, accepted, rejected"),
        ("PUT", "/api/pictures/block 0/decision?status=accepted", b"123", 422, "3 bytes for a mask of 80 x 60"),
        ("PUT", "/api/pictures/block 0/decision?status=accepted", b"\x09" * 4800, 422, "class id 9"),
        ("GET", "/api/pictures/block 0/map?kind=../x&tag=blue", None, 422, "no map"),
        ("GET", "/api/export.zip", None, 404, "nothing is exported yet"),
    ],
)
def test_wrong_requests_get_one_sentence(client, method, path, body, status, message):
    found = client.request(method, path, content=body)
    assert found.status_code == status
    assert message in found.text
    assert client.get("/api/project").status_code == 200


def test_unknown_tags_are_refused(client):
    found = client.put("/api/pictures/block 0/tags", json={"tags": ["green"]})
    assert (found.status_code, found.json()) == (422, {"error": "unknown tag 'green'; this network knows blue, red"})


def test_a_picture_is_added_and_stays(client, run):
    found = client.put("/api/upload", params={"name": "new one.png"}, content=png())
    assert found.status_code == 200
    assert found.json()["name"] == "new one"
    assert client.put("/api/upload", params={"name": "new one.png"}, content=png()).json()["name"] == "new one-2"
    assert client.get("/api/pictures/new one/labels").status_code == 200
    assert {"new one", "new one-2"} <= set(Workspace(run, device="cpu").entries)


def summary(client, name):
    return client.get(f"/api/pictures/{name}").json()


@pytest.mark.parametrize(("width", "height"), [(80, 60), (87, 60)])
def test_an_upload_of_the_same_name_takes_nobodys_place(client, run, width, height):
    mask = bytes([0] * 2400 + [1] * 2400)
    client.put("/api/pictures/block 0/decision?status=accepted", content=mask)
    before = client.get("/api/pictures/block 0/image").content
    found = client.put("/api/upload", params={"name": "block 0.png"}, content=png(width, height)).json()
    assert found["name"] == "block 0-2"
    for _ in range(2):
        assert client.get("/api/pictures/block 0/image").content == before
        assert client.get("/api/pictures/block 0/labels").content == mask
        assert summary(client, "block 0")["status"] == "accepted"
        again = Workspace(run, device="cpu")  # and after a restart
        assert again.entry("block 0").path.suffix == ".jpg"
        assert again.state(again.entry("block 0-2")).status == "open"
    assert client.post("/api/export", json={"formats": ["overlay"]}).json()["pictures"] == 1


def test_uploads_are_the_same_pictures_after_a_restart(client, run):
    for i in range(6):
        client.put("/api/upload", params={"name": f"scan{i}.png"}, content=png(20 + i, 20))
        client.put("/api/upload", params={"name": f"scan{i}.edited.png"}, content=png(120 + i, 20))
    for entry in Workspace(run, device="cpu").entries.values():
        if entry.name.startswith("scan"):
            number = int(entry.name[4])
            assert Image.open(entry.path).width == (120 if "edited" in entry.name else 20) + number, entry.name


def test_uploads_of_earlier_studios_are_found_by_their_whole_name(run):
    folder = run / "studio" / "pictures"
    folder.mkdir(parents=True)
    for name, width in (("scan.png", 20), ("scan.edited.png", 30)):
        (folder / name).write_bytes(png(width))
        (folder / f"{name[:-4]}.tags.json").write_text('["red"]')  # as they were kept
    found = Workspace(run, device="cpu").entries
    assert (found["scan"].path.name, found["scan.edited"].path.name) == ("scan.png", "scan.edited.png")


def test_a_folder_of_pictures_with_names_of_the_run(run, tmp_path):
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "block 0.png").write_bytes(png(31, 17))
    (tmp_path / "more" / "own.png").write_bytes(png())
    workspace = Workspace(run, device="cpu", pictures=tmp_path / "more")
    (other,) = [entry for entry in workspace.entries.values() if entry.path.parent == tmp_path / "more" and "block" in entry.name]
    assert other.name.startswith("block 0~")
    workspace.decide(other, "accepted", np.ones((17, 31), np.uint8))
    again = Workspace(run, device="cpu", pictures=tmp_path / "more")
    assert again.state(again.entry("block 0")).status == "open"
    assert again.state(again.entry(other.name)).status == "accepted"
    assert other.name not in Workspace(run, device="cpu").entries
    own = again.entry("block 0").path.parent  # the run's own pictures given once more are the same pictures
    assert len(Workspace(run, device="cpu", pictures=own).entries) == 6


def test_decisions_stay_with_the_picture_they_were_made_about(run, tmp_path):
    workspace = Workspace(run, device="cpu")
    entry = workspace.entry("block 3")
    workspace.decide(entry, "accepted", np.ones((60, 80), np.uint8))
    original = entry.path.read_bytes()
    try:
        entry.path.write_bytes(png(80, 60))
        changed = Workspace(run, device="cpu")
        assert changed.state(changed.entry("block 3")).status == "open", "another picture lies in its place"
        changed.decide(changed.entry("block 3"), "rejected", None)
    finally:
        entry.path.write_bytes(original)
    back = Workspace(run, device="cpu")
    assert back.state(back.entry("block 3")).status == "accepted"
    assert (back.labels(back.entry("block 3")) == 1).all()


def test_an_export_is_written_anew(client, run):
    for name in ("block 0", "block 1"):
        client.put(f"/api/pictures/{name}/decision?status=accepted")
    client.post("/api/export", json={"formats": ["masks", "labelme", "overlay", "voc", "yolo", "cutouts"]})
    client.put("/api/pictures/block 0/decision?status=rejected")
    client.post("/api/export", json={"formats": ["masks", "labelme"]})
    with zipfile.ZipFile(io.BytesIO(client.get("/api/export.zip").content)) as file:
        assert sorted(file.namelist()) == ["labelme/block 1.json", "masks/block 1.png"]


ODD_NAMES = [
    (unicodedata.normalize("NFD", "Hühnerhof.png"), "Hühnerhof"),
    ("सुबह.png", "सुबह"),
    ("ไก่.png", "ไก่"),
    ("Tom's hens, & goats@2x #1 [1].png", "Tom's hens, & goats@2x #1 [1]"),
    ("Screenshot 2024-05-01 at 10.11.12\u202fAM.png", "Screenshot 2024-05-01 at 10.11.12\u202fAM"),
    ("../../evil.png", "_.._evil"),
    ("..\\evil.png", "_evil"),
    (".hidden.png", "hidden"),
    ("a/b.png", "a_b"),
    ("x" * 300 + ".png", "x" * 180),
    ("\u202egnp.exe.png", "_gnp.exe"),
]


@pytest.mark.parametrize(("name", "kept"), ODD_NAMES)
def test_names_as_people_and_telephones_give_them(client, run, name, kept):
    found = client.put("/api/upload", params={"name": name}, content=png())
    assert found.status_code == 200
    assert found.json()["name"] == kept
    assert (run / "studio" / "pictures" / f"{kept}.png").is_file()
    assert client.get(f"/api/pictures/{quote(kept, safe='')}/image").status_code == 200
    assert kept in Workspace(run, device="cpu").entries


def test_several_are_accepted_at_once(client):
    client.put("/api/upload", params={"name": "new.png"}, content=png())
    found = client.post("/api/accept", json={"names": ["block 0", "block 1", "new"]}).json()
    assert [entry["name"] for entry in found["accepted"]] == ["block 0", "block 1"]
    assert found["left"] == ["new.png"], "nobody has searched it"
    assert summary(client, "block 1")["painted"] is True
    assert client.post("/api/accept", json={"names": ["nobody"]}).status_code == 404


def test_which_pictures_come_next(client):
    assert len(client.get("/api/next?count=3").json()) == 3
    client.put("/api/pictures/block 0/decision?status=accepted")
    assert "block 0" not in client.get("/api/next?count=20").json()


def test_a_click_means_a_region(client):
    def at(x, y, reach=0.3):
        found = client.get("/api/pictures/block 0/region", params={"x": x, "y": y, "tag": "blue", "reach": reach})
        return np.frombuffer(found.content, np.uint8).reshape(60, 80)

    inside = at(40, 30)
    assert inside[18:42, 23:57].mean() > 0.9, "the block"
    assert inside[:12].mean() < 0.1
    assert at(2, 2)[18:42, 23:57].mean() < 0.1
    assert at(40, 30, 0.0).sum() <= inside.sum()
    assert client.get("/api/pictures/block 0/region?x=80&y=0").status_code == 422


def test_an_accepted_mask_adds_the_tags_of_what_is_in_it(client):
    mask = bytes([1] * 2400 + [2] * 2400)
    assert client.put("/api/pictures/block 0/decision?status=accepted", content=mask).json()["tags"] == ["blue", "red"]


def test_thumbnails_show_the_mask(client):
    plain = client.get("/api/pictures/block 0/thumbnail?mask=false").content
    assert client.get("/api/pictures/block 0/thumbnail").content != plain
    assert max(Image.open(io.BytesIO(client.get("/api/pictures/block 0/thumbnail?side=99999").content)).size) <= 640


def test_a_long_work_holds_nobody_up(client, studio):
    """While an upload is scored, others are answered."""
    _, workspace = studio
    with workspace.lock:  # as if the network were at work
        line = threading.Thread(target=lambda: client.put("/api/upload", params={"name": "slow.png"}, content=png()))
        line.start()
        time.sleep(0.3)
        with httpx2.Client(base_url=studio[0], timeout=5) as second:
            for _ in range(5):
                assert second.get("/api/pictures/block 0").status_code == 200
    line.join(30)
    assert summary(client, "slow")["status"] == "open"


def bomb(side):
    header = bytearray(png(1, 1))
    header[16:24] = struct.pack(">II", side, side)
    header[29:33] = struct.pack(">I", zlib.crc32(bytes(header[12:29])))
    return bytes(header)


def archive():
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("zeros", bytes(50_000_000))
    return stream.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "status", "message"),
    [
        ("text.jpg", b"hello", 422, "text.jpg: cannot be read as a picture"),
        ("bomb.png", archive(), 422, "cannot be read as a picture"),
        ("bomb.zip", archive(), 422, "not a picture's name"),
        ("huge.png", bomb(50_000), 422, "make it smaller"),
        ("cut.png", png(300, 200)[:60], 422, "cannot be read as a picture"),
        ("page.svg", b"<svg onload='alert(1)'/>", 422, "not a picture's name"),
    ],
)
def test_bad_uploads_are_refused_and_leave_nothing(client, run, name, content, status, message):
    before = sorted(run.rglob("*"))
    found = client.put("/api/upload", params={"name": name}, content=content)
    assert found.status_code == status
    assert message in found.json()["error"]
    assert str(run) not in found.text
    after = [path for path in sorted(run.rglob("*")) if path not in before]
    assert [path for path in after if path.is_file()] == []
    assert client.get("/api/project").status_code == 200


def test_two_gigabytes_are_refused_by_their_length_and_by_their_bytes(client, run):
    def endless():
        for _ in range(2048):
            yield bytes(2**20)

    line = http.client.HTTPConnection(client.base_url.host, client.base_url.port)
    line.putrequest("PUT", "/api/upload?name=large.png")
    line.putheader("content-length", str(2**31))
    line.endheaders()
    answer = line.getresponse()
    assert answer.status == 413
    assert "at most 64 MB" in json.loads(answer.read())["error"]
    line.close()
    with contextlib.suppress(httpx2.TransportError):  # the line may be closed before the client reads the answer
        found = client.put("/api/upload?name=large.png", content=endless())
        assert found.status_code == 413
        assert f"over {MAX_BYTES // 2**20} MB" in found.json()["error"]
    assert not list((run / "studio" / "pictures").glob("*"))
    with httpx2.Client(base_url=str(client.base_url)) as another:
        assert another.get("/api/project").status_code == 200


@settings(max_examples=200, deadline=None)
@given(name=st.text(max_size=30) | st.text("./\\ab-_ %", max_size=12).map(lambda s: s + ".png"))
def test_no_name_leaves_its_folder(tmp_path_factory, name):
    folder = tmp_path_factory.getbasetemp()
    try:
        path = (folder / checked_name(name)).resolve()
    except ValueError:
        return
    assert path.parent == folder.resolve()


def test_export_writes_what_was_accepted(client, run):
    assert client.post("/api/export", json={"formats": ["masks"]}).json()["error"].startswith("no picture is accepted yet")
    client.put("/api/pictures/block 0/decision?status=accepted", content=b"\x02" * 4800)
    client.put("/api/pictures/block 1/decision?status=rejected")
    found = client.post("/api/export", json={"formats": ["masks", "coco"]}).json()
    assert found["pictures"] == 1
    with zipfile.ZipFile(io.BytesIO(client.get(found["archive"]).content)) as file:
        assert sorted(file.namelist()) == ["coco.json", "masks/block 0.png"]
        assert json.loads(file.read("coco.json"))["annotations"][0]["category_id"] == 2
    assert client.post("/api/export", json={"formats": ["masks"], "accepted_only": False}).json()["pictures"] == 5
    assert "no format 'x'" in client.post("/api/export", json={"formats": ["x"]}).json()["error"]


def test_only_this_studios_own_page_may_ask(client):
    assert client.get("/", headers={"host": "evil.example"}).status_code == 403
    wrong = client.put("/api/pictures/block 0/decision?status=rejected", headers={"origin": "http://evil.example"})
    assert wrong.status_code == 403
    assert client.get("/api/pictures/block 0").json()["status"] == "open"
    cross = client.post("/api/pictures/block 0/undo", headers={"sec-fetch-site": "cross-site"})
    assert cross.status_code == 403
    own = str(client.base_url).rstrip("/")
    assert client.put("/api/pictures/block 0/decision?status=open", headers={"origin": own}).status_code == 200


def test_any_other_address_needs_the_token(run):
    app = create_app(Workspace(run, device="cpu"), 80, "0.0.0.0", "secret")
    from starlette.testclient import TestClient

    with TestClient(app, base_url="http://studio.local", follow_redirects=False) as client:
        assert client.get("/").status_code == 403
        assert client.get("/?token=wrong").status_code == 403
        first = client.get("/?token=secret")
        assert first.status_code == 303
        assert first.headers["location"] == "/"
        assert f"{COOKIE}=secret" in first.headers["set-cookie"]
        assert "HttpOnly" in first.headers["set-cookie"]
        assert client.get("/api/project").status_code == 200  # the cookie is kept
        client.cookies.clear()
        assert client.get("/api/project").status_code == 403


def test_a_run_without_a_network(tmp_path):
    with pytest.raises(CheckpointError, match="no trained network"):
        Workspace(tmp_path)


@settings(max_examples=40, deadline=None)
@given(steps=st.lists(st.sampled_from(["paint", "accept", "reject", "retag", "undo"]), max_size=12), seed=st.integers(0, 99))
def test_undo_is_exact_for_any_sequence(tmp_path_factory, steps, seed):
    """Against a plain stack of states."""
    records, rng = Decisions(tmp_path_factory.mktemp("records")), np.random.default_rng(seed)
    state, mask, stack = State("open", ("a",), False), None, []
    for step in steps:
        if step == "undo":
            state, mask = stack.pop() if stack else (state, mask)
            records.undo("p", ("a",))
        else:
            stack.append((state, mask))
            new = rng.integers(0, 3, (4, 5)).astype(np.uint8) if step in ("paint", "accept") else None
            if step == "retag":
                following = State("open", ("b",), False)
            else:
                status = {"paint": state.status, "accept": "accepted", "reject": "rejected"}[step]
                following = State(status, state.tags, state.painted or new is not None)
            records.write("p", state, following, new)
            mask = None if step == "retag" else (mask if new is None else new)
            state = following
        assert records.read("p", ("a",)) == state
        found = records.mask("p")
        assert (found is None) == (mask is None)
        assert mask is None or np.array_equal(found, mask)

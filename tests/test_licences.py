"""Where a network began, from its weights to checkpoint, ONNX file and model card; and what may not be shared."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers import TINY_VIT, info_of, network_of, tiny
from huggingface_hub import HfApi
from safetensors.torch import save_file

from mupvss import load
from mupvss.cli.main import main
from mupvss.errors import UserError
from mupvss.methods.checkpoint import read_info, save_model
from mupvss.model import licences
from mupvss.model.checkpoint import read_header
from mupvss.model.licences import Origin, obstacles, pictures_origin, shortened, weights_origin
from mupvss.options import SearchConfig, ViTSegment
from mupvss.predict.onnx_file import export_onnx
from mupvss.predict.predictor import Predictor
from mupvss.segmentation.build import segmenter_origins
from mupvss.stages.run import run_all
from mupvss.stages.run_folder import Run

PICTURES = Origin("pictures", licence="cc-by-4.0")


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "own" / "vit.safetensors"
    path.parent.mkdir()
    save_file(dict(network_of().backbone.state_dict()), path)
    return path


@pytest.fixture
def cards(monkeypatch, tmp_path):
    """A hub whose repositories have model cards."""
    import huggingface_hub

    texts: dict[str, str] = {}

    def fetch(name, file, **_):
        if file == "README.md" and name in texts:
            path = tmp_path / f"{name.replace('/', '-')}.md"
            path.write_text(f"---\n{texts[name]}\n---\n# A model\n")
            return str(path)
        if file == "model.safetensors":
            path = tmp_path / "hub.safetensors"
            path.write_bytes(name.encode())
            return str(path)
        raise OSError("offline")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fetch)
    return texts


@pytest.mark.parametrize(
    ("source", "card", "licence"),
    [
        ("someone/net", "license: cc-by-nc-4.0", "cc-by-nc-4.0"),
        ("someone/net", "license: other\nlicense_name: own-terms", "own-terms"),
        ("someone/net", "tags: [a]", None),
        ("someone/net", None, None),
        ("timm/deit_small_patch16_224.fb_in1k", None, "apache-2.0"),
        ("facebook/dinov3-vits16-pretrain-lvd1689m", None, "dinov3-license"),
        ("timm/vit_small_patch16_dinov3.lvd1689m", None, "dinov3-license"),
        ("timm/deit_small_patch16_224.fb_in1k", "license: mit", "mit"),
    ],
)
def test_licences_of_hub_names(cards, source, card, licence):
    if card is not None:
        cards[source] = card
    found = weights_origin("backbone", source)
    assert (found.source, found.licence) == (source, licence)
    assert weights_origin("backbone", source, "bsd-3-clause").licence == "bsd-3-clause"


def test_a_file_is_known_by_its_content_only(weights, monkeypatch):
    found = weights_origin("backbone", str(weights))
    assert (found.source, found.licence) == ("vit.safetensors", None)  # without the user's folders
    monkeypatch.setattr(licences, "CONTENTS", {found.sha256: ("timm/known", "mit")})
    assert str(weights_origin("backbone", str(weights))) == "backbone: timm/known (mit)"
    assert weights_origin("backbone", "package:drawn").licence == "apache-2.0"


@pytest.mark.parametrize(
    ("licence", "text"),
    [
        ("apache-2.0", None),
        ("MIT", None),
        ("MIT License", None),
        ("Apache 2.0", None),
        ("CC BY 4.0", None),
        ("cc0", None),
        ("apache-2.0 and own words", "are not known here"),
        ("Non-Commercial Use", "not commercial"),
        ("cc-by-4.0", None),
        ("cc-by-nc-4.0", "not commercial"),
        ("cc-by-nd-4.0", "without changes"),
        ("cc-by-nc-sa-4.0", "same licence"),
        ("gpl-3.0", "same licence"),
        ("dinov3-license", "its own terms"),
        ("our own words", "are not known here"),
        (None, "is not known"),
    ],
)
def test_what_stands_in_the_way(licence, text):
    found = Origin("backbone", "x", "", licence).condition()
    assert found is None if text is None else text in found


def test_pictures_count_where_their_licence_is_stated():
    assert not list(obstacles([pictures_origin(None), PICTURES]))
    assert list(obstacles([pictures_origin("cc-by-nc-4.0")]))


def test_a_segmentation_network_inherits_what_it_began_from(weights):
    own = Origin("backbone", "a", "1", "mit")
    assert segmenter_origins(ViTSegment(), (own, PICTURES)) == (own, PICTURES)
    other, kept = segmenter_origins(ViTSegment(weights=str(weights)), (own, PICTURES))
    assert (other.source, kept) == ("vit.safetensors", PICTURES)
    decoder = segmenter_origins(ViTSegment(decoder="package:drawn"), (own,))[0]
    assert (decoder.part, decoder.licence) == ("decoder", "apache-2.0")


def saved(path: Path, origins: tuple[Origin, ...]) -> Path:
    from dataclasses import replace

    save_model(path / "train" / "model.safetensors", network_of(), replace(info_of(("a", "b", "c")), origins=origins))
    return path


def test_share_refuses_what_a_licence_forbids(tmp_path, monkeypatch, capsys):
    pushed = []
    monkeypatch.setattr(HfApi, "create_repo", lambda self, repo_id, **options: type("Repo", (), {"repo_id": repo_id}))
    monkeypatch.setattr(HfApi, "upload_folder", lambda self, *, repo_id, **options: pushed.append(repo_id) or "done")
    run = saved(tmp_path / "run", (Origin("backbone", "someone/net", "ab" * 32, "cc-by-nc-4.0"), PICTURES))
    words = ["share", str(run), str(tmp_path / "out"), "--classifier"]
    assert main([*words, "--repo", "me/net"]) == 1
    error = " ".join(capsys.readouterr().err.split())
    assert "someone/net: cc-by-nc-4.0 allows that only for uses that are not commercial" in error
    assert not pushed
    assert main(words) == 0  # a folder of one's own is no push
    card = (tmp_path / "out" / "README.md").read_text()
    assert "| backbone | someone/net | cc-by-nc-4.0 | abababababababab |" in card
    assert "| pictures | - | cc-by-4.0 | - |" in card
    assert main([*words, "--repo", "me/net", "--accept-licence"]) == 0
    assert pushed == ["me/net"]


def test_a_licence_that_is_not_known_can_be_stated(tmp_path, monkeypatch, capsys):
    pushed = []
    monkeypatch.setattr(HfApi, "create_repo", lambda self, repo_id, **options: type("Repo", (), {"repo_id": repo_id}))
    monkeypatch.setattr(HfApi, "upload_folder", lambda self, *, repo_id, **options: pushed.append(repo_id) or "done")
    run = saved(tmp_path / "run", (Origin("backbone", "vit.safetensors"),))
    words = ["share", str(run), str(tmp_path / "out"), "--classifier", "--repo", "me/net"]
    assert main(words) == 1
    assert "its licence is not known" in " ".join(capsys.readouterr().err.split())
    assert main([*words, "--weights-licence", "mit"]) == 0
    assert pushed == ["me/net"]
    assert load(tmp_path / "out", "cpu").origins == (Origin("backbone", "vit.safetensors", "", "mit"),)


def test_no_folder_and_no_password_is_shown():
    for source, shown in {
        "/home/me/secret/vit.pth": "vit.pth",
        "C:\\Users\\me\\x.pth": "x.pth",
        "folder/deit.pth": "deit.pth",
        "timm/deit_tiny_patch16_224.fb_in1k": "timm/deit_tiny_patch16_224.fb_in1k",
        "package:drawn": "package:drawn",
        "https://me:token@host/a/b.pth?token=1#sha256=00": "https://host/a/b.pth",
    }.items():
        assert shortened(source) == shown


def test_headers_and_settings_name_no_folder(tmp_path, weights):
    """What is shared says nothing about the computer it was made on."""
    model = TINY_VIT.model_copy(update={"weights": str(weights)})
    info = info_of(("a",), model=model)
    save_model(tmp_path / "m.safetensors", network_of(), info)
    search = SearchConfig(given=tmp_path / "their-cams")
    for text in (
        json.dumps(read_header(tmp_path / "m.safetensors")),
        json.dumps(Predictor(network_of(), info, search).settings()),
    ):
        assert str(tmp_path) not in text


def test_checkpoints_of_earlier_versions_name_their_weights(tmp_path):
    path = tmp_path / "model.safetensors"
    save_model(path, network_of(), info_of(("a",), model=TINY_VIT.model_copy(update={"weights": "folder/deit.pth"})))
    header = read_header(path)
    del header["origins"]
    assert licences.from_header(header) == (Origin("backbone", "deit.pth"),)
    assert licences.from_header(header | {"segment": {"weights": "C:\\a\\own.pth"}}) == (Origin("backbone", "own.pth"),)
    header["model"]["weights"] = "package:drawn"
    assert licences.from_header(header) == (Origin("backbone", "package:drawn", "", "apache-2.0"),)


@pytest.mark.slow
def test_from_weights_to_every_network_and_the_onnx_file(tmp_path, weights):
    pytest.importorskip("onnxscript")
    settings = {"model.weights": str(weights), "licences.weights": "cc-by-nc-4.0", "licences.pictures": "cc0-1.0"}
    run = Run(tiny(settings), tmp_path / "run")
    run_all(run)
    content = weights_origin("backbone", str(weights)).sha256
    expected = (Origin("backbone", "vit.safetensors", content, "cc-by-nc-4.0"), Origin("pictures", licence="cc0-1.0"))
    assert read_info(run.checkpoint("train")).origins == expected
    for classifier in (True, False):
        predictor = load(run.out, "cpu", classifier=classifier)
        assert predictor.origins == expected
        export_onnx(predictor, tmp_path / "m.onnx")
        assert load(tmp_path / "m.onnx").origins == expected
    before = json.loads((run.out / "train" / "stage.json").read_text())["fingerprint"]
    again = Run(tiny(settings | {"licences.pictures": "mit"}), run.out)
    run_all(again)  # another licence trains nothing again
    assert json.loads((run.out / "train" / "stage.json").read_text())["fingerprint"] == before
    with pytest.raises(UserError):
        load(run.out / "segment" / "model.safetensors", "cpu", classifier=True)

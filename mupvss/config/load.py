"""Reading and writing configs as TOML, with errors that name the key and its nearest known neighbour."""

from __future__ import annotations

import difflib
import json
import tomllib
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import BaseModel, ValidationError

from mupvss.config.schema import RunConfig
from mupvss.errors import ConfigError
from mupvss.files import write_text

DEEPEST = 20
"""Tables in tables that a config may have; its own sections are four deep at most."""


def load_config(path: Path, base: Path | None = None) -> RunConfig:
    """RunConfig from a TOML file, or from a preset of the installed package by its name ('scenes').

    base: a config whose values hold wherever `path` says nothing; so a method is one small file for every data set.
    ConfigError for a missing file, invalid TOML, unknown keys and wrong values.
    """
    values = _read(path)
    if base is not None:
        values = _over(_read(base), values)
    try:
        # Through JSON, since pydantic's strict mode takes lists for tuples and text for paths only from there.
        return RunConfig.model_validate_json(json.dumps(values, default=str))
    except ValidationError as error:
        raise ConfigError("\n".join(f"{path}: {_explain(entry)}" for entry in error.errors())) from None


def _over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Table by table, the values of `above` where it has them."""
    merged = dict(below)
    for key, value in above.items():
        both = isinstance(value, dict) and isinstance(below.get(key), dict)
        merged[key] = _over(below[key], value) if both else value
    return merged


def _read(path: Path, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The values of a file, over those of the files it names in `extends` (relative to itself, later ones win).

    above: the files that led here.
    """
    if not path.suffix and not path.exists():
        path = _preset(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such config; the ones that come with the product are in configs/") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error})") from None
    try:
        own = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # also a number of thousands of digits, and arrays in arrays in arrays
        raise ConfigError(f"{path}: not valid TOML ({error})") from None
    if _deeper_than(DEEPEST, own):
        raise ConfigError(f"{path}: tables within tables within tables; expected a config, as those in configs/")
    values: dict[str, Any] = {}
    names = own.pop("extends", [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ConfigError(f'{path}: extends is {names!r}; expected a list of files, as in extends = ["voc.toml"]')
    for name in names:
        below = path.parent / name
        if below.resolve() in (file.resolve() for file in (*above, path)):
            raise ConfigError(f"{path}: extends {name}, which extends this file; take one of the two out")
        values = _over(values, _read(below, (*above, path)))
    return _over(values, own)


def _deeper_than(limit: int, value: Any) -> bool:
    """Whether tables and arrays lie in each other more than `limit` deep; asked without recursion."""
    level = [value]
    for _ in range(limit):
        level = [inner for outer in level for inner in (outer.values() if isinstance(outer, dict) else outer)]
        level = [inner for inner in level if isinstance(inner, dict | list)]
        if not level:
            return False
    return True


def _preset(name: Path) -> Path:
    """The file of a preset; the name itself, for the error message, where there is none."""
    package = Path(__file__).parents[1]
    for folder in (package / "presets", package.parent / "configs"):  # installed, or in a source tree
        if (folder / f"{name}.toml").is_file():
            return folder / f"{name}.toml"
    return name


def dump_config(config: BaseModel) -> str:
    """TOML text of a config or a section; options that are None are left out."""
    return tomli_w.dumps(config.model_dump(mode="json", exclude_none=True))


def save_config(path: Path, config: BaseModel) -> None:
    write_text(path, dump_config(config))


def _explain(entry: Any) -> str:
    key = ".".join(str(part) for part in entry["loc"])
    if entry["type"] != "extra_forbidden":
        return f"{key} is {entry['input']!r}: {entry['msg']}"
    known = _known_keys(entry["loc"][:-1])
    near = difflib.get_close_matches(str(entry["loc"][-1]), known, n=1, cutoff=0.4)
    hint = f"did you mean '{near[0]}'?" if near else f"known here: {', '.join(known)}"
    return f"unknown key '{key}'; {hint}"


def _known_keys(location: tuple[Any, ...]) -> list[str]:
    section: type[BaseModel] = RunConfig
    for part in location:
        section = section.model_fields[str(part)].annotation  # type: ignore[assignment]
    return list(section.model_fields)

"""Reads and writes configs as TOML; errors name the key and the nearest known key.

A config is built from layers, merged table by table; later ones win: `--base`, the files named in `extends`, the file, the
command line. A base may hold a table for every method; only that of the chosen method is read. If a layer chooses another method,
source, affinity or network than the one below it, it inherits only those options that its own choice has too.
"""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import BaseModel, ValidationError

from mupvss.config.run import RunConfig, concrete, options_table, usual_affinity, usual_network
from mupvss.errors import ConfigError
from mupvss.files import write_text
from mupvss.methods import METHODS, Method, find_method
from mupvss.methods.earlier import modern
from mupvss.options import AFFINITIES, NETWORKS, SOURCES, ModelConfig, Section, ViTConfig

DEEPEST = 20
"""Deepest nesting accepted in a config; its own sections are at most four levels deep."""
CHOICES: dict[str, tuple[str, Mapping[str, type[Section]]]] = {
    "data": ("source", SOURCES),
    "affinity": ("kind", AFFINITIES),
    "segment": ("network", NETWORKS),
}
"""Sections in which one option (the key given here) decides which others exist."""
SELECTORS = ("method", *(f"{section}.{key}" for section, (key, _) in CHOICES.items()))
"""Options that decide which other options exist."""


def load_config(path: Path, base: Path | None = None, trusted: bool = True) -> RunConfig:
    """RunConfig from a TOML file, from one row of a table of configs (ablations.toml:ge), or from a preset by its name (scenes).

    base: a config that supplies what `path` leaves out, so that a method is one small file for every data set. trusted: whether
    the file comes from the user, see `find_method`. ConfigError for a missing file, invalid TOML, unknown keys and wrong values.
    """
    return build(read_values(path, base, trusted), str(path), trusted)


def read_values(path: Path, base: Path | None = None, trusted: bool = True) -> dict[str, Any]:
    """The values as written in the files, on top of those of the base. trusted: see `load_config`."""
    values = _read(path, trusted)
    return values if base is None else overlay(_read(base, trusted), values, trusted)


def build(values: Mapping[str, Any], origin: str = "config", trusted: bool = True) -> RunConfig:
    """Values as TOML has them -> RunConfig. ConfigError, naming `origin`, for unknown keys and wrong values."""
    method = find_method(_text(values, "method", "mupvss", origin), trusted)
    chosen = concrete(
        method,
        _choice(values, "data", "scenes", origin),
        _choice(values, "affinity", usual_affinity(method), origin),
        _choice(values, "segment", usual_network(method), origin),
    )
    others = {other.table for other in METHODS.values() if other.table != method.table}
    read = {key.replace("-", "_"): value for key, value in values.items()}
    read = {key: value for key, value in read.items() if key not in others}
    _check_together(method, read, origin)
    try:
        # Through JSON, since only there does pydantic's strict mode accept lists for tuples and text for paths.
        return chosen.model_validate_json(json.dumps(read, default=str))
    except ValidationError as error:
        raise ConfigError("\n".join(f"{origin}: {_explain(entry, chosen)}" for entry in error.errors())) from None


def _check_together(method: Method, values: Mapping[str, Any], origin: str) -> None:
    """Rejects combinations that would otherwise fail only after the classifier is trained."""
    if issubclass(method.model, ViTConfig):
        return
    if _choice(values, "affinity", "none", origin) == "head":
        raise ConfigError(
            f'{origin}: affinity.kind = "head" needs a ViT, and {method.name} has none; set affinity.kind = "net" or "none"'
        )
    if _choice(values, "segment", "resnet38", origin) == "vit":
        raise ConfigError(
            f'{origin}: segment.network = "vit" needs a ViT, and {method.name} has none; set segment.network = "resnet38"'
        )


def _choice(values: Mapping[str, Any], section: str, usual: str, origin: str) -> str:
    key, known = CHOICES[section]
    table = values.get(section, {})
    found = _text(table, key, usual, origin, f"{section}.") if isinstance(table, dict) else usual
    if found not in known:
        raise ConfigError(f"{origin}: {section}.{key} is {found!r}; choose one of {', '.join(known)}")
    return found


def _text(table: Mapping[str, Any], key: str, usual: str, origin: str, above: str = "") -> str:
    found = table.get(key, usual)
    if not isinstance(found, str):
        raise ConfigError(f"{origin}: {above}{key} is {found!r}; expected a text")
    return found


def overlay(below: Mapping[str, Any], above: Mapping[str, Any], trusted: bool = True) -> dict[str, Any]:
    """The values of `above`, else those of `below`, except for options of choices that `above` makes differently."""
    return merged(dict(_fitting(below, above, trusted)) if below else {}, above)


def _fitting(below: Mapping[str, Any], above: Mapping[str, Any], trusted: bool) -> Iterator[tuple[str, Any]]:
    """The entries of `below` that still apply. An option that no choice knows is kept, so that it is reported."""
    before = str(below.get("method", "mupvss"))
    method, former = find_method(str(above.get("method", before)), trusted), find_method(before, trusted)
    for section, table in below.items():
        kept = table
        if not isinstance(table, dict):
            pass
        elif section in CHOICES:
            key, known = CHOICES[section]
            chosen = above.get(section, {}).get(key) if isinstance(above.get(section, {}), dict) else None
            if chosen is None and table.get(key) in ON_A_VIT and not issubclass(method.model, ViTConfig):
                chosen = (usual_affinity if section == "affinity" else usual_network)(method)
                kept = table = {name: value for name, value in table.items() if name != key}
            elif chosen is None and key not in table and section != "data" and method.model is not former.model:
                chosen = (usual_affinity if section == "affinity" else usual_network)(method)
            if isinstance(chosen, str) and chosen in known:
                kept = _of_choice(table, known[chosen], list(known.values()))
        elif section == "model" and method.model is not former.model:
            kept = _of_choice(table, ModelConfig, [method.model, former.model])
        yield section, kept


ON_A_VIT = ("head", "vit")
"""The affinity and the segmentation network that are built on the classifier's ViT."""


def _of_choice(table: Mapping[str, Any], chosen: type[Section], choices: Sequence[type[Section]]) -> dict[str, Any]:
    """The table without the options that only another choice has."""
    others = {name for choice in choices for name in choice.model_fields} - set(chosen.model_fields)
    return {name: value for name, value in table.items() if name not in others}


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Both, merged table by table; the values of `above` win."""
    found = dict(below)
    for key, value in above.items():
        both = isinstance(value, dict) and isinstance(below.get(key), dict)
        found[key] = merged(below[key], value) if both else value
    return found


def rows_of(path: Path) -> list[str]:
    """Names of the rows in a table of configs; empty for a single config."""
    rows = _parsed(_place(_parted(path)[0])).get("rows", {})
    return list(rows) if isinstance(rows, dict) else []


def _read(path: Path, trusted: bool = True, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The values of a file, on top of those of the files it names in `extends` (relative to itself, later ones win).

    above: the files that led here through `extends`.
    """
    file, row = _parted(path)
    path = _place(file)
    own = modern(_parsed(path), str(path), trusted)
    rows = own.pop("rows", None)
    values: dict[str, Any] = {}
    names = own.pop("extends", [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ConfigError(f'{path}: extends is {names!r}; expected a list of files, as in extends = ["voc.toml"]')
    for name in names:
        below = path.parent / name
        if below.resolve() in (file.resolve() for file in (*above, path)):
            raise ConfigError(f"{path}: extends {name}, which extends this file; take one of the two out")
        values = overlay(values, _read(below, trusted, (*above, path)), trusted)
    values = overlay(values, own, trusted)
    return values if rows is None and row is None else overlay(values, _one_row(path, rows, row, trusted), trusted)


def _one_row(path: Path, rows: Any, row: str | None, trusted: bool) -> dict[str, Any]:
    if not isinstance(rows, dict) or not all(isinstance(value, dict) for value in rows.values()):
        raise ConfigError(f"{path}: has no table of rows; expected [rows.NAME]")
    if row is None:
        raise ConfigError(f"{path}: a table of configs; name a row, as in {path}:{next(iter(rows), 'NAME')}")
    if row not in rows:
        raise ConfigError(f"{path}: no row '{row}'; it has {', '.join(rows)}")
    return {key: value for key, value in modern(rows[row], str(path), trusted).items() if key != "about"}


def _parted(path: Path) -> tuple[Path, str | None]:
    """The file, and the row named after it, as in ablations.toml:ge or ablations:ge; a drive letter is not mistaken for a row."""
    name, colon, row = path.name.rpartition(":")
    return (path.with_name(name), row) if colon and name else (path, None)


def is_row(path: Path) -> bool:
    """Whether the path names a row of a table of configs, as in ablations.toml:ge."""
    return _parted(path)[1] is not None


def config_name(path: Path) -> str:
    """Name of a config in a comparison: its row, or its file's stem."""
    return _parted(path)[1] or path.stem


def run_name(path: Path) -> str:
    """Name of the run's folder: NAME for NAME.toml, TABLE-ROW for a row of a table of configs."""
    file, row = _parted(path)
    return file.stem if row is None else f"{file.stem}-{row}"


def _place(file: Path) -> Path:
    """The file itself, or the preset of that name if there is no such file."""
    return _preset(file) if not file.suffix and not file.is_file() else file


def _parsed(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8-sig")  # editors on Windows put a mark first
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such config; the ones that come with the product are in configs/") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error})") from None
    try:
        values = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # also for numbers of thousands of digits and deeply nested arrays
        raise ConfigError(f"{path}: not valid TOML ({error})") from None
    if _deeper_than(DEEPEST, values):
        raise ConfigError(f"{path}: nested too deeply; expected a config like those in configs/")
    return values


def _deeper_than(limit: int, value: Any) -> bool:
    """Whether tables and arrays are nested more than `limit` deep; checked without recursion."""
    level = [value]
    for _ in range(limit):
        level = [inner for outer in level for inner in (outer.values() if isinstance(outer, dict) else outer)]
        level = [inner for inner in level if isinstance(inner, dict | list)]
        if not level:
            return False
    return True


def _preset(name: Path) -> Path:
    """The file of a preset; if there is none, the name itself, for the error message."""
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


def _explain(entry: Any, config: type[RunConfig]) -> str:
    key = ".".join(str(part) for part in entry["loc"])
    if entry["type"] != "extra_forbidden":
        return f"{key} is {entry['input']!r}: {entry['msg']}"
    *parents, name = (str(part) for part in entry["loc"])
    if elsewhere := _elsewhere(parents, name):
        return f"'{key}' is an option of {elsewhere}, which this config does not choose; take it out"
    known = _known_keys(config, parents)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    hint = f"did you mean '{near[0]}'?" if near else f"known here: {', '.join(known)}"
    return f"unknown key '{key}'; {hint}"


def _elsewhere(parents: list[str], name: str) -> str:
    """Where else an option is known: under another choice of its section, or in another method."""
    if len(parents) == 1 and parents[0] in CHOICES:
        key, known = CHOICES[parents[0]]
        if having := [choice for choice, section in known.items() if name in section.model_fields]:
            return f"{parents[0]}.{key} = {' or '.join(map(repr, having))}"
    if parents == ["model"] and (methods := [m.name for m in METHODS.values() if name in m.model.model_fields]):
        return f"the methods {', '.join(methods)}"
    return ""


def _known_keys(config: type[BaseModel], parents: list[str]) -> list[str]:
    section: Any = config
    for part in parents:
        section = section.model_fields[part].annotation
    known = list(section.model_fields)
    return known if parents else [*known, *(m.table for m in METHODS.values() if options_table(m) is not None)]

"""The words that people read: `--help`, error messages and the documentation keep to the list in CONTRIBUTING.md."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from mupvss.cli.main import COMMANDS, usage
from mupvss.methods import METHODS
from mupvss.options import Section

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def avoided() -> list[str]:
    """What the list says not to write."""
    table = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("## Words")[2]
    rows = [line.split("|")[2] for line in table.splitlines() if line.startswith("| ") and "| not |" not in line]
    return [phrase for row in rows for phrase in re.findall(r"`([^`]+)`", row)]


def found_in(text: str) -> list[str]:
    plain = " ".join(text.split()).lower()
    return [phrase for phrase in avoided() if re.search(rf"\b{re.escape(phrase)}\b", plain)]


def messages() -> list[tuple[str, str]]:
    """Every text that is raised or printed, with its place."""
    found = []
    for path in sorted((ROOT / "mupvss").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            called = getattr(node.func, "id", getattr(node.func, "attr", ""))
            if called.endswith("Error") or called == "print":
                parts = [part.value for part in ast.walk(node) if isinstance(part, ast.Constant) and isinstance(part.value, str)]
                found.append((f"{path.relative_to(ROOT)}:{node.lineno}", " ".join(parts)))
    return found


def sections(kind: type[Section] = Section) -> list[type[Section]]:
    return [kind, *(inner for below in kind.__subclasses__() for inner in sections(below))]


def test_the_list_is_read_and_its_words_are_found():
    assert {"anew", "is there already", "of ours"} <= set(avoided())
    assert found_in("Delete it, and it is made\nanew") == ["anew"]
    assert found_in("renewed") == []


def test_messages():
    texts = messages()
    assert len(texts) > 200
    assert [(place, words) for place, text in texts if (words := found_in(text))] == []


def test_help():
    assert METHODS  # whose options are sections too
    assert found_in(usage()) == []
    assert [(name, words) for name, command in COMMANDS.items() if (words := found_in(command.__doc__ or ""))] == []
    fields = [
        (f"{kind.__name__}.{name}", field.description or "") for kind in sections() for name, field in kind.model_fields.items()
    ]
    assert len(fields) > 100
    assert [(name, words) for name, text in fields if (words := found_in(text))] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_pages(page):
    assert found_in(page.read_text(encoding="utf-8")) == []

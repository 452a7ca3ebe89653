"""A real browser drives the studio: open, retag, slide, repaint, accept, reload, undo, reject, upload, export."""

from __future__ import annotations

import io
import os
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mupvss.data.masks import read_label_image

pytestmark = pytest.mark.slow

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-sync"]


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("needs Chromium, which is not installed")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield found
        found.close()


@pytest.fixture
def page(browser, studio):
    address, _ = studio
    context = browser.new_context(viewport={"width": 1280, "height": 800}, accept_downloads=True)
    found = context.new_page()
    found.problems = []
    found.on("pageerror", lambda error: found.problems.append(str(error)))
    found.goto(address)
    settle(found)
    yield found
    assert found.problems == []
    context.close()


def settle(page):
    """Until nothing is under way."""
    page.wait_for_function("() => document.body.getAttribute('aria-busy') === 'false'")


def shoot(page, name):
    """Screenshots are looked at by people: MUPVSS_SCREENSHOTS says where to put them."""
    folder = os.environ.get("MUPVSS_SCREENSHOTS")
    if folder:
        page.screenshot(path=str(Path(folder) / f"{name}.png"))


def said(page, text):
    page.wait_for_function("t => document.getElementById('message').textContent.includes(t)", arg=text)


def test_a_working_day(page, run, studio, tmp_path):
    _, workspace = studio
    assert page.locator("#pictures li").count() == 6
    page.locator("#pictures button", has_text="block 0").click()
    page.wait_for_function("() => document.getElementById('name').textContent.startsWith('block 0')")
    shoot(page, "open")

    # Maps of every kind can be shown.
    for kind in workspace.kinds:
        page.select_option("#layer", kind)
        settle(page)
    shoot(page, "map")
    page.select_option("#layer", "mask")

    # Another tag.
    with page.expect_response(lambda r: "/tags" in r.url):
        page.locator("#tags input[value=red]").check()
    settle(page)
    assert page.locator("#tag-of-map option").count() == 2
    assert workspace.state(workspace.entry("block 0")).tags == ("blue", "red")

    # The threshold slider redraws the mask: at its lowest everything is object.
    with page.expect_response(lambda r: "threshold=0.01" in r.url):
        page.evaluate(
            "() => { const t = document.getElementById('threshold'); t.value = 1; t.dispatchEvent(new Event('input')); }"
        )
    settle(page)
    shoot(page, "threshold")
    mask = run / "studio" / "masks" / "block 0.png"
    assert not mask.exists(), "not while the slider moves"
    with page.expect_response(lambda r: "/decision" in r.url):
        page.evaluate("() => document.getElementById('threshold').dispatchEvent(new Event('change'))")
    assert (read_label_image(mask) > 0).mean() > 0.9
    before = mask.read_bytes()
    with page.expect_response(lambda r: "/decision" in r.url):
        page.keyboard.press("s")
    assert mask.read_bytes() != before, "drawn to edges, and kept"

    # A stroke of the brush is on disk as soon as it ends.
    page.keyboard.press("2")
    page.evaluate("() => { const s = document.getElementById('size'); s.value = 10; s.dispatchEvent(new Event('input')); }")
    box = page.locator("#canvas").bounding_box()
    with page.expect_response(lambda r: "/decision" in r.url):
        page.mouse.move(box["x"] + box["width"] * 0.25, box["y"] + box["height"] * 0.5)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] * 0.75, box["y"] + box["height"] * 0.5, steps=5)
        page.mouse.up()
    painted = read_label_image(run / "studio" / "masks" / "block 0.png")
    assert (painted[28:32, 22:58] == 2).all()
    shoot(page, "painted")

    # Erase, undo the eraser, accept.
    page.keyboard.press("e")
    with page.expect_response(lambda r: "/decision" in r.url):
        page.mouse.click(box["x"] + box["width"] * 0.5, box["y"] + box["height"] * 0.5)
    assert read_label_image(run / "studio" / "masks" / "block 0.png")[30, 40] == 0
    page.keyboard.press("n")
    with page.expect_response(lambda r: "/undo" in r.url):
        page.keyboard.press("u")
    settle(page)
    assert np.array_equal(read_label_image(run / "studio" / "masks" / "block 0.png"), painted)
    page.keyboard.press("a")
    said(page, "block 0.jpg: accepted")

    # Reject the next one with the keyboard; nothing is lost on reload.
    page.wait_for_function("() => !document.getElementById('name').textContent.startsWith('block 0')")
    page.keyboard.press("r")
    said(page, "rejected")
    page.reload()
    settle(page)
    assert "1 accepted, 1 rejected" in page.locator("#counts").inner_text()
    page.select_option("#filter", "accepted")
    page.locator("#pictures button").first.click()
    page.wait_for_function("() => document.getElementById('name').textContent.startsWith('block 0')")
    shown = page.evaluate("async () => [...new Uint8Array(await (await fetch('/api/pictures/block%200/labels')).arrayBuffer())]")
    assert np.array_equal(np.array(shown, np.uint8).reshape(60, 80), painted)
    shoot(page, "reloaded")

    # Export.
    page.click("#show-export")
    page.click("#do-export")
    page.wait_for_selector("#exported a")
    with page.expect_download() as download:
        page.click("#exported a")
    with zipfile.ZipFile(download.value.path()) as file:
        assert sorted(file.namelist()) == ["coco.json", "masks/block 0.png"]
        with Image.open(io.BytesIO(file.read("masks/block 0.png"))) as mask:
            assert np.array_equal(np.asarray(mask), painted)
    shoot(page, "exported")


def test_pictures_are_added_and_bad_ones_refused(page, tmp_path):
    Image.new("RGB", (50, 40), "blue").save(tmp_path / "fresh.png")
    (tmp_path / "text.jpg").write_text("no picture")
    page.set_input_files("#files", [tmp_path / "text.jpg"])
    said(page, "text.jpg: text.jpg: cannot be read as a picture")
    page.set_input_files("#files", [tmp_path / "fresh.png"])
    page.wait_for_function("() => document.getElementById('name').textContent.startsWith('fresh')")
    assert page.locator("#pictures li").count() == 7


def test_forty_at_a_glance(page, studio):
    _, workspace = studio
    page.click("#show-grid")
    page.wait_for_function("() => document.querySelectorAll('#cells img').length === 6")
    settle(page)
    shoot(page, "grid")
    left = page.locator("#cells button").nth(1)
    name = left.get_attribute("data-name")
    left.click()
    assert page.locator("#cells button").nth(1).get_attribute("aria-pressed") == "false"
    with page.expect_response(lambda r: "/api/accept" in r.url):
        page.click("#accept-grid")
    said(page, "5 accepted")
    assert [entry for entry in workspace.entries if workspace.state(workspace.entry(entry)).status == "open"] == [name]
    page.locator("#cells button").first.dblclick()
    page.wait_for_function("n => document.getElementById('name').textContent.startsWith(n)", arg=name)
    assert page.locator("#grid").is_hidden()


def test_regions_and_the_next_twenty(page, run):
    page.locator("#pictures button", has_text="block 0").click()
    page.wait_for_function("() => document.getElementById('name').textContent.startsWith('block 0')")
    settle(page)
    assert page.locator("#paint-class").input_value() == "1", "the picture's first tag"
    page.keyboard.press("g")
    box = page.locator("#canvas").bounding_box()
    with page.expect_response(lambda r: "/decision" in r.url):
        page.mouse.click(box["x"] + box["width"] * 0.5, box["y"] + box["height"] * 0.5)
    added = read_label_image(run / "studio" / "masks" / "block 0.png")
    assert (added[20:40, 25:55] == 1).mean() > 0.9
    page.keyboard.press("t")
    with page.expect_response(lambda r: "/decision" in r.url):
        page.mouse.click(box["x"] + box["width"] * 0.5, box["y"] + box["height"] * 0.5)
    assert (read_label_image(run / "studio" / "masks" / "block 0.png")[20:40, 25:55] == 0).mean() > 0.9
    shoot(page, "region")
    page.keyboard.press("o")
    assert not page.locator("#outlines").is_checked()
    with page.expect_response(lambda r: "/api/next" in r.url):
        page.select_option("#filter", "next")
    settle(page)
    assert page.locator("#pictures li").count() == 6


def test_training_can_be_watched(page):
    page.click("#show-progress")
    page.wait_for_selector("#progress svg")
    assert "train: step" in page.locator("#progress").inner_text()


def test_every_control_has_a_name(page):
    """What a screen reader would say of each button, slider, list and box."""
    nameless = page.evaluate(
        """() => [...document.querySelectorAll('button, input, select, canvas')].filter((e) => {
            const labels = e.labels ? [...e.labels].map((l) => l.textContent).join('') : '';
            return !(e.getAttribute('aria-label') || labels || e.textContent).trim();
        }).map((e) => e.outerHTML)"""
    )
    assert nameless == []


@pytest.mark.parametrize(("scheme", "width"), [("dark", 1280), ("light", 390), ("dark", 390)])
def test_readable_in_the_dark_and_on_a_phone(browser, studio, scheme, width):
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
    page = context.new_page()
    page.goto(studio[0])
    settle(page)
    assert page.evaluate("() => document.documentElement.scrollWidth <= window.innerWidth")
    box = page.locator("#canvas").bounding_box()
    assert box["width"] > 150
    assert contrast(page, "#name") > 4.5
    shoot(page, f"{scheme}-{width}")
    context.close()


def contrast(page, selector):
    """WCAG's ratio of a text's colour to the page's."""
    colours = page.evaluate(
        "s => [getComputedStyle(document.querySelector(s)).color, getComputedStyle(document.body).backgroundColor]", selector
    )

    def luminance(text):
        parts = [float(part) / 255 for part in text[text.index("(") + 1 : -1].split(",")[:3]]
        linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(c) for c in colours), reverse=True)
    return (high + 0.05) / (low + 0.05)

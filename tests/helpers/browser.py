"""Lays a page out in a real browser, headless Chromium, and measures it."""

import html
import json
import re
import shutil
import subprocess

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")
# Without these flags it asks hosts of its own at every start.
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-quic",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--virtual-time-budget=10000",
)  # fmt: skip
WIDTHS = {"wide": 1280, "narrow": 390}  # a desk and a phone

MEASURE = """
const scrolls = (e) => e && (getComputedStyle(e).overflowX === "auto" || scrolls(e.parentElement));
function measure(frame) {
  const page = frame.contentDocument, width = page.documentElement.clientWidth;
  const all = [...page.body.querySelectorAll("*")];
  const pictures = [...page.images];
  return {
    width: width,
    needs: page.documentElement.scrollWidth,
    outside: all.filter((e) => !scrolls(e) && (e.getBoundingClientRect().right > width + 1
      || e.getBoundingClientRect().left < 0))
      .map((e) => e.tagName + " " + e.textContent.slice(0, 40)),
    pictures: pictures.length,
    broken: pictures.filter((p) => !p.complete || p.naturalWidth === 0).map((p) => p.alt),
    figure_widths: [...new Set(pictures.filter((p) => p.src.startsWith("data:image/svg"))
      .map((p) => p.naturalWidth))],
    smallest: Math.min(...pictures.map((p) => p.getBoundingClientRect().width)),
    text: page.body.innerText,
  };
}
"""


def lay_out(page, folder):
    """Returns what a browser finds of an HTML file, by the names of `WIDTHS`.

    Args:
        page: the file.
        folder: an empty folder for the browser.
    """
    source = html.escape(page.read_text(encoding="utf-8"), quote=True)
    frames = "".join(
        f'<iframe id="{name}" style="width: {width}px; height: 800px; border: 0" '
        f'srcdoc="{source}"></iframe>'
        for name, width in WIDTHS.items()
    )
    names = json.dumps(list(WIDTHS))
    outer = folder / "outer.html"
    outer.write_text(
        f'<!doctype html><meta charset="utf-8"><body>{frames}<pre id="found"></pre>'
        f"<script>{MEASURE}"
        f"window.onload = () => {{ const found = {{}}; for (const name of {names}) "
        "found[name] = measure(document.getElementById(name)); "
        'document.getElementById("found").textContent = JSON.stringify(found); }</script>',
        encoding="utf-8",
    )
    done = subprocess.run(
        [CHROMIUM, *FLAGS, f"--user-data-dir={folder / 'profile'}", "--window-size=1800,900",
         "--dump-dom", outer.as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    found = re.search(r'<pre id="found">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found is not None, done.stderr[-2000:]
    return json.loads(html.unescape(found[1]))


def check_page(found):
    """Asserts what holds for every page: nothing sticks out, every picture shows."""
    for width, page in found.items():
        assert page["needs"] == page["width"], (width, page["outside"])
        assert page["outside"] == [], width
        assert page["broken"] == []
        assert len(page["figure_widths"]) == 1, "figures are of one width"
        assert page["pictures"] > 0

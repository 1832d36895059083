"""The page in a real browser: poisoned, light, dark, narrow, by keyboard, printed."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from browser import CHROMIUM, DRIVER, ENTER, RIGHT, SPACE, TAB, Browser
from paper_runs import paper_run
from PIL import Image
from poisoned import NAMES, poisoned_run

from llmopt.data.shapes import SHAPES
from llmopt.report.page import build, save
from llmopt.search.base import Stage

pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="needs Chromium: apt-get install chromium chromium-driver"
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as found:
        yield found


@pytest.fixture(scope="module")
def poisoned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("poisoned")
    save(build([poisoned_run(folder), poisoned_run(folder, seed=2)]), folder / "page.html")
    return folder / "page.html"


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plain")
    labels = np.arange(1000) % 12
    templates = [
        {"text": f"a {word} {{}}.", "train_accuracy": rank / 40, "train_logprob": -2 + rank / 40}
        for rank, word in enumerate(["red", "big", "small", "old"] * 10)
    ]
    run = paper_run(
        folder,
        classnames=SHAPES,
        labels=labels,
        before=np.where(np.arange(1000) % 2, labels, 0),
        events=[("scored", "restart-1", {"templates": templates})],
        replies=[([["system", "Rules"], ["human", "Better ones?"]], "- a small {}.")] * 2,
        stages=[
            Stage("chat", True, "likelier", 0.5, 0.1, (0.958, 1.0),
                  {"text_encodings": 2_196, "image_encodings": 12, "llm_tokens_in": 5_929}),
            Stage("head", False, "no head: the best of 4 gains nothing on images left out " * 6),
        ],
    )  # fmt: skip
    save(build([run]), folder / "page.html")
    return folder / "page.html"


def test_a_poisoned_page_does_nothing(browser: Browser, poisoned: Path) -> None:
    browser.open(poisoned)
    assert browser.messages() == []
    # The browser's own start page may still be loading.
    asked = [u for u in browser.requests() if not u.startswith(("data:", "chrome"))]
    assert asked == [poisoned.as_uri()]
    assert browser.run("return document.title") == "2 runs compared"
    assert browser.run("return document.querySelectorAll('script').length") == 1
    elements = browser.run(
        "return [...document.querySelectorAll('iframe, object, embed, base, form, b, u, svg svg')]"
        ".length"
    )
    assert elements == 0
    handlers = browser.run(
        "return [...document.querySelectorAll('*')].filter(e => [...e.attributes]"
        ".some(a => a.name.startsWith('on'))).length"
    )
    assert handlers == 0


def test_hidden_characters_are_seen(browser: Browser, poisoned: Path) -> None:
    browser.open(poisoned)
    unseen = browser.run("return [...document.querySelectorAll('.unseen')].map(e => e.textContent)")
    assert {"U+202E", "U+001B"} <= set(unseen)
    text = browser.run("return document.body.innerText")
    assert "\u202e" not in text
    assert NAMES[0] in text


def test_ids_are_unique_and_references_whole(browser: Browser, poisoned: Path) -> None:
    browser.open(poisoned)
    ids = browser.run("return [...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(ids) == len(set(ids))
    broken = browser.run(
        """
        const used = document.body.innerHTML.match(/(?:href="#|url\\(#)([^")]+)/g) || [];
        return used.map(u => u.replace(/.*#/, '')).filter(id => !document.getElementById(id));
        """
    )
    assert broken == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_in_either_scheme(browser: Browser, plain: Path, scheme: str) -> None:
    browser.prefer(scheme)
    browser.open(plain)
    lowest = browser.run(
        """
        const numbers = s => s.match(/[\\d.]+/g).slice(0, 3).map(Number);
        const light = c => numbers(c).map(v => v / 255)
          .map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
          .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
        const ratio = (a, b) => {
          const [x, y] = [light(a), light(b)].sort((p, q) => q - p);
          return (x + .05) / (y + .05);
        };
        const behind = e => {
          for (; e; e = e.parentElement) {
            const c = getComputedStyle(e).backgroundColor;
            if (!/, 0\\)$/.test(c)) return c;
          }
          return 'rgb(255, 255, 255)';
        };
        let lowest = 99;
        for (const e of document.querySelectorAll('body *')) {
          if (![...e.childNodes].some(n => n.nodeType === 3 && n.data.trim())) continue;
          if (!e.getClientRects().length) continue;
          const style = getComputedStyle(e);
          lowest = Math.min(lowest, ratio(e instanceof SVGElement ? style.fill : style.color,
                                          behind(e)));
        }
        return lowest;
        """
    )
    assert lowest >= 4.5
    picture = np.asarray(Image.open(io.BytesIO(browser.screenshot())).convert("L"))
    assert (np.median(picture) > 200) == (scheme == "light")
    browser.prefer("light")


def test_nothing_sticks_out_on_a_phone(browser: Browser, plain: Path, poisoned: Path) -> None:
    browser.resize(390, 844)
    for page in (plain, poisoned):
        browser.open(page)
        browser.run("for (const d of document.querySelectorAll('details')) d.open = true")
        assert browser.run("return document.documentElement.scrollWidth") <= 390
        small = browser.run(
            "return [...document.querySelectorAll('svg text')].filter(e => e.getClientRects()"
            ".length && e.getBoundingClientRect().height < 6).length"
        )
        assert small == 0
    browser.resize(1100)


@pytest.mark.parametrize("width", [390, 600, 1440])
def test_tables_of_a_run_are_as_wide_as_the_page(browser: Browser, plain: Path, width: int) -> None:
    browser.resize(width)
    browser.open(plain)
    cut = browser.run(
        "return ['stages', 'accuracies'].flatMap(name => "
        "[...document.querySelectorAll(`.${name} .scroll, .${name} th, .${name} td`)])"
        ".filter(e => e.scrollWidth > e.clientWidth).map(e => e.textContent)"
    )
    assert cut == []
    assert "no head" in browser.run("return document.querySelector('.stages').innerText")
    browser.resize(1100)


def test_everything_can_be_reached_with_the_keyboard(browser: Browser, plain: Path) -> None:
    browser.open(plain)
    reached: dict[str, str] = {}
    for _ in range(200):
        browser.press(TAB)
        kind, outline = browser.run(
            "const e = document.activeElement; return [e.tagName, getComputedStyle(e).outlineStyle]"
        )
        if kind != "BODY":
            reached[kind] = outline
        elif reached:
            break
    assert {"A", "INPUT", "SUMMARY", "BUTTON", "DIV"} <= set(reached)
    reached.pop("INPUT")  # its label shows the focus
    assert "none" not in reached.values()


def test_folds_and_tabs_obey_keys(browser: Browser, plain: Path) -> None:
    browser.open(plain)
    browser.run("document.querySelector('details > summary').focus()")
    browser.press(ENTER)
    assert browser.run("return document.querySelector('details').open")
    browser.press(SPACE)
    assert not browser.run("return document.querySelector('details').open")
    browser.run("document.querySelector('.tabs input').focus()")
    shown = "return [...document.querySelectorAll('.tabs')[0].querySelectorAll('.panel')]" \
        ".map(p => getComputedStyle(p).display !== 'none')"  # fmt: skip
    first = browser.run(shown)
    browser.press(RIGHT)
    second = browser.run(shown)
    assert first.index(True) == 0
    assert second.index(True) == 1
    assert sum(second) == 1


def test_a_prompt_is_copied_or_selected(browser: Browser, plain: Path) -> None:
    browser.open(plain)
    browser.run("document.querySelector('button.copy').focus()")
    browser.press(ENTER)
    said = browser.run(
        "return new Promise(done => setTimeout(() => "
        "done(document.querySelector('button.copy').textContent), 300))"
    )
    assert said in ("Copied", "Selected")


def test_every_chart_has_words_and_data(browser: Browser, plain: Path) -> None:
    browser.open(plain)
    charts = browser.run(
        "return [...document.querySelectorAll('svg.chart')].map(s => [s.getAttribute('role'),"
        "s.getAttribute('aria-labelledby').split(' ').every(id => "
        "document.getElementById(id).textContent)])"
    )
    assert len(charts) >= 4
    assert all(role == "img" and named for role, named in charts)
    assert browser.run("return document.querySelectorAll('details.data table').length") >= 3


def test_it_prints(browser: Browser, plain: Path, poisoned: Path) -> None:
    for page in (plain, poisoned):
        browser.open(page)
        printed = browser.pdf()
        assert printed.startswith(b"%PDF")
        assert 1 <= len(re.findall(rb"/Type\s*/Page\b", printed)) <= 20

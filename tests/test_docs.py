"""The documentation as a whole: the site, the reference made from code, ``llmopt docs``."""

from __future__ import annotations

import copy
import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from command_line import run
from typer.testing import CliRunner

import llmopt
from llmopt.cli import app
from llmopt.cli.docs import guides
from llmopt.cli.reference import PAGES, glossary, page
from llmopt.errors import BudgetTooSmall, ConfigError
from llmopt.heads import HEADS
from llmopt.runs.config import options
from llmopt.search import OPTIMIZERS
from llmopt.spend.currency import CURRENCIES

CHECKOUT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site as ``make docs`` builds it."""
    folder = tmp_path_factory.mktemp("site")
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(CHECKOUT)}
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", folder],
        cwd=CHECKOUT, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


class Seen(HTMLParser):
    """What a page fetches, its headings, and its pictures without a text in their place."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.levels: list[int] = []
        self.mute: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag in ("script", "img", "iframe", "link"):
            self.fetched.append(given.get("src") or given.get("href") or "")
        if tag == "img" and not given.get("alt"):
            self.mute.append(given.get("src") or "")
        if re.fullmatch("h[1-6]", tag):
            self.levels.append(int(tag[1]))


@pytest.mark.long
def test_every_page_of_the_site_stands_alone(site: Path) -> None:
    """Nothing from elsewhere, one first heading, no level left out, a text for each picture."""
    pages = [path for path in site.rglob("*.html") if "gallery" not in path.parts]
    assert len(pages) > len(PAGES) + len(guides())
    for path in pages:
        seen = Seen(path.read_text(encoding="utf-8"))
        assert not [one for one in seen.fetched if "//" in one and "data:" not in one], path
        assert seen.mute == [], path
        if path.name != "404.html":
            assert seen.levels.count(1) == 1, path
            jumps = zip(seen.levels, seen.levels[1:], strict=False)
            assert all(after <= before + 1 for before, after in jumps), path
    assert sum(path.stat().st_size for path in site.rglob("*") if path.is_file()) < 20 * 2**20
    schema = json.loads((site / "reference" / "config.schema.json").read_text())
    assert schema["properties"].keys() == options().keys()


@pytest.mark.parametrize("name", PAGES)
def test_reference_is_made_from_code(name: str) -> None:
    text = page(name)
    wanted = {
        "commands": [f"## llmopt {command}" for command in app.COMMANDS],
        "optimizers": [f"## {one}" for one in OPTIMIZERS.names()]
        + ["`budget`", "profile released"],
        "heads": [f"## {one}" for one in HEADS.names()],
        "config": [f"`{one.flag}`" for one in options().values()] + ["`temperature`", "`at_once`"],
        "result": ["`best.templates[].text`", "`gain.p_value`", "`before_llm.template`"],
        "journal": ["`created`", "`llm_reply`", "`scored`", "`measured`"],
        "currencies": [f"`{one}`" for one in CURRENCIES],
        "http": ["## POST /scores", "## POST /v1/embeddings", "`images`"],
        "python": ["## run", "### Task.from_images"],
        "names": ["| `folder:PATH` |", "openclip", "`anthropic:MODEL`", "http://HOST:PORT"],
        "words": [f"## {term}" for term in glossary()],
    }[name]
    assert [one for one in wanted if one not in text] == []
    assert ":class:" not in text
    assert ":func:" not in text


def test_names_of_pages_and_words_are_told_apart() -> None:
    words = [n for name, one in glossary().items() for n in (name, *one.get("also", ()))]
    names = [*guides(), *PAGES, *words]
    assert sorted({name for name in names if names.count(name) > 1}) == []
    assert {one["page"] for one in glossary().values() if "page" in one} <= guides().keys()


def test_docs_shows_pages() -> None:
    def said(*words: str) -> str:
        done = CliRunner().invoke(app.app, ["docs", *words], catch_exceptions=False)
        return done.output

    told = said()
    assert all(name in told for name in (*guides(), *PAGES, *glossary()))
    assert said("trust") == (CHECKOUT / "docs" / "trust.md").read_text(encoding="utf-8")
    assert said("Currencies").startswith("# Currencies\n")
    assert json.loads(said("heads", "--json"))["heads"].startswith("# Heads")
    with pytest.raises(ConfigError, match="did you mean 'trust'"):
        said("trusts")


def test_errors_name_pages_that_are_there(tmp_path: Path) -> None:
    code = "\n".join(path.read_text("utf-8") for path in (CHECKOUT / "llmopt").rglob("*.py"))
    named = set(re.findall(r'^\s+docs ?= ?"([\w-]+)"', code, re.MULTILINE))
    assert len(named) > 6
    assert named <= guides().keys()
    ended = run("plan", "--dataset", "folder:nowhere", cwd=tmp_path)
    assert (ended.code, ended.err.splitlines()[1:]) == (2, ["more: llmopt docs your-photos"])
    assert copy.copy(ConfigError("x", docs="trust")).docs == "trust"  # as other processes get it
    with pytest.raises(BudgetTooSmall) as small:
        llmopt.run(max_queries=1, runs=tmp_path, progress=False)
    assert small.value.docs == "budget"

"""Adds to the site what stands outside docs/: the reference, made from code, and measurements."""

from __future__ import annotations

import json
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from llmopt.cli.reference import PAGES, SCHEMAS, page

ROOT = Path(__file__).resolve().parents[1]
MEASURED = {"../benchmarks/results/": "results/", "../benchmarks/gallery/": "gallery/"}
"""What pages link to in the repository, and where it is on the site."""


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Add the sections to the navigation."""
    measured = sorted((ROOT / "benchmarks" / "results").glob("*.md"))
    config.nav += [
        {"Reference": [f"reference/{name}.md" for name in PAGES]},
        {"Measurements": [{_title(path): f"results/{path.name}"} for path in measured]},
    ]
    return config


def _title(path: Path) -> str:
    return path.stem.replace("_", " ").capitalize()


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add pages and files."""
    for name in PAGES:
        files.append(File.generated(config, f"reference/{name}.md", content=page(name)))
    for name, schema in SCHEMAS.items():
        text = json.dumps(schema(), indent=1)
        files.append(File.generated(config, f"reference/{name}", content=text))
    for folder, where in MEASURED.items():
        for path in sorted((ROOT / folder.removeprefix("../")).glob("*.[!j]*")):
            files.append(File.generated(config, where + path.name, abs_src_path=str(path)))
    for path in sorted((ROOT / "docs").glob("*.ipynb")):
        files.append(File.generated(config, f"{path.stem}.md", content=notebook(path)))
    return files


def notebook(path: Path) -> str:
    """A notebook with what its cells printed, as Markdown."""
    parts = []
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        for output in cell.get("outputs", ()):
            data = output.get("data", {"text/plain": output.get("text", "")})
            if "text/html" in data:
                parts.append(f"<div>{''.join(data['text/html'])}</div>")
            else:
                parts.append(f"```text\n{''.join(data['text/plain']).strip()}\n```")
    return "\n\n".join([*parts, f"[This notebook as a file]({path.name})"])


def on_page_markdown(markdown: str, **_: object) -> str:
    """Links into the repository lead to the same on the site."""
    for folder, where in MEASURED.items():
        markdown = markdown.replace(f"]({folder}", f"]({where}")
    return re.sub(r"(?<!as a file)\]\(([\w-]+)\.ipynb\)", r"](\1.md)", markdown)

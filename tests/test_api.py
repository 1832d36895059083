"""The front door: runs of one's own images, with one's own objects, from Python."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as PillowImage
from scripted import Scripted

import llmopt
from llmopt.errors import ConfigError, DatasetError, UserError
from llmopt.runs.compose import ModelChoice
from llmopt.search.soft.bbt import Bbt
from llmopt.search.text.random import Random
from llmopt.spend.events import Finished, Note, Progress, Started, Watch

pytestmark = pytest.mark.usefixtures("shared_cache")

NAMES = ("red", "green", "blue")
CLI = Path(llmopt.__file__).parent / "cli"


def picture(label: int, shade: int) -> np.ndarray[Any, Any]:
    pixels = np.zeros((8, 8, 3), dtype=np.uint8)
    pixels[..., label] = 200 + shade
    return pixels


def pictures(count: int, shade: int = 0) -> tuple[list[Any], list[int]]:
    labels = [number % len(NAMES) for number in range(count)]
    return [picture(label, shade + number) for number, label in enumerate(labels)], labels


@pytest.fixture
def task() -> llmopt.Task:
    return llmopt.Task.from_images(*pictures(6), NAMES, test=pictures(30, shade=10), name="colours")


def colour_box(seen: list[int] | None = None) -> llmopt.BlackBox:
    """Knows colours, and likes prompts that are short."""

    def scores(images: list[PillowImage.Image], prompts: list[str]) -> Any:
        if seen is not None:
            seen.append(len(images))
        means = np.stack([np.asarray(image).mean(axis=(0, 1)) for image in images])
        columns = [next(k for k, name in enumerate(NAMES) if name in p) for p in prompts]
        return means[:, columns] / [len(prompt) for prompt in prompts]

    return llmopt.FunctionBox("colours", scores)


def test_a_search_over_arrays_with_a_box_of_ones_own(tmp_path: Path, task: llmopt.Task) -> None:
    heard: list[Any] = []
    run = llmopt.run(
        task=task,
        model=colour_box(),
        optimizer=Random(evaluations=8),
        runs=tmp_path,
        callbacks=[heard.append],
        progress=False,
    )
    assert run.status == "complete"
    assert run.test_accuracy == 1.0
    assert run.gain is not None
    assert run.ledger["text_encodings"]
    assert run.best == run.templates[0].text
    assert isinstance(heard[0], Started)
    assert any(isinstance(event, Progress) for event in heard)
    assert heard[-1] == Finished(run.result)
    assert run.classifier().predict([picture(2, 5)]).tolist() == ["blue"]
    assert run.best in run.export("txt")
    assert run.report().read_text().startswith("<!")
    assert str(run.folder) in repr(run)
    assert "<table>" in run._repr_html_()
    assert (tmp_path / run.folder.name / "config.toml").is_file()


def test_templates_as_a_table(tmp_path: Path, task: llmopt.Task) -> None:
    pytest.importorskip("pandas", reason="pandas is not installed")
    run = llmopt.run(task=task, model=colour_box(), optimizer="zeroshot", runs=tmp_path)
    assert list(run.to_frame()["text"]) == [one.text for one in run.templates]


def test_a_chat_model_of_ones_own(tmp_path: Path, task: llmopt.Task) -> None:
    chat = Scripted(script=["- a {}.\n- one {}."] * 20)
    settings = {"probes": 0, "restarts": 1, "iterations": 2, "pool": 2, "polish": False}
    heard: list[Any] = []
    options: dict[str, Any] = {"runs": tmp_path, "callbacks": [heard.append]}
    blind = llmopt.FunctionBox("blind", lambda images, texts: np.zeros((len(images), len(texts))))
    run = llmopt.run(task=task, model=blind, llm=chat, settings=settings, **options)
    assert run.result["optimizer"]["llm"] == "python:Scripted"
    assert run.ledger["llm_calls"] == 2
    # What may cost something is said before it does.
    said = heard[: next(i for i, event in enumerate(heard) if isinstance(event, Progress))]
    notes = [event.text for event in said if isinstance(event, Note)]
    assert (
        "language model python:Scripted (asked for): at most 2 calls and an unknown price; "
        "no cap on money" in notes
    )


def test_what_has_no_name_is_asked_for_again(tmp_path: Path, task: llmopt.Task) -> None:
    chat = Scripted(script=["- a {}."] * 9)
    options = {
        "settings": {"probes": 0, "restarts": 1, "iterations": 1, "pool": 2},
        "runs": tmp_path,
    }
    run = llmopt.run(task=task, model=colour_box(), llm=chat, **options)
    first = run.result
    (run.folder / "result.json").unlink()
    with pytest.raises(ConfigError, match=r"task= .*model= .*llm= "):
        llmopt.resume(run.folder)
    with pytest.raises(ConfigError, match=r"again: llm= "):
        llmopt.resume(run.folder, task=task, model=colour_box())
    again = llmopt.resume(run.folder, task=task, model=colour_box(), llm=Scripted(script=[]))
    for part in ("baseline", "best", "gain", "ledger"):
        assert again.result[part] == first[part]


def test_an_optimizer_with_a_name_needs_no_object(tmp_path: Path) -> None:
    options = {"dataset": "shapes-small", "runs": tmp_path, "progress": False}
    made = llmopt.run(optimizer=Random(evaluations=6), **options)
    named = llmopt.run(optimizer="random", settings={"evaluations": 6}, **options)
    assert made.result["best"] == named.result["best"]
    (made.folder / "result.json").unlink()
    assert llmopt.resume(made.folder).result["best"] == named.result["best"]


def test_fewer_shots_of_a_task(tmp_path: Path) -> None:
    task = llmopt.Task.from_images(*pictures(12), NAMES)
    options = {"task": task, "model": colour_box(), "optimizer": "zeroshot", "runs": tmp_path}
    run = llmopt.run(shots=1, **options)
    assert run.result["task"]["train_images"] == 3
    assert run.result["task"]["shots"] == 1
    assert run.test_accuracy is None  # no test images were given
    assert run.gain is None
    assert llmopt.run(**options).result["task"]["train_images"] == 12


def test_plan_spends_nothing_and_caps_hold(tmp_path: Path, task: llmopt.Task) -> None:
    seen: list[int] = []
    box = colour_box(seen)
    options: dict[str, Any] = {"task": task, "model": box, "optimizer": Random(evaluations=8)}
    plan = llmopt.plan(**options, caps=llmopt.Caps(queries=9))
    assert not seen
    assert {row.name: row.cap for row in plan.rows}["queries"] == 9
    run = llmopt.run(**options, caps=llmopt.Caps(queries=9), runs=tmp_path)
    assert run.result["stop_reason"] == "budget: queries"
    assert run.ledger["text_encodings"] == 9


def test_evaluate_takes_other_images(tmp_path: Path, task: llmopt.Task) -> None:
    run = llmopt.run(task=task, model=colour_box(), optimizer="zeroshot", runs=tmp_path)
    other = llmopt.Task.from_images(*pictures(3), NAMES, test=pictures(9, shade=3), name="other")
    found = llmopt.evaluate(run, task=other, model=colour_box())
    assert found["test_images"] == 9
    assert found["best_accuracy"] == 1.0
    with pytest.raises(ConfigError, match="again: task="):
        llmopt.evaluate(run, model=colour_box())
    with pytest.raises(ConfigError, match="test="):
        llmopt.evaluate(run, task=llmopt.Task.from_images(*pictures(3), NAMES), model=colour_box())


def test_compare_is_a_table(tmp_path: Path) -> None:
    found = llmopt.compare(
        ["zeroshot", "random,evaluations=6"], seeds=[1, 2], runs=tmp_path, progress=False
    )
    assert {row.arm for row in found.rows} == {"zeroshot", "random,evaluations=6"}
    assert not any(one.error for one in found.done)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"optimizer": "chatt"}, ConfigError, "did you mean 'chat'"),
        ({"shot": 1}, ConfigError, "did you mean 'shots'"),
        ({"model": 3}, ConfigError, "model= takes a name or a BlackBox, not int"),
        ({"optimizer": Bbt}, ConfigError, "optimizer= takes a name or a Optimizer"),
        ({"dataset": "nowhere"}, DatasetError, "nowhere"),
        ({"shots": 0}, UserError, "1 or more"),
    ],
)
def test_mistakes_are_named(
    options: dict[str, Any], error: type[Exception], message: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        llmopt.run(runs=tmp_path, **options)
    assert not list(tmp_path.iterdir())


def test_a_task_and_a_dataset_exclude_each_other(task: llmopt.Task) -> None:
    with pytest.raises(ConfigError, match="not both"):
        llmopt.plan(task=task, dataset="shapes-small")


def test_a_watch_is_a_callback_too(tmp_path: Path, task: llmopt.Task) -> None:
    stages: list[str] = []

    class Ear(Watch):
        def stage(self, text: str) -> None:
            stages.append(text)

    llmopt.run(
        task=task, model=colour_box(), optimizer="zeroshot", runs=tmp_path, callbacks=[Ear()]
    )
    assert stages == ["measuring on the test images"]


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{name.name}" for name in node.names}
    return found


def test_the_command_line_goes_through_the_front_door() -> None:
    """``run``, ``resume``, ``plan`` and ``compare`` call the api and nothing below it."""
    for name in ("search", "compare"):
        used = imports(CLI / f"{name}.py")
        assert "llmopt.api" in used
        rooms = ("runs.engine", "runs.compose", "search", "heads", "vision", "language", "spend")
        assert not [one for one in used for room in rooms if one.startswith(f"llmopt.{room}")]


def test_a_key_that_is_missing_is_told_before_anything_takes_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object) -> None:
        raise AssertionError("no model is loaded for a run that cannot be")

    monkeypatch.setattr(ModelChoice, "open", refuse)
    options: dict[str, Any] = {"llm": "openai:gpt-5-mini", "runs": tmp_path / "runs"}
    found = llmopt.plan(**options)
    assert found.notes[-1].startswith("warning: 'llmopt run' would be refused: OPENAI_API_KEY")
    with pytest.raises(ConfigError, match="OPENAI_API_KEY is not set"):
        llmopt.run(**options, progress=False)
    assert not (tmp_path / "runs").exists()
    monkeypatch.setenv("OPENAI_API_KEY", "x")
    assert not any("would be refused" in note for note in llmopt.plan(**options).notes)

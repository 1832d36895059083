"""A run from config to result, with a black box that counts for itself."""

from __future__ import annotations

import json
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import write_folder
from reach import reachable
from running import resume, start
from safetensors.numpy import load_file
from worlds import SMALL, config, read, settled

from llmopt.data.tasks import open_test
from llmopt.errors import (
    AccessError,
    BudgetTooSmall,
    ConfigError,
    DatasetError,
    RunFolderError,
    UserError,
)
from llmopt.metrics import Predicted
from llmopt.predictor import single
from llmopt.runs import result as run_result
from llmopt.runs.compose import ModelChoice, compose
from llmopt.runs.folder import create, locked
from llmopt.runs.load import load_predictor, read_found
from llmopt.runs.measure import Evaluation
from llmopt.runs.plan import make_plan
from llmopt.search.base import Outcome, Search
from llmopt.search.text.chat import Chat
from llmopt.search.text.random import Random
from llmopt.search.text.zeroshot import ZeroShot
from llmopt.spend.currency import CURRENCIES
from llmopt.spend.events import Progress, Watch
from llmopt.spend.journal import read_journal
from llmopt.task import TestSet
from llmopt.template import Template
from llmopt.testing.world import NAMES, FakeBox
from llmopt.vision.base import Access, BoxInfo

K = len(NAMES)


class Ears(Watch):
    """Remembers what it is told."""

    def __init__(self, on_progress: Callable[[int], None] = lambda number: None) -> None:
        self.lines: list[str] = []
        self.steps: list[Progress] = []
        self._on_progress = on_progress

    def stage(self, text: str) -> None:
        self.lines.append(text)

    def note(self, text: str) -> None:
        self.lines.append(text)

    def warn(self, text: str) -> None:
        self.lines.append(f"warning: {text}")

    def progress(self, progress: Progress) -> None:
        self.steps.append(progress)
        self._on_progress(len(self.steps))

    @property
    def warnings(self) -> list[str]:
        return [line for line in self.lines if line.startswith("warning")]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_folder(tmp_path / "data")
    return tmp_path


@pytest.fixture
def box(monkeypatch: pytest.MonkeyPatch) -> FakeBox:
    """The box every run of the test opens."""
    one = FakeBox()
    monkeypatch.setattr(ModelChoice, "open", lambda self, watch: one)
    return one


def journal(folder: Path) -> list[dict[str, Any]]:
    return list(read_journal(folder / "journal.jsonl"))


def run(wanted: Any, watch: Watch | None = None) -> tuple[dict[str, Any], Path]:
    result = start(wanted, watch)
    return result, Path(result["run"])


# --------------------------------------------------------------------------------- a whole run


def test_a_run_leaves_config_journal_result_and_predictor(root: Path, box: FakeBox) -> None:
    result, folder = run(config(root))
    assert {p.name for p in folder.iterdir()} - {".lock"} == {
        "config.toml",
        "journal.jsonl",
        "result.json",
        "prompts.json",
        "predictor.safetensors",
        "test_predictions.safetensors",
    }
    assert read(folder) == json.loads(json.dumps(result)) == result
    assert result["status"] == "complete"
    assert result["stop_reason"] == "iterations"
    usual = {name for name, one in CURRENCIES.items() if not one.rare}
    assert set(result["ledger"]) == set(result["evaluation"]) == usual
    assert result["task"] | {"split_sha256": "", "split": ""} == {
        "dataset": f"folder:{root / 'data'}",
        "classes": K,
        "shots": 2,
        "seed": 1,
        "train_images": 2 * K,
        "val_images": 2 * K,
        "test_images": 8 * K,
        "split_sha256": "",
        "split": "",
    }
    assert result["model"]["access"] == "features"
    assert result["optimizer"]["settings"]["restarts"] == SMALL["restarts"]
    assert result["optimizer"]["llm"] == "builtin"


def test_accuracies_are_those_of_the_saved_predictions(root: Path, box: FakeBox) -> None:
    result, folder = run(config(root, settings=SMALL | {"proposals": 8}))
    saved = load_file(folder / "test_predictions.safetensors")
    best = (saved["best"] == saved["labels"]).mean()
    baseline = (saved["baseline"] == saved["labels"]).mean()
    assert result["best"]["test_accuracy"] == best
    assert result["baseline"]["test_accuracy"] == baseline
    assert result["gain"]["test_accuracy"] == pytest.approx(best - baseline)
    low, high = result["best"]["test_accuracy_ci95"]
    assert low <= best <= high
    assert best > 0.9 > 0.75 > baseline  # the planted word was found
    (template,) = result["best"]["templates"]
    assert template["weight"] == 1.0
    assert set(template["text"].replace(".", "").split()) & {"small", "tiny", "little"}


def test_prompts_are_the_finalists_best_first(root: Path, box: FakeBox) -> None:
    result, folder = run(config(root))
    prompts = read(folder, "prompts.json")["templates"]
    assert prompts[0]["text"] == result["best"]["templates"][0]["text"]
    assert "a photo of a {}." in [p["text"] for p in prompts]
    assert sum(p["weight"] for p in prompts) == 1.0


@pytest.mark.parametrize("access", [Access.LABELS, Access.SCORES, Access.FEATURES])
@pytest.mark.parametrize("optimizer", ["chat", "random", "zeroshot", "handcrafted"])
def test_the_ledger_says_what_the_box_says(
    root: Path, monkeypatch: pytest.MonkeyPatch, access: Access, optimizer: str
) -> None:
    one = FakeBox(access)
    monkeypatch.setattr(ModelChoice, "open", lambda self, watch: one)
    settings = {"random": {"evaluations": 10}, "chat": SMALL}.get(optimizer, {})
    result, _ = run(config(root, optimizer=optimizer, settings=settings))
    spent: Counter[str] = Counter()
    for ledger in (result["ledger"], result["evaluation"]):
        spent.update({k: v for k, v in ledger.items() if v is not None})
    for currency in ("image_encodings", "text_encodings", "black_box_calls"):
        assert spent[currency] == one.asked[currency], currency
    if access < Access.FEATURES:
        assert spent["pairs_scored"] == one.asked["pairs_scored"]
    else:
        assert spent["image_encodings"] == len(one.images) == 2 * 2 * K + 8 * K
        assert result["ledger"]["image_encodings"] == 2 * 2 * K
    assert result["ledger"]["labelled_images"] == 2 * 2 * K


def test_test_images_are_opened_once_after_the_search(
    root: Path, box: FakeBox, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[Any] = []
    seen: list[Search] = []
    original = ZeroShot.run

    def spy(self: ZeroShot, search: Search) -> Outcome:
        seen.append(search)
        assert not [name for name in box.images if name.startswith("test/")]
        found = reachable(search)
        assert not any(isinstance(thing, TestSet) for thing in found)
        names = {t.name for t in found if hasattr(type(t), "load") and hasattr(t, "key")}
        assert names
        assert not [name for name in names if name.startswith("test/")]
        return original(self, search)

    monkeypatch.setattr(ZeroShot, "run", spy)
    monkeypatch.setattr(
        "llmopt.runs.compose.open_test",
        lambda data, **how: held.append(open_test(data, **how)) or held[-1],
    )
    _, folder = run(config(root, optimizer="zeroshot"))
    assert len(held) == len(seen) == 1
    events = [r for r in journal(folder) if r["kind"] == "test_opened"]
    assert len(events) == 1
    assert events[0] == journal(folder)[-1]
    assert events[0]["data"]["images"] == 8 * K


def test_the_same_command_twice(root: Path, box: FakeBox) -> None:
    first, one = run(config(root))
    second, two = run(config(root))
    assert one != two
    assert settled(first) == settled(second)
    assert read(one, "prompts.json") == read(two, "prompts.json")
    third, _ = run(config(root, seed=2))
    assert settled(third) != settled(first)


@pytest.mark.parametrize("parallel", [2, 4])
def test_side_by_side_is_the_same_run(root: Path, box: FakeBox, parallel: int) -> None:
    settings = SMALL | {"restarts": 4}
    alone, _ = run(config(root, settings=settings))
    together, _ = run(config(root, settings=settings | {"parallel": parallel}))
    for result in (alone, together):
        del result["optimizer"]["settings"]["parallel"]
        del result["ledger"]["black_box_calls"]
    assert settled(together) == settled(alone)


def test_a_task_at_chance_is_called_so(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ModelChoice, "open", lambda self, watch: FakeBox(flat=True))
    result, _ = run(config(root, optimizer="zeroshot"))
    assert result["at_chance"]
    assert result["best"]["test_accuracy"] == 0.2


def test_baselines_are_measured_and_change_nothing_else(root: Path, box: FakeBox) -> None:
    result, folder = run(config(root))
    assert {n: one["templates"] for n, one in result["baselines"].items()} == {
        "subset": 7,
        "openai": 80,
    }
    saved = load_file(folder / "test_predictions.safetensors")
    hits = {name: saved[name] == saved["labels"] for name in ("openai", "best", "baseline")}
    told = result["baselines"]["openai"]
    assert told["test_accuracy"] == hits["openai"].mean()
    assert told["gain"]["test_accuracy"] == pytest.approx(
        hits["best"].mean() - hits["openai"].mean()
    )
    for side, name in (("start", "baseline"), ("best", "best")):
        assert result["metrics"][side]["top1"] == hits[name].mean()
    assert len(result["per_class"]) == K
    alone, _ = run(config(root, baselines="none"))
    assert alone["baselines"] == {}
    extra = result["evaluation"]["text_encodings"] - alone["evaluation"]["text_encodings"]
    assert 10 * K <= extra <= 87 * K  # the box cannot tell some apart
    for same in ("best", "gain", "ledger", "metrics"):
        assert alone[same] == result[same]
    assert set(run(config(root, baselines="subset"))[0]["baselines"]) == {"subset"}


@pytest.mark.parametrize("access", [Access.LABELS, Access.SCORES])
def test_a_box_that_may_be_paid_measures_baselines_only_if_asked(
    root: Path, monkeypatch: pytest.MonkeyPatch, access: Access
) -> None:
    box = FakeBox(access)
    monkeypatch.setattr(ModelChoice, "open", lambda self, watch: box)
    result, _ = run(config(root))
    assert result["baselines"] == {}
    known = access > Access.LABELS  # labels alone are no probabilities
    assert (result["metrics"]["best"]["ece"] is not None) == known
    assert result["metrics"]["best"]["top5"] is None  # of five classes
    asked = config(root, baselines="subset")
    most = make_plan(compose(asked), box).test
    spent = run(asked)[0]["evaluation"]
    for name in ("text_encodings", "pairs_scored", "black_box_calls", "image_encodings"):
        assert spent[name] <= most[name]
    assert most["pairs_scored"] > make_plan(compose(config(root)), box).test["pairs_scored"]


def test_templates_too_long_for_the_box_are_no_baseline(
    root: Path, box: FakeBox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(box, "token_excess", lambda prompt: len(prompt.split()) - 6)
    result, _ = run(config(root, optimizer="zeroshot"))
    assert 0 < result["baselines"]["openai"]["templates"] < 80


def test_evaluation_statistics() -> None:
    labels = np.repeat(np.arange(4), 25)
    right, wrong = Predicted(labels), Predicted((labels + 1) % 4)
    half = Predicted(np.where(np.arange(100) % 2, labels, wrong.top))
    found = Evaluation(labels, baseline=half, best=right, classes=4)
    assert (found.baseline_accuracy, found.best_accuracy) == (0.5, 1.0)
    assert found.gain.difference == 0.5
    assert found.gain.p_value < 1e-6
    assert not found.at_chance
    assert Evaluation(labels, right, Predicted(np.zeros(100, dtype=np.int64)), 4).at_chance
    assert not Evaluation(labels, right, wrong, 4).at_chance  # but misled


# ------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize("queries", [0, 1, K - 1])
def test_a_budget_for_less_than_the_start(root: Path, box: FakeBox, queries: int) -> None:
    with pytest.raises(BudgetTooSmall, match="does not even pay for scoring the start") as refused:
        run(config(root, max_queries=queries))
    assert refused.value.exit_code == 3
    assert box.asked["text_encodings"] == 0


@pytest.mark.parametrize("optimizer", ["chat", "random", "zeroshot", "handcrafted"])
def test_a_budget_for_the_start_alone(root: Path, box: FakeBox, optimizer: str) -> None:
    settings = {"templates": "subset"} if optimizer == "handcrafted" else {}
    result, _ = run(config(root, optimizer=optimizer, settings=settings, max_queries=K))
    assert result["status"] == "complete"
    assert result["ledger"]["text_encodings"] == K
    assert result["best"]["templates"][0]["text"] == "a photo of a {}."
    assert result["gain"]["test_accuracy"] == 0.0
    if optimizer != "zeroshot":
        assert result["stop_reason"] == "budget: queries"


def test_no_time_at_all(root: Path, box: FakeBox) -> None:
    with pytest.raises(BudgetTooSmall, match="0 seconds"):
        run(config(root, max_seconds=0.0))


@pytest.mark.parametrize("calls", [0, 2])
def test_calls_to_the_model_are_capped(root: Path, box: FakeBox, calls: int) -> None:
    result, _ = run(config(root, max_llm_calls=calls))
    assert result["ledger"]["llm_calls"] == calls
    assert result["stop_reason"] == "budget: llm_calls"
    assert result["status"] == "complete"


def test_more_access_than_the_box_offers(
    root: Path, box: FakeBox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Random, "access", Access.SOFT)
    with pytest.raises(AccessError) as refused:
        run(config(root, optimizer="random"))
    message = str(refused.value)
    assert "optimizer 'random' needs access level 'soft', but fake offers 'features'" in message
    assert "you can use: chat, " in message
    assert "random" not in message.partition("you can use")[2]
    assert not (root / "runs").exists()
    assert not box.asked


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"optimizer": "chit"}, ConfigError),
        ({"settings": {"restart": 1}}, ConfigError),
        ({"llm": "opnai:gpt"}, ConfigError),
        ({"template": "{} {}"}, UserError),
        ({"init_from": "nowhere"}, RunFolderError),
    ],
)
def test_mistakes_leave_no_folder_and_spend_nothing(
    root: Path, box: FakeBox, options: dict[str, Any], kind: type[UserError]
) -> None:
    with pytest.raises(kind):
        run(config(root, **options))
    assert not (root / "runs").exists()
    assert not box.asked


def test_a_data_set_that_is_not_there(tmp_path: Path, box: FakeBox) -> None:
    with pytest.raises(DatasetError):
        run(config(tmp_path))


def test_a_damaged_image_is_named_and_the_run_can_go_on(root: Path, box: FakeBox) -> None:
    image = next((root / "data" / "test").glob("*/*.png"))
    whole = image.read_bytes()
    inside = bytearray(whole)  # both ends are as they should be
    inside[40:-20] = bytes(len(whole) - 60)
    image.write_bytes(inside)
    with pytest.raises(DatasetError, match=image.name):
        run(config(root))
    (folder,) = (root / "runs").iterdir()
    image.write_bytes(whole)
    again = resume(folder)
    fresh, _ = run(config(root))
    assert settled(again) == settled(fresh)


def test_a_search_from_another_runs_template(root: Path, box: FakeBox) -> None:
    first, folder = run(config(root))
    second, _ = run(config(root, optimizer="zeroshot", init_from=str(folder)))
    assert second["baseline"]["template"] == first["best"]["templates"][0]["text"]
    assert second["best"]["test_accuracy"] == first["best"]["test_accuracy"]


# ---------------------------------------------------------------------------------- going on


def interrupt_at(step: int) -> Callable[[int], None]:
    def maybe(number: int) -> None:
        if number == step:
            signal.raise_signal(signal.SIGINT)

    return maybe


@pytest.mark.parametrize("step", range(1, 5))
def test_ctrl_c_ends_with_the_best_so_far_and_resume_completes(
    root: Path, box: FakeBox, step: int
) -> None:
    whole, _ = run(config(root))
    handler = signal.getsignal(signal.SIGINT)
    ears = Ears(interrupt_at(step))
    cut, folder = run(config(root), ears)
    assert signal.getsignal(signal.SIGINT) is handler
    assert (cut["status"], cut["stop_reason"]) == ("interrupted", "interrupted")
    assert cut["best"]["templates"]
    assert cut["best"]["test_accuracy"] is cut["gain"]["p_value"] is cut["at_chance"] is None
    assert cut["task"]["test_images"] == 0
    assert not [r for r in journal(folder) if r["kind"] == "test_opened"]
    assert any("interrupted: finishing with the best so far" in line for line in ears.lines)
    assert not (folder / "test_predictions.safetensors").exists()

    ears = Ears()
    again = resume(folder, ears)
    assert again["status"] == "complete"
    assert settled(again) == settled(whole)
    assert again["run"] == str(folder)
    assert ears.warnings == []


def test_ctrl_c_before_the_search_is_one(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = FakeBox()
    one.before = lambda: signal.raise_signal(signal.SIGINT)
    monkeypatch.setattr(ModelChoice, "open", lambda self, watch: one)
    with pytest.raises(KeyboardInterrupt):
        run(config(root))
    one.before = lambda: None
    (folder,) = (root / "runs").iterdir()
    fresh, _ = run(config(root))
    assert settled(resume(folder)) == settled(fresh)


def test_a_second_ctrl_c_stops_at_once(root: Path, box: FakeBox) -> None:
    def twice(number: int) -> None:
        for _ in range(2):
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run(config(root), Ears(twice))
    (folder,) = (root / "runs").iterdir()
    assert not (folder / "result.json").exists()
    assert resume(folder)["status"] == "complete"


@pytest.mark.parametrize("optimizer", ["random", "handcrafted"])
def test_an_interrupt_counts_wherever_it_comes(
    root: Path, monkeypatch: pytest.MonkeyPatch, optimizer: str
) -> None:
    one = FakeBox()
    monkeypatch.setattr(ModelChoice, "open", lambda self, watch: one)
    settings = {"random": {"evaluations": 80}, "handcrafted": {"templates": "generic"}}[optimizer]
    wanted = config(root, optimizer=optimizer, settings=settings)
    whole, _ = run(wanted)
    one.asked.clear()
    # The images lie in the cache by now, and the first call scores the start.
    one.before = lambda: (
        signal.raise_signal(signal.SIGINT) if one.asked["black_box_calls"] == 1 else None
    )
    cut, folder = run(wanted)
    assert cut["status"] == "interrupted"
    assert cut["best"]["test_accuracy"] is None
    one.before = lambda: None
    assert settled(resume(folder)) == settled(whole)


def test_an_interrupt_in_the_last_stage_of_a_search_is_one(
    root: Path, box: FakeBox, monkeypatch: pytest.MonkeyPatch
) -> None:
    def last_words(self: Chat, search: Search) -> Outcome:
        signal.raise_signal(signal.SIGINT)
        return Outcome(single(search.task.start, search.task.classnames), "iterations")

    with monkeypatch.context() as patch:
        patch.setattr(Chat, "run", last_words)
        cut, folder = run(config(root))
    assert cut["status"] == "interrupted"
    whole, _ = run(config(root))
    assert settled(resume(folder)) == settled(whole)


def test_a_complete_run_is_not_run_again(root: Path, box: FakeBox) -> None:
    result, folder = run(config(root))
    asked, lines = box.asked.copy(), journal(folder)
    ears = Ears()
    assert resume(folder, ears) == result
    assert box.asked == asked
    assert journal(folder) == lines
    assert any("is complete; nothing to do" in line for line in ears.lines)


@pytest.mark.parametrize("name", ["prompts.json", "predictor.safetensors"])
def test_a_file_that_was_lost_is_told_and_written_again(
    root: Path, box: FakeBox, name: str
) -> None:
    result, folder = run(config(root))
    before = read_found(folder), load_predictor(folder)
    (folder / name).unlink()
    ears = Ears()
    assert resume(folder, ears) == result
    assert any(f"{name} is missing there; to have it written again" in line for line in ears.lines)
    (folder / "result.json").unlink()
    assert settled(resume(folder)) == settled(result)
    assert (read_found(folder), load_predictor(folder)) == before


def test_a_result_that_was_lost_is_made_again(root: Path, box: FakeBox) -> None:
    result, folder = run(config(root))
    lines = journal(folder)
    for content in (None, "{"):
        (folder / "result.json").unlink()
        if content:
            (folder / "result.json").write_text(content)
            with pytest.raises(RunFolderError, match="is damaged"):
                resume(folder)
            (folder / "result.json").unlink()
        assert settled(resume(folder)) == settled(result)
    assert journal(folder) == lines


@pytest.mark.parametrize("part", [0.2, 0.5, 0.8, 0.99])
def test_a_journal_cut_anywhere_is_gone_on_with(root: Path, box: FakeBox, part: float) -> None:
    result, folder = run(config(root))
    path = folder / "journal.jsonl"
    raw = path.read_bytes()
    path.write_bytes(raw[: int(part * len(raw))])
    (folder / "result.json").unlink()
    ears = Ears()
    again = resume(folder, ears)
    assert settled(again) == settled(result)
    assert again["ledger"]["llm_calls_lost"] <= 1
    assert ears.warnings == []
    kinds = Counter(r["kind"] for r in journal(folder))
    assert kinds["llm_reply"] == result["ledger"]["llm_calls"]


def test_a_damaged_journal_is_refused(root: Path, box: FakeBox) -> None:
    _, folder = run(config(root))
    path = folder / "journal.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    lines[2] = b'{"kind": "scored"}\n'
    path.write_bytes(b"".join(lines))
    (folder / "result.json").unlink()
    with pytest.raises(RunFolderError, match=r"journal\.jsonl is damaged at byte"):
        resume(folder)


def test_a_journal_without_its_beginning_is_refused(root: Path, box: FakeBox) -> None:
    _, folder = run(config(root))
    path = folder / "journal.jsonl"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[1:]))
    (folder / "result.json").unlink()
    with pytest.raises(RunFolderError, match="does not begin with the start"):
        resume(folder)
    for nothing in (b"", b'{"at": 0.0, "ki'):
        path.write_bytes(nothing)
        with pytest.raises(RunFolderError, match="would be paid for again; restore it"):
            resume(folder)
    path.unlink()
    with pytest.raises(RunFolderError, match=r"missing or empty.*llmopt run --config"):
        resume(folder)
    assert not path.exists()


def test_a_folder_in_use_is_left_alone(root: Path, box: FakeBox) -> None:
    folder = create(compose(config(root)).config)
    with locked(folder), pytest.raises(RunFolderError, match="in use by another process"):
        resume(folder)
    assert [record["kind"] for record in journal(folder)] == ["created"]
    assert not box.asked


def test_a_journal_that_cannot_be_written(root: Path, box: FakeBox) -> None:
    folder = create(compose(config(root)).config)
    path = folder / "journal.jsonl"
    path.rename(folder / "aside")
    path.mkdir()
    with pytest.raises(RunFolderError, match=r"journal\.jsonl is missing or empty"):
        resume(folder)
    path.rmdir()
    (folder / "aside").rename(path)
    assert resume(folder)["status"] == "complete"


@pytest.mark.parametrize("change", ["version", "weights", "split"])
def test_what_changed_since_is_said(
    root: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    class Changed(FakeBox):
        @property
        def info(self) -> BoxInfo:
            return BoxInfo("fake", "", Access.FEATURES, "1" * 64, logit_scale=10.0)

    boxes: list[FakeBox] = [FakeBox()]
    monkeypatch.setattr(ModelChoice, "open", lambda self, watch: boxes[0])
    _, folder = run(config(root), Ears(interrupt_at(3)))
    match change:
        case "version":
            before = run_result.versions()
            monkeypatch.setattr(run_result, "versions", lambda: before | {"numpy": "9.9"})
        case "weights":
            boxes[0] = Changed()
        case "split":
            (root / "data" / "test" / "ring" / "extra.png").write_bytes(
                next((root / "data" / "test" / "ring").glob("*.png")).read_bytes()
            )
    ears = Ears()
    assert resume(folder, ears)["status"] == "complete"
    (warning,) = [w for w in ears.warnings if "have changed" in w]
    expected = {"version": "numpy", "weights": "weights", "split": "data split"}[change]
    assert expected in warning


def test_what_is_resumed_is_what_was_asked_not_what_is_default_now(
    root: Path, box: FakeBox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMOPT_LLM", "builtin")
    wanted = config(root, llm="")
    cut, folder = run(wanted, Ears(interrupt_at(2)))
    monkeypatch.setenv("LLMOPT_LLM", "openai:gpt-4o")
    monkeypatch.setenv("LLMOPT_DATA", "/nowhere")
    again = resume(folder)
    assert again["status"] == "complete"
    assert again["optimizer"]["llm"] == "builtin"
    assert cut["task"]["split_sha256"] == again["task"]["split_sha256"]


def test_a_start_template_of_ones_own(root: Path, box: FakeBox) -> None:
    result, _ = run(config(root, optimizer="zeroshot", template="a  tiny\t{}."))
    assert result["baseline"]["template"] == "a tiny {}."
    assert Template("a tiny {}.").fill("ring") in box.prompts

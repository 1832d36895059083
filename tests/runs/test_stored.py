"""Results, prompts, predictors and predictions that were damaged or edited are called so."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fuzz import fuzz
from hypothesis import strategies as st
from paper_runs import paper_run
from safetensors.numpy import save_file
from worlds import read

from llmopt.comparison.records import read_record
from llmopt.errors import LlmoptError, RunFolderError
from llmopt.runs.folder import read_result
from llmopt.runs.load import load_predictor, read_found, summarize
from llmopt.spend.files import read_arrays, write_arrays


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    labels = [0, 1, 2] * 10
    return paper_run(tmp_path_factory.mktemp("runs"), labels=labels, after=labels)


@pytest.fixture
def whole(folder: Path) -> Any:
    """Puts every file back."""
    kept = {path: path.read_bytes() for path in folder.iterdir()}
    yield
    for path, raw in kept.items():
        path.write_bytes(raw)


def put(data: dict[str, Any], place: str, value: Any) -> None:
    *tables, name = place.split(".")
    for table in tables:
        data = data[int(table)] if isinstance(data, list) else data[table]
    data[name] = value


@pytest.mark.usefixtures("whole")
@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("schema", 0),
        ("schema", "1"),
        ("status", "done"),
        ("status", None),
        ("run", 7),
        ("task.shots", "one"),
        ("task.shots", -1),
        ("task.classes", 1e300),
        ("model.name", ["x"]),
        ("best.templates", {}),
        ("best.templates.0.weight", 2),
        ("best.templates.0.text", 5),
        ("best.templates.0.more", 5),
        ("best.test_accuracy", 1.5),
        ("best.test_accuracy", "0.5"),
        ("best.test_accuracy", float("nan")),
        ("best.test_accuracy_ci95", [0.1]),
        ("baseline", None),
        ("gain.p_value", -1),
        ("ledger", []),
        ("ledger.llm_calls", -1),
        ("ledger.llm_usd", float("inf")),
        ("ledger.llm_calls", True),
        ("optimizer.summary", "none"),
        ("optimizer.summary", {"gain_nats": "much"}),
        ("seconds.total", "long"),
        ("versions", {"llmopt": 1}),
    ],
)
def test_results_of_a_wrong_shape(folder: Path, place: str, value: Any) -> None:
    result = read(folder)
    put(result, place, value)
    (folder / "result.json").write_text(json.dumps(result))
    said = rf"result\.json is damaged \({place.partition('.')[0]}.*: .*\); delete it and run 'llmo"
    with pytest.raises(RunFolderError, match=said):
        read_result(folder)
    assert summarize(folder).status == "damaged"


@pytest.mark.usefixtures("whole")
def test_a_later_version_is_not_damage(folder: Path) -> None:
    (folder / "result.json").write_text(json.dumps(read(folder) | {"schema": 99}))
    with pytest.raises(RunFolderError, match=r"newer llmopt \(its schema is 99, not 2\); update"):
        read_result(folder)


@pytest.mark.usefixtures("whole")
def test_what_a_later_version_adds_is_let_pass(folder: Path) -> None:
    result = read(folder)
    result |= {"more": 1}
    result["ledger"]["patience"] = 3
    (folder / "result.json").write_text(json.dumps(result))
    assert read_result(folder) == result


@pytest.mark.usefixtures("whole")
@pytest.mark.parametrize(
    "text", ["", "{", "null", "[" * 100_000, "\x00", '{"templates": 3}', "9" * 9999]
)
@pytest.mark.parametrize(
    ("name", "load"), [("result.json", read_result), ("prompts.json", read_found)]
)
def test_no_json_of_ours(folder: Path, name: str, load: Callable[..., Any], text: str) -> None:
    (folder / name).write_text(text)
    with pytest.raises(RunFolderError, match=rf"{name}.*damaged.*llmopt resume"):
        load(folder)


def _flip(path: Path, at: int, bit: int) -> None:
    raw = bytearray(path.read_bytes())
    raw[at % len(raw)] ^= 1 << bit
    path.write_bytes(raw)


@pytest.mark.usefixtures("whole")
@pytest.mark.parametrize("at", [-1, -9, 40, 90, 3])
@pytest.mark.parametrize(
    ("name", "load"),
    [("predictor.safetensors", load_predictor), ("test_predictions.safetensors", read_record)],
)
def test_a_flipped_bit(folder: Path, name: str, load: Callable[..., Any], at: int) -> None:
    _flip(folder / name, at, 2)
    with pytest.raises(RunFolderError, match=rf"{name} is .*damaged \(.*llmopt resume"):
        load(folder)


@pytest.mark.usefixtures("whole")
@pytest.mark.parametrize(
    "arrays",
    [
        {"best": np.zeros(30, dtype=np.float32)},
        {"best": np.zeros((30, 1), dtype=np.int64)},
        {"best": np.zeros(29, dtype=np.int64)},
        {"best.confidence": np.zeros(30, dtype=np.int64)},
        {"openai": np.zeros(29, dtype=np.int64)},
        {"openai": np.full(30, 10**12)},
        {"labels": np.full(30, -1)},
        {"best.confidence": np.full(30, np.nan, dtype=np.float32)},
    ],
)
def test_predictions_of_a_wrong_shape(folder: Path, arrays: dict[str, Any]) -> None:
    path = folder / "test_predictions.safetensors"
    write_arrays(path, {**read_arrays(path).arrays, **arrays}, {})
    with pytest.raises(RunFolderError, match=r"test_predictions\.safetensors is damaged"):
        read_record(folder)


CONFIG = {"kind": "text", "templates": ["a {}."], "classnames": ["cat", "dog"]}


@pytest.mark.usefixtures("whole")
@pytest.mark.parametrize(
    ("weights", "config"),
    [
        ([np.nan], CONFIG),
        ([np.inf], CONFIG),
        ([0.5, 0.5], CONFIG),
        ([1.0], {**CONFIG, "templates": "a {}."}),
        ([1.0], {**CONFIG, "templates": [3]}),
        ([1.0], {**CONFIG, "templates": ["no place"]}),
        ([1.0], {**CONFIG, "classnames": [["cat"]]}),
        ([1.0], {**CONFIG, "classnames": None}),
        ([1.0], {"kind": "soft", "names": ["cat"]}),
        ([1.0], {"kind": "headed", "base": CONFIG}),
        ([1.0], {"kind": ["text"]}),
        ([1.0], []),
        ([1.0], "text"),
    ],
)
def test_predictors_of_a_wrong_shape(folder: Path, weights: list[float], config: Any) -> None:
    path = folder / "predictor.safetensors"
    write_arrays(path, {"weights": np.array(weights)}, {"predictor": json.dumps(config)})
    with pytest.raises(RunFolderError, match=r"predictor\.safetensors (is missing or dam|cannot)"):
        load_predictor(folder)


@pytest.mark.usefixtures("whole")
def test_a_predictor_of_an_earlier_version_is_read_with_a_note(folder: Path) -> None:
    path = folder / "predictor.safetensors"
    save_file({"weights": np.ones(1)}, path, {"predictor": json.dumps(CONFIG)})
    notes: list[str] = []
    assert load_predictor(folder, notes.append).describe() == "a {}."
    assert [note.partition(" has ")[2] for note in notes] == [
        "no checksum: damage to it would not be seen"
    ]


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)
_KEPT: dict[str, Any] = {}


@fuzz(where=st.lists(st.integers(0, 30), min_size=1, max_size=3), value=_JSON)
def test_no_result_is_more_than_damaged(where: list[int], value: Any) -> None:
    folder = _kept_run()
    result = copy.deepcopy(_KEPT["result"])
    inner: Any = result
    for step in where:
        if isinstance(inner, dict) and inner:
            name = list(inner)[step % len(inner)]
            outer, inner = inner, inner[name]
    outer[name] = value
    (folder / "result.json").write_text(json.dumps(result))
    try:
        read_result(folder)
    except RunFolderError:
        return
    from llmopt.cli.show import print_result

    print_result(result)


@fuzz(weights=st.lists(st.floats(), max_size=3), config=st.just(CONFIG) | _JSON, key=_JSON)
def test_no_predictor_is_more_than_damaged(weights: list[float], config: Any, key: Any) -> None:
    folder = _kept_run()
    (folder / "result.json").write_text(json.dumps(_KEPT["result"]))
    if isinstance(config, dict):
        config = {**config, "templates": key} if len(weights) % 2 else config
    path = folder / "predictor.safetensors"
    write_arrays(path, {"weights": np.array(weights)}, {"predictor": json.dumps(config)})
    try:
        load_predictor(folder)
    except LlmoptError:
        return
    assert weights


def _kept_run() -> Path:
    """One run for all examples."""
    if not _KEPT:
        import tempfile

        _KEPT["root"] = tempfile.TemporaryDirectory()
        labels = [0, 1, 2] * 10
        _KEPT["run"] = paper_run(Path(_KEPT["root"].name), labels=labels, after=labels)
        _KEPT["result"] = read(_KEPT["run"])
    folder: Path = _KEPT["run"]
    return folder

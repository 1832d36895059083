from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from fakes import write_folder
from running import start
from safetensors.numpy import load_file, save_file
from worlds import config, read

from llmopt.errors import ConfigError, RunFolderError
from llmopt.predictor import TextPredictor, predictor_from_state, single
from llmopt.runs.folder import create, read_run_config
from llmopt.runs.load import load_predictor, summarize
from llmopt.spend.ledger import Ledger
from llmopt.template import Template
from llmopt.testing.world import NAMES, FakeBox, make_task
from llmopt.vision.metered import MeteredBox


@pytest.fixture
def run(tmp_path: Path) -> Path:
    write_folder(tmp_path / "data")
    wanted = config(tmp_path, optimizer="handcrafted", settings={"templates": "subset"})
    return Path(start(wanted, box=FakeBox())["run"])


def test_a_finished_run_in_one_line(run: Path) -> None:
    summary, result = summarize(run), read(run)
    assert (summary.folder, summary.status) == (run, "complete")
    assert (summary.shots, summary.seed, summary.optimizer) == (2, 1, "handcrafted")
    assert summary.dataset == result["task"]["dataset"]
    assert summary.start == result["baseline"]["test_accuracy"]
    assert summary.best == result["best"]["test_accuracy"]
    assert summary.ledger == result["ledger"]


def test_unfinished_interrupted_and_damaged_runs(run: Path, tmp_path: Path) -> None:
    result = read(run)
    (run / "result.json").write_text(json.dumps(result | {"status": "interrupted"}))
    assert summarize(run).status == "interrupted"
    for damage in ("{", "{}", json.dumps({**result, "baseline": None})):
        (run / "result.json").write_text(damage)
        summary = summarize(run)
        assert (summary.status, summary.optimizer) == ("damaged", "handcrafted")
    (run / "result.json").unlink()
    assert summarize(run).status == "unfinished"
    for damage in ("shots = ", "shots = 0\n", 'surprise = "!"\n'):
        (run / "config.toml").write_text(damage)
        assert summarize(run).status == "damaged"
    assert summarize(tmp_path / "nowhere").status == "damaged"


def test_the_predictor_predicts_as_it_did(run: Path) -> None:
    predictor = load_predictor(run)
    assert isinstance(predictor, TextPredictor)
    assert predictor.classnames == tuple(sorted(NAMES))
    assert len(predictor.templates) == 8
    predicted = load_file(run / "test_predictions.safetensors")
    from llmopt.data.registry import open_dataset

    test = open_dataset(read_run_config(run).dataset, run).split("test")
    scores = predictor.scores(MeteredBox(FakeBox(), Ledger()), test)
    assert scores.argmax(axis=1).tolist() == predicted["best"].tolist()
    assert test.labels.tolist() == predicted["labels"].tolist()


def test_a_predictor_survives_its_state() -> None:
    one = TextPredictor(
        (Template('a "quoted" 100% {}.'), Template("ein größeres {}")), NAMES, (0.25, 0.75)
    )
    tensors, rest = one.state()
    again = predictor_from_state(tensors, json.loads(json.dumps(rest)))
    assert again == one
    assert again.describe() == 'a "quoted" 100% {}. (+1 more)'
    task = make_task()
    box = MeteredBox(FakeBox(), Ledger())
    np.testing.assert_array_equal(again.scores(box, task.train), one.scores(box, task.train))
    assert single(Template("a {}."), NAMES).describe() == "a {}."


def test_predictors_that_make_no_sense() -> None:
    with pytest.raises(ValueError, match="at least one"):
        TextPredictor((), NAMES, ())
    with pytest.raises(ValueError, match="of one length"):
        TextPredictor((Template("{}"),), NAMES, (0.5, 0.5))
    with pytest.raises(ConfigError, match="unknown kind of predictor 'crystal'"):
        predictor_from_state({}, {"kind": "crystal"})


@pytest.mark.parametrize("damage", ["missing", "torn", "foreign", "not json", "other kind"])
def test_damaged_predictors(run: Path, damage: str) -> None:
    path = run / "predictor.safetensors"
    raw = path.read_bytes()
    weights = {"weights": np.ones(1)}
    match damage:
        case "missing":
            path.unlink()
        case "torn":
            path.write_bytes(raw[:-3])
        case "foreign":
            save_file(weights, path)
        case "not json":
            save_file(weights, path, {"predictor": "{"})
        case "other kind":
            save_file(weights, path, {"predictor": '{"kind": "crystal"}'})
    said = "cannot be opened: unknown kind" if damage == "other kind" else "is missing or damaged"
    with pytest.raises(RunFolderError, match=rf"predictor\.safetensors {said}"):
        load_predictor(run)


def test_an_unfinished_run_has_no_predictor(tmp_path: Path) -> None:
    folder = create(config(tmp_path))
    with pytest.raises(RunFolderError, match="is not finished"):
        load_predictor(folder)

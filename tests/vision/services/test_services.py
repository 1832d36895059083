"""Services that give features or scores: whole runs against imitations of their references."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest
from fakes import write_folder
from fuzz import fuzz
from hypothesis import strategies as st
from seeing_server import SeeingServer
from service_server import ServiceServer

from llmopt.comparison.execute import execute
from llmopt.comparison.grid import make_grid, parse_arm
from llmopt.comparison.records import read_records
from llmopt.errors import BudgetTooSmall, CapBroken, ConfigError, MalformedResponse, ServiceError
from llmopt.runs import engine
from llmopt.runs import folder as run_folder
from llmopt.runs.compose import Given, compose
from llmopt.runs.config import RunConfig
from llmopt.runs.folder import read_run_config
from llmopt.runs.plan import make_plan
from llmopt.runs.trust import refuse_untrusted
from llmopt.spend.currency import Spend
from llmopt.spend.events import Watch
from llmopt.spend.journal import read_journal
from llmopt.spend.ledger import Caps, Ledger
from llmopt.sweep.local import LocalEngine
from llmopt.template import Template
from llmopt.testing.world import NAMES, FakeBox, make_task, pictures
from llmopt.vision.base import Access
from llmopt.vision.boxes import open_black_box
from llmopt.vision.metered import MeteredBox
from llmopt.vision.services import web
from llmopt.vision.services.embeddings import DIALECTS
from llmopt.vision.services.web import services
from llmopt.vision.temperature import fitted_scale

ADDRESSES = {
    "cohere": "cohere:embed-v4.0",
    "voyage": "voyage:voyage-multimodal-3.5",
    "gemini": "gemini:gemini-embedding-2",
    "vertex": "vertex:project/us-central1",
    "roboflow": "roboflow:ViT-B-16",
    "hf": "hf:openai/clip",
    **{f"openai-embeddings/{dialect}": "openai-embeddings:clip" for dialect in DIALECTS},
}
IMAGES = pictures("train", 2)
PLAIN = Template("a photo of a {}.")


def settings(server: ServiceServer, **more: Any) -> dict[str, Any]:
    return {"base_url": server.url, "first_pause": 0, **more}


def price(name: str) -> str:
    """Of tokens, or of characters and pictures, or of seconds."""
    return {"roboflow": "0.012", "hf": "0.00012"}.get(name, "1,2")


def config(server: ServiceServer, name: str, tmp_path: Path, **options: Any) -> RunConfig:
    usual = {"dataset": "python:fake", "optimizer": "random", "settings": {"evaluations": 8}}
    box = {"blackbox_settings": settings(server, price=price(name), batch=2)}
    return RunConfig(
        shots=3,
        blackbox=ADDRESSES[name],
        runs=str(tmp_path / "runs"),
        **{**usual, **box, **options},
    )


@pytest.mark.parametrize("name", list(ADDRESSES))
def test_a_run_is_planned_killed_and_resumed_and_nothing_is_paid_for_twice(
    name: str, tmp_path: Path
) -> None:
    given = Given(task=make_task(3))
    fails = 34 if name.startswith("openai") else 22  # in the search
    with ServiceServer(name) as server:
        wanted = config(server, name, tmp_path)
        plan = make_plan(compose(wanted, given))
        assert server.requests == 0
        most = {row.name: row.most or 0 for row in plan.rows}
        server.spoil = lambda number, right: 400 if number >= fails else right
        with pytest.raises(ServiceError, match="HTTP 400"):
            engine.start(compose(wanted, given))
        (folder,) = (tmp_path / "runs").iterdir()
        server.spoil = None
        result = engine.resume(folder, compose(read_run_config(folder), given))
        probed = {key for key, times in server.asked.items() if times > 1}
        assert name.startswith("openai") or not probed
        assert all(kind == "image" for kind, _ in probed)  # a probe sends one picture twice
        kept = read_run_config(folder).blackbox_settings
        assert (kept["logit_scale"] == "none") == (name == "hf")
        # Who takes addresses as they are passes over what says that they are pictures.
        dialect = name.partition("/")[2].replace("litellm", "infinity")
        assert kept["dialect"] == dialect
        requests = server.requests
        again = engine.start(compose(read_run_config(folder), given))
        assert server.requests == requests
        # Its dialect is known by now: nothing is spent on finding that out.
        records = read_journal(folder / run_folder.JOURNAL)
        began = next(one["data"] for one in records if one["kind"] == "started")
        asked = Spend.read(again["ledger"]) + began.get("spent", {})
        assert ("spent" in began) == name.startswith("openai")
        for row, amount in result["ledger"].items():
            assert asked[row] == pytest.approx(amount), row
    for row in ("image_encodings", "text_encodings", "black_box_calls", "box_usd"):
        spent = result["ledger"].get(row, 0)
        assert spent <= most.get(row, 0), row
        assert spent > 0, row
    # The world behind the service, asked directly, gives the same search.
    level = Access.SCORES if name == "hf" else Access.FEATURES
    inside = FakeBox(level, scale=10.0 if name == "hf" else float(kept["logit_scale"]))
    here = dataclasses.replace(wanted, blackbox="", blackbox_settings={}, model="python:fake")
    direct = engine.start(compose(here, Given(task=make_task(3), box=inside)))
    assert direct["best"]["templates"][0]["text"] == result["best"]["templates"][0]["text"]


@pytest.mark.parametrize("name", ["cohere", "openai-embeddings/vllm", "hf"])
def test_what_is_sent_to_find_a_service_out_is_counted_and_sent_once(
    name: str, tmp_path: Path
) -> None:
    given = Given(task=make_task(3))
    with ServiceServer(name) as server:
        chosen = settings(server, price=price(name), cache=False)
        wanted = config(server, name, tmp_path, blackbox_settings=chosen)
        most = {row.name: row.most or 0 for row in make_plan(compose(wanted, given)).rows}
        right = engine.start(compose(wanted, given))
        ledger, test = right["ledger"], right["evaluation"]
        assert server.requests == ledger["black_box_calls"] + test["black_box_calls"]
        assert ledger["image_encodings"] <= most["image_encodings"]
        assert ledger["black_box_calls"] <= most["black_box_calls"]
        assert ledger.get("box_usd", 0) <= most.get("box_usd", 0)
        # A run that was killed knows what was spent before it began.
        requests = server.requests
        fails = requests + (34 if name.startswith("openai") else 20)  # in the search
        server.spoil = lambda number, told: 400 if number == fails else told
        with pytest.raises(ServiceError, match="HTTP 400"):
            engine.start(compose(wanted, given))
        server.spoil = None
        (folder,) = set((tmp_path / "runs").iterdir()) - {Path(right["run"])}
        again = engine.resume(folder, compose(read_run_config(folder), given))
        assert again["ledger"] == ledger
        assert server.requests == 2 * requests + 1


def test_caps_that_do_not_pay_for_finding_a_service_out_are_told(tmp_path: Path) -> None:
    name = "openai-embeddings/vllm"
    with ServiceServer(name) as server:
        wanted = config(server, name, tmp_path, max_box_calls=2)
        with pytest.raises(BudgetTooSmall, match="takes pictures; raise the cap"):
            engine.start(compose(wanted, Given(task=make_task(3))))
        assert server.requests == 2


def test_cells_of_a_comparison_use_what_is_found_out_and_are_known_again(tmp_path: Path) -> None:
    data, name = write_folder(tmp_path / "data"), "openai-embeddings/infinity"
    with ServiceServer(name) as server:
        base = config(server, name, tmp_path, dataset=f"folder:{data}", llm="builtin", max_usd=1)
        cells = make_grid(base, [parse_arm("random,evaluations=4")], [base.dataset], [1], [1, 2])
        done, _ = execute(cells, Path(base.runs), LocalEngine(), Watch())
        kept = [read_run_config(one.folder).blackbox_settings for one in done]
        assert {one["dialect"] for one in kept} == {"infinity"}
        alone = [engine.start(compose(one.cell.config)) for one in done]
        for one, right in zip(done, alone, strict=True):
            found = run_folder.read_result(one.folder)
            assert all(found[part] == right[part] for part in ("baseline", "best"))
            shutil.rmtree(right["run"])
        (done[0].folder / run_folder.RESULT).unlink()  # as if killed
        requests = server.requests
        again, _ = execute(cells, Path(base.runs), LocalEngine(), Watch())
        assert [one.reused for one in again] == [False, True]
        assert [one.folder for one in again] == [one.folder for one in done]
        assert server.requests == requests
    named, _ = read_records([one.folder for one in done])
    assert {one.arm for one in named} == {"random evaluations=4"}  # whatever each seed found


@pytest.mark.parametrize("name", [name for name in ADDRESSES if name != "hf"])
def test_features_are_normalised_and_in_order(name: str) -> None:
    with ServiceServer(name) as server:
        dialect = name.partition("/")[2]
        box: Any = open_black_box(ADDRESSES[name], settings(server, dialect=dialect))
        inside = FakeBox(Access.FEATURES)
        prompts = PLAIN.fill_all(NAMES) * 30
        found = box.text_features(prompts), box.image_features(IMAGES.images)
        for rows, right in zip(
            found,
            (inside.text_features(prompts), inside.image_features(IMAGES.images)),
            strict=True,
        ):
            np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
            np.testing.assert_allclose(rows, right, atol=1e-5)
        assert max(server.sizes) <= max(box.images_per_call, box.prompts_per_call)
        assert not server.refused


@pytest.mark.parametrize("name", [name for name in ADDRESSES if name != "hf"])
def test_texts_are_sent_as_they_were_written(name: str) -> None:
    with ServiceServer(name) as server:
        ledger, dialect = Ledger(), name.partition("/")[2]
        opened = open_black_box(ADDRESSES[name], settings(server, dialect=dialect))
        box, task = MeteredBox(opened, ledger), make_task(3)
        for text in ("A Photo of a {}.", "a photo of a {}."):  # two prompts, to such a service
            box.score_templates(task.train, [Template(text)], ["Ring", "BMW X5"])
        assert ledger["text_encodings"] == 4
        sent = {text for kind, text in server.asked if kind == "text"}
        assert sent == {
            f"{a} of a {b}." for a in ("A Photo", "a photo") for b in ("Ring", "BMW X5")
        }


@pytest.mark.parametrize(
    "odd",
    [
        b"",
        b"<html>busy</html>",
        b"[" * 100_000,
        {},
        [],
        {"data": []},
        {"data": [{"index": 0, "embedding": [1, "x"]}]},
        {"data": [{"index": 3, "embedding": [1, 2]}]},
        {"data": [{"index": 0, "embedding": [0, 0]}]},
        {"data": [{"index": 0, "embedding": [10**400, 1]}]},
        {"data": [{"index": 0, "embedding": [1e300, 1e300]}]},
        {"data": [{"index": 0, "embedding": [[1], [2]]}]},
        {"data": {"index": 0, "embedding": [1, 2]}},
        {"data": [{"index": 0, "embedding": [1e999, 1]}]},
        {"data": [{"index": 0, "embedding": [1] * 5000}]},
        {"data": [{"index": 0, "embedding": [True, False]}]},
        {"data": [{"index": n, "embedding": [1, 2]} for n in range(2)]},
    ],
    ids=repr,
)
def test_odd_answers_are_told_and_never_used(odd: Any) -> None:
    with ServiceServer("openai-embeddings/infinity", lambda number, right: odd) as server:
        box = open_black_box("openai-embeddings:x", settings(server, dialect="infinity"))
        with pytest.raises(MalformedResponse, match="openai-embeddings:x@http"):
            box.text_features(["a cat."])


WORDS = ("data", "index", "embedding", "embeddings", "float", "values", "predictions", "meta",
         "textEmbedding", "imageEmbedding", "label", "score", "usage", "total_tokens", "cat", "dog",
         "billed_units", "input_tokens", "usageMetadata", "promptTokenCount", "error")  # fmt: skip


@fuzz(
    kind=st.sampled_from(sorted(set(ADDRESSES.values()))),
    told=st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.just(10**400)
        | st.floats()
        | st.sampled_from(WORDS),
        lambda one: (
            st.lists(one, max_size=3) | st.dictionaries(st.sampled_from(WORDS), one, max_size=4)
        ),
        max_leaves=12,
    ),
)
def test_any_answer_is_features_or_a_fault_of_the_service(kind: str, told: Any) -> None:
    box: Any = open_black_box(kind, {"base_url": "http://127.0.0.1:9", "dialect": ""})
    stream = httpx.ByteStream(json.dumps(told).encode())
    answer = httpx.MockTransport(lambda request: httpx.Response(200, stream=stream))
    vars(box)["_client"] = httpx.Client(transport=answer)
    ask = box.scores if box.info.access == Access.SCORES else box.text_features
    images = [IMAGES.images[:1]] if box.info.access == Access.SCORES else []
    with contextlib.suppress(ServiceError):
        assert np.isfinite(ask(*images, ["a cat.", "a dog."])).all()
        assert all(0 <= due < 1e12 for due in (box.took() or {}).values())


def test_a_server_that_sees_no_pictures_is_found_out() -> None:
    with ServiceServer("openai-embeddings/text only") as server:
        box = open_black_box("openai-embeddings:x", settings(server))
        with pytest.raises(ConfigError, match="no features of pictures in any dialect known"):
            box.decided(MeteredBox(box, Ledger()).probe)


def test_odd_scores_are_no_scores() -> None:
    for odd in (
        [{"label": "ring", "score": 0.5}],
        [{"label": name, "score": 1.5} for name in ("cat", "dog")],
        [{"label": name, "score": "high"} for name in ("cat", "dog")],
        [{"label": name, "score": 10**400} for name in ("cat", "dog")],
        [{"label": ["cat"], "score": 1}],
        {"error": "loading"},
    ):
        with ServiceServer("hf", lambda number, right, odd=odd: odd) as server:
            box = open_black_box("hf:x", settings(server))
            with pytest.raises(MalformedResponse):
                box.scores(IMAGES.images[:1], ["a cat.", "a dog."])


def test_keys_come_from_the_environment_and_stay_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="COHERE_API_KEY is not set"):
        open_black_box("cohere:embed-v4.0").ready()
    monkeypatch.setenv("MY_KEY", "a-very-secret-key")
    with ServiceServer("cohere", key="another") as server:
        chosen = settings(server, key_env="MY_KEY")
        box = open_black_box("cohere:embed-v4.0", chosen)
        with pytest.raises(ServiceError, match="key is missing, wrong") as refused:
            box.text_features(["a cat."])
        assert "very-secret" not in f"{refused.value!r} {refused.value.__cause__!r} {box!r}"
        server.key = "a-very-secret-key"
        assert box.text_features(["a cat."]).shape[0] == 1
        wanted = RunConfig(blackbox="cohere:embed-v4.0", blackbox_settings=chosen, llm="builtin")
        with pytest.raises(ConfigError, match="MY_KEY holds sent to http"):
            refuse_untrusted(wanted, tmp_path, ())
    own = RunConfig(
        blackbox="cohere:x", blackbox_settings={"key_env": "COHERE_API_KEY"}, llm="builtin"
    )
    refuse_untrusted(own, tmp_path, ())


def test_what_is_refused() -> None:
    for address, given, says in (
        ("vertex:project", {}, "is not vertex:PROJECT/LOCATION"),
        ("openai-embeddings:x", {}, "base_url"),
        ("openai-embeddings:x", {"base_url": "http://x", "dialect": "klingon"}, "must be one of"),
        ("cohere:x", {"base_url": "ftp://x"}, "must begin with http"),
        ("cohere:x", {"key_env": "sk-123"}, "is no such name"),
        ("cohere:x", {"side": 1}, "side=1"),
    ):
        with pytest.raises(ConfigError, match=says):
            open_black_box(address, given)


def test_texts_beyond_a_services_limit_are_not_sent() -> None:
    with ServiceServer("vertex") as server:
        box = open_black_box("vertex:p/l", settings(server))
        assert box.token_excess("word " * 40) == 8
        with pytest.raises(Exception, match="too long"):
            box.check(Template("word " * 40 + "{}"), NAMES)


def test_the_table_is_complete() -> None:
    for name, service in services().items():
        assert service.source, name
        assert service.read >= "2026-11-01"
        assert (service.text_usd is None) == (service.image_usd is None)
        if service.image_usd is not None:
            assert service.image_tokens or service.pixels_per_token


@pytest.mark.parametrize("scale", [3.0, 30.0, 300.0])
def test_the_temperature_is_that_of_the_shots(scale: float) -> None:
    rng = np.random.default_rng(0)
    cosines = rng.normal(0, 0.02 * 100 / scale, (400, 8)).astype(np.float32)
    odds = np.exp(scale * cosines)
    labels = np.array([rng.choice(8, p=row / row.sum()) for row in odds])
    assert scale / 1.5 < fitted_scale(cosines, labels) < 1.5 * scale
    assert fitted_scale(cosines[:0], labels[:0]) == pytest.approx(100, rel=0.03)


def test_faults_that_pass_are_tried_again_and_paid_for_as_they_are() -> None:
    def spoil(number: int, right: Any) -> Any:
        return {2: 429, 4: 503, 6: b"<html>"}.get(number, right)

    with ServiceServer("voyage", spoil) as server:
        chosen = settings(server, price="1,2", batch=4, at_once=1)
        box = open_black_box("voyage:voyage-multimodal-3.5", chosen)
        ledger = Ledger()
        scores = MeteredBox(box, ledger).score_templates(IMAGES, [PLAIN], NAMES)
        again = MeteredBox(box, two := Ledger()).score_templates(IMAGES, [PLAIN], NAMES)
        assert server.requests == ledger["black_box_calls"] == 8
    np.testing.assert_array_equal(scores, again)
    assert ledger.snapshot() == two.snapshot()
    assert ledger["box_usd"] > (7 * len(NAMES) + 2 * 50 * len(IMAGES)) / 1e6


def test_money_is_what_the_service_counts() -> None:
    with ServiceServer("voyage") as server:
        box = open_black_box("voyage:voyage-multimodal-3.5", settings(server, price="1,2"))
        ledger = Ledger()
        MeteredBox(box, ledger).score_templates(IMAGES, [PLAIN], NAMES)
        texts, images = 7 * len(NAMES), 50 * len(IMAGES)
        assert ledger["box_tokens_in"] == texts + images
        assert ledger["box_usd"] == pytest.approx((texts + 2 * images) / 1e6)


@pytest.fixture
def ten_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each answer comes after ten seconds, as the box's clock has it."""
    clock = itertools.count(0, 10)
    monkeypatch.setattr(web, "time", SimpleNamespace(monotonic=lambda: float(next(clock))))


def charged(name: str, times: dict[str, str]) -> float:
    """Seconds that each call is charged at, by answers that tell these times."""
    with ServiceServer(name) as server:
        server.times = times
        chosen = settings(server, price=2, at_once=1)  # in a file or in Python it is a number
        box = open_black_box(ADDRESSES[name], chosen)
        ledger = Ledger()
        MeteredBox(box, ledger).score_templates(IMAGES, [PLAIN], NAMES)
    assert "box_tokens_in" not in ledger.snapshot()
    return ledger["box_usd"] / server.requests / 2


@pytest.mark.parametrize(
    ("name", "times", "seconds"),
    [
        ("roboflow", {"x-processing-time": "0.25"}, 0.25),
        ("roboflow", {"x-processing-time": "0.0081"}, 0.1),
        ("roboflow", {"x-processing-time": "0.01", "x-remote-processing-time": "0.4"}, 0.5),
        ("hf", {"x-compute-type": "gpu", "x-compute-time": "0.056"}, 0.056),
    ],
)
@pytest.mark.usefixtures("ten_seconds")
def test_time_is_charged_as_the_service_tells_it(
    name: str, times: dict[str, str], seconds: float
) -> None:
    assert charged(name, times) == pytest.approx(seconds)


@pytest.mark.parametrize("told", [None, "soon", "-1", "nan", "inf", "11", ""])
@pytest.mark.usefixtures("ten_seconds")
def test_time_that_is_not_told_or_cannot_be_is_what_was_waited_for(told: str | None) -> None:
    assert charged("hf", {} if told is None else {"x-compute-time": told}) == pytest.approx(10)


@pytest.mark.usefixtures("ten_seconds")
def test_a_call_that_takes_longer_than_was_put_aside_is_the_last_where_money_has_a_cap() -> None:
    told: list[str] = []
    with ServiceServer("hf") as server:
        server.times = {"x-compute-time": "6"}
        box = open_black_box(ADDRESSES["hf"], settings(server, price="0.001", at_once=1))
        box.tell = told.append
        ledger = Ledger(Caps(llm_usd=5.0))
        with pytest.raises(CapBroken, match=r"took 0\.006 USD where 0\.005 were put aside"):
            MeteredBox(box, ledger).score_templates(IMAGES, [PLAIN], NAMES)
        assert server.requests == 1
        assert ledger["box_usd"] == pytest.approx(0.006)  # what was taken is booked
        MeteredBox(box, Ledger()).score_templates(IMAGES, [PLAIN], NAMES)
    (line,) = told
    assert "took 6 seconds" in line
    assert "billed_seconds=N" in line


@pytest.mark.usefixtures("ten_seconds")
def test_a_run_whose_first_calls_take_too_long_says_so(tmp_path: Path) -> None:
    given = Given(task=make_task(3))
    with ServiceServer("roboflow") as server:
        chosen = settings(server, price="0.012", at_once=1)
        server.times = {"x-processing-time": "7"}
        wanted = config(server, "roboflow", tmp_path, blackbox_settings=chosen, max_usd=1)
        with pytest.raises(CapBroken, match=r"0\.084 USD where 0\.06 were put aside"):
            engine.start(compose(wanted, given))
        assert server.requests == 1
        # What it takes to be believed again is a call that keeps to what is put aside.
        more = dataclasses.replace(wanted, blackbox_settings=chosen | {"billed_seconds": 8})
        assert engine.start(compose(more, given))["status"] == "complete"


@pytest.mark.usefixtures("ten_seconds")
def test_time_of_calls_that_fail_is_booked() -> None:
    odd = {1: 500, 2: b"<html>"}
    with ServiceServer("hf", lambda number, right: odd.get(number, right)) as server:
        server.times = {"x-compute-time": "0.5"}
        box = open_black_box(ADDRESSES["hf"], settings(server, price="1", at_once=1))
        ledger = Ledger(Caps(llm_usd=1e3))
        MeteredBox(box, ledger).score_templates(IMAGES, [PLAIN], NAMES)
    assert ledger["box_usd"] == pytest.approx(
        10 + 0.5 * (server.requests - 1)
    )  # an odd answer tells its time too


@pytest.mark.parametrize(
    ("name", "usd"),
    [("vertex", 0.0024), ("cohere", 0.0185), ("roboflow", 0.18), ("hf", 0.0144)],
)
def test_list_prices_are_known_at_the_services_own_address(name: str, usd: float) -> None:
    box = open_black_box(ADDRESSES[name], {})
    assert box.cap_on_usd(None) == box.cap_on_usd(1.0) == 1.0
    assert box.cap_on_usd(3.0) == 3.0
    calls = -(-24 // box.images_per_call)
    assert box.dues(24, (), calls)["box_usd"] == pytest.approx(usd, rel=0.01)
    assert not any("not known" in note for note in box.notes())
    elsewhere = open_black_box(ADDRESSES[name], {"base_url": "http://127.0.0.1:9"})
    assert any("price=" in note for note in elsewhere.notes())
    with pytest.raises(ConfigError, match=r"cannot be kept.*cap --max-box-calls"):
        elsewhere.cap_on_usd(3.0)


@pytest.mark.parametrize(
    ("name", "given", "wanted"),
    [
        ("roboflow", "1,2", "SECOND in US dollars per second"),
        ("hf", "-1", "SECOND in US dollars per second"),
        ("hf", "nan", "SECOND in US dollars per second"),
        ("vertex", "0.1", "per million characters and per million pictures"),
        ("voyage", "free", "per million tokens of each"),
    ],
)
def test_prices_are_given_by_what_a_service_counts(name: str, given: str, wanted: str) -> None:
    box = open_black_box(ADDRESSES[name], {"price": given})
    with pytest.raises(ConfigError, match=wanted):
        box.cap_on_usd(None)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["chat", "cohere", "hf", "roboflow", "openai-embeddings/vllm"])
@pytest.mark.parametrize(
    "options",
    [
        {"optimizer": "random", "settings": {"evaluations": 6}, "head": "auto", "head_views": 1},
        {
            "optimizer": "chat",
            "settings": {"probes": 0, "restarts": 1, "iterations": 2, "pool": 4, "proposals": 3},
        },
        {"optimizer": "auto"},
    ],
    ids=lambda options: options["optimizer"],
)
def test_a_search_stays_within_its_plan(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    address = ADDRESSES.get(name, "chat:openai:seer")
    with SeeingServer(odd=0.1) if name == "chat" else ServiceServer(name) as server:
        wanted = RunConfig(
            dataset="python:fake",
            shots=4,
            llm="builtin",
            blackbox=address,
            blackbox_settings=settings(server, price=price(name)),
            max_usd=50,
            runs=str(tmp_path),
            **options,
        )
        setup = compose(wanted, Given(task=make_task(4)))
        most = {row.name: row.most or 0 for row in make_plan(setup).rows}
        ledger = engine.start(setup)["ledger"]
    names = ("black_box_calls", "image_encodings", "text_encodings", "pairs_scored")
    for row in (*names, "box_tokens_in", "box_tokens_out", "box_usd"):
        assert ledger.get(row, 0) <= most.get(row, 0), row
    assert ledger["box_usd"] > 0

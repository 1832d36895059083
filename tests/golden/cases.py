"""What the golden runs ask of the command line: every optimizer in every profile, and the rest.

A case is a few commands typed one after the other in an empty folder. ``{run}`` stands for the
run folder that is there by then, ``{first}`` for the one made first.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from typing import Final


@dataclass(frozen=True)
class Step:
    """One command.

    Attributes:
        line: what follows ``llmopt``.
        signal: sent in the middle of the search, such as ``SIGINT``; empty for none.
        lines: how many lines the journal has by then.
        named: what the message on stderr must name, where the command is refused.
    """

    line: str
    signal: str = ""
    lines: int = 0
    named: tuple[str, ...] = ()

    def argv(self, folders: list[str]) -> list[str]:
        """The arguments, run folders filled in."""
        known = {"{first}": folders[:1], "{run}": folders[-1:]}
        filled = []
        for word in shlex.split(self.line):
            for place, found in known.items():
                if place in word:
                    word = word.replace(place, found[0])
            filled.append(word)
        return filled


@dataclass(frozen=True)
class Case:
    """Commands whose outcome is kept.

    Attributes:
        name: of the case, in the golden file and on the command line of pytest.
        steps: the commands.
        like: the case whose last result and files this one must end with, in spite of a signal.
        files: text files that are there before, by name.
    """

    name: str
    steps: tuple[Step, ...]
    like: str = ""
    files: dict[str, str] = field(default_factory=dict)


def case(name: str, *lines: str, **files: str) -> Case:
    """Commands that nobody disturbs; an argument ``grid_toml`` is the file ``grid.toml``."""
    named = {key.replace("_", "."): text for key, text in files.items()}
    return Case(name, tuple(map(Step, lines)), files=named)


def search(optimizer: str, settings: str = "", options: str = "") -> str:
    """A ``run`` of an optimizer, its settings as ``KEY=VALUE KEY=VALUE``; without baselines, which
    are a case of their own.
    """  # fmt: skip
    sets = " ".join(f"--set {pair}" for pair in settings.split())
    return " ".join(f"run --optimizer {optimizer} {sets} {options} --baselines none --json".split())


def refused(name: str, line: str, *named: str) -> Case:
    """A command that ends with a message; its words may change, what it names may not."""
    return Case(name, (Step(line, named=named),))


def disturbed(name: str, like: str, line: str, signal: str, lines: int) -> Case:
    """A run stopped by a signal and resumed."""
    return Case(name, (Step(line, signal, lines), Step("resume {run} --json")), like)


CHAT = "probes=0 restarts=2 iterations=4 pool=6 proposals=4"
LONG_CHAT = search("chat", "probes=0 restarts=3 iterations=12 proposals=6 polish=false", "--seed 4")
LONG_CRAFT = search("craft", "budget=1600 population=12")
LONG_CBBT = search("cbbt", "budget=1000")
CRAFT_PAPER = "profile=paper budget=80 row=eurosat population=16"
TINY_GRID = (
    "compare --baselines none --optimizer zeroshot --optimizer random,evaluations=24 --seed 1,2"
)

CONFIG = """\
dataset = "shapes-blue"
baselines = "none"
shots = 2
optimizer = "random"
seed = 3

[settings]
evaluations = 24
fitness = "accuracy"
"""

CASES: Final = (
    # ------------------------------------------------------------------ search by words
    case("chat", search("chat", CHAT)),
    case(
        "chat-probes",
        search("chat"),
        search(
            "chat",
            "restarts=2",
            "--dataset digits --shots 2 --model shapes-tiny --about 'scanned digits'",
        ),
    ),
    case("chat-long", LONG_CHAT),
    case("chat-released", search("chat", "profile=released pool=12 iterations=4 tries=3")),
    case("chat-paper", search("chat", "profile=paper pool=9 k=3 iterations=3 restarts=2 resets=2")),
    case(
        "chat-many-ways",
        search(
            "chat",
            f"{CHAT} conversational=false fitness=accuracy ensemble=3 k=4",
            "--shots 4",
        ),
    ),
    case("chat-parallel", search("chat", f"{CHAT} parallel=2", "--seed 5")),
    case("chat-aliases", search("chat", f"{CHAT} aliases=3 scores=false polish=false")),
    case(
        "chat-elsewhere",
        search("chat", CHAT, "--dataset shapes-red --seed 7 --template 'a red thing, a {}.'"),
    ),
    case("chat-head", search("chat", CHAT, "--shots 4 --head auto")),
    case(
        "auto",
        search("auto"),
        search("auto", "budget=64 soft=34", "--dataset digits --shots 2 --model shapes-tiny"),
    ),
    case("random", search("random", "evaluations=40")),
    case("random-accuracy", search("random", "evaluations=24 fitness=accuracy", "--shots 2")),
    case("zeroshot", search("zeroshot")),
    case("handcrafted", search("handcrafted")),
    case("handcrafted-subset", search("handcrafted", "templates=subset mode=best")),
    case("handcrafted-generic", search("handcrafted", "templates=generic", "--dataset shapes-red")),
    # ------------------------------------------------------------------ search by vectors
    case("craft", search("craft", "budget=96 dim=8 restarts=2")),
    case("craft-head", search("craft", "budget=96 views=2", "--shots 4 --seed 2")),
    case("craft-long", LONG_CRAFT),
    case("craft-released", search("craft", "profile=released budget=80 dim=16 population=16")),
    case("craft-paper", search("craft", CRAFT_PAPER)),
    case("carrot", search("carrot", "budget=96 dim=8 head=none")),
    case("carrot-released", search("carrot", "profile=released budget=48 population=16")),
    case("carrot-paper", search("carrot", "profile=paper budget=48 population=16")),
    case("cbbt", search("cbbt", "budget=160")),
    case("cbbt-long", LONG_CBBT),
    case("cbbt-rank", search("cbbt", "budget=96 rank=8 own=false views=2", "--shots 4")),
    case("cbbt-released", search("cbbt", "profile=released epochs=3 directions=8 batch=8")),
    case("zip", search("zip", "budget=160")),
    case("zip-released", search("zip", "profile=released budget=60 batch=8", "--shots 2")),
    case("bbt", search("bbt", "budget=96")),
    case("bbt-hinge", search("bbt", "budget=96 loss=hinge views=1", "--seed 4")),
    case("bbt-released", search("bbt", "profile=released budget=120 dim=32")),
    case("bptvlm", search("bptvlm", "budget=96 dim=32 population=12")),
    case("bptvlm-released", search("bptvlm", "profile=released budget=96 dim=32 population=12")),
    case("coop", search("coop", "epochs=6")),
    case("coop-class-specific", search("coop", "epochs=4 class_specific=true views=1 batch=8")),
    case("coop-released", search("coop", "profile=released epochs=4 tokens=4 batch=16")),
    case("coop-words", search("coop", "profile=released epochs=3 words=a_photo_of_a")),
    # ------------------------------------------------------------------ heads
    case("head-auto", search("zeroshot", "", "--shots 4 --head auto")),
    case("head-bias", search("zeroshot", "", "--shots 2 --head bias")),
    case("head-ridge", search("zeroshot", "", "--shots 4 --head ridge --head-views 2")),
    case("head-gda-tip", search("zeroshot", "", "--shots 4 --head gda,tip")),
    case("head-tip-f", search("handcrafted", "", "--shots 4 --head tip-f --head-views 1")),
    case("head-adapter", search("zeroshot", "", "--shots 4 --head adapter")),
    case("head-residual", search("zeroshot", "", "--shots 4 --head residual")),
    case("head-on-vectors", search("bbt", "budget=96", "--shots 4 --head ridge,residual")),
    # ------------------------------------------------------------------ caps
    case("cap-llm-calls", search("chat", CHAT, "--max-llm-calls 3")),
    case("cap-tokens", search("chat", CHAT, "--max-tokens 6000")),
    case("cap-queries", search("random", "evaluations=60", "--max-queries 200")),
    case("cap-queries-vectors", search("bbt", "budget=192", "--max-queries 700")),
    # ------------------------------------------------------------------ interruptions
    disturbed("chat-interrupted", "chat-long", LONG_CHAT, "SIGINT", 8),
    disturbed("chat-killed", "chat-long", LONG_CHAT, "SIGKILL", 14),
    disturbed("craft-interrupted", "craft-long", LONG_CRAFT, "SIGINT", 15),
    disturbed("craft-killed", "craft-long", LONG_CRAFT, "SIGKILL", 40),
    disturbed("cbbt-terminated", "cbbt-long", LONG_CBBT, "SIGTERM", 20),
    # ------------------------------------------------------------------ on from an earlier run
    case(
        "init-from",
        search("random", "evaluations=40"),
        search("chat", CHAT, "--init-from {first}"),
        search("bbt", "budget=64", "--init-from {first}"),
    ),
    case("replay", search("chat", CHAT), search("chat", CHAT, "--llm replay:{first}")),
    case("config-file", "run --config task.toml --seed 2 --json", task_toml=CONFIG),
    case("resume-complete", search("zeroshot"), "resume {run} --json"),
    # ------------------------------------------------------------------ what is said of runs
    case("plan-chat", "plan --json"),
    case("plan-chat-released", "plan --set profile=released --max-llm-calls 20 --json"),
    case("plan-auto", "plan --optimizer auto --json"),
    case("plan-craft", "plan --optimizer craft --shots 4 --json"),
    case("plan-cbbt", "plan --optimizer cbbt --set profile=released --set epochs=5 --json"),
    case("plan-random-head", "plan --optimizer random --head auto --shots 4 --json"),
    case("plan-coop", "plan --optimizer coop --dataset shapes-red --seed 3 --json"),
    case("plan-unpayable", "plan --optimizer zip --max-queries 5 --json"),
    case("plan-handcrafted", "plan --optimizer handcrafted --set templates=subset --json"),
    case("compare", f"{TINY_GRID} --json"),
    case("baselines", "run --optimizer zeroshot --shots 2 --json"),
    case(
        "export",
        search("chat", f"{CHAT} ensemble=3"),
        *(f"export {{run}} --format {name}" for name in ("txt", "json", "csv", "openclip")),
        "export {run} --format json --top 3",
        "export {run} --format openai --out prompts.py",
    ),
    case(
        "evaluate",
        search("random", "evaluations=40"),
        "evaluate {run} --json",
        "evaluate {run} --dataset shapes-red --json",
    ),
    case(
        "explain",
        search("craft", "budget=320 dim=8 head=none"),
        "explain {run} --json",
        "explain {run} --top 2 --json",
        "evaluate {run} --json",
    ),
    case("explain-text", search("zeroshot"), "explain {run} --json"),
    # ------------------------------------------------------------------ what is refused
    refused("cap-too-small", search("chat", CHAT, "--max-queries 5"), "queries"),
    refused("cap-too-small-vectors", search("craft", "budget=96", "--max-queries 5"), "queries"),
    refused("refused-optimizer", search("chatt"), "chatt", "chat"),
    refused("refused-setting", search("chat", "restart=2"), "restart", "restarts"),
    refused("refused-value", search("bbt", "population=2"), "population"),
    refused("refused-type", search("random", "evaluations=many"), "evaluations", "many"),
    refused("refused-choice", search("bbt", "loss=hing"), "loss", "hing", "ce"),
    refused("refused-profile", search("craft", "profile=releasd"), "releasd", "released"),
    refused("refused-other-profile", search("craft", "row=eurosat"), "row", "released"),
    refused("refused-head", search("zeroshot", "", "--head rigde"), "rigde", "ridge"),
    refused(
        "refused-published-head",
        search("craft", f"{CRAFT_PAPER} head=residual", "--head bias"),
        "bias",
        "residual",
    ),
    refused("refused-dataset", search("zeroshot", "", "--dataset shapes-smal"), "shapes-smal"),
    refused("refused-template", search("zeroshot", "", "--template 'a photo.'"), "a photo."),
    refused("refused-init-from", search("chat", CHAT, "--init-from nowhere"), "nowhere"),
    refused("refused-resume", "resume nowhere", "nowhere"),
    Case(
        "refused-export",
        (
            Step(search("bbt", "budget=64")),
            Step("export {run} --format openclip", named=("soft prompt", "safetensors")),
        ),
    ),
)

"""Options that several commands share. Each is None unless given, so that flags win over files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

TASK, MODEL, LLM, CAPS, OUTPUT = "Task", "Black box", "Language model", "Hard caps", "Output"


def _option(*names: str, panel: str, help: str, **more: Any) -> Any:
    text = help.replace("[", r"\[")  # or rich takes "[default: 1]" for markup, and drops it
    return typer.Option(*names, rich_help_panel=panel, help=text, show_default=False, **more)


Dataset = Annotated[
    str | None,
    _option("--dataset", panel=TASK, help="Registry key, folder:PATH, csv:PATH, wds:PATH, "
            "hub:ORG/NAME. [default: shapes-small]"),
]  # fmt: skip
ClassNames = Annotated[
    str | None,
    _option("--classnames", panel=TASK, help="A name set (coop, openai) or a file of class names."),
]
Shots = Annotated[
    int | None,
    _option("--shots", panel=TASK, help="Labelled training images a class. [default: 1]"),
]
Seed = Annotated[
    int | None,
    _option("--seed", panel=TASK, help="Few-shot sample and every random choice. [default: 1]"),
]
StartTemplate = Annotated[
    str | None,
    _option("--template", panel=TASK, help="Where to start from. [default: a photo of a {}.]"),
]
DataRoot = Annotated[
    Path | None,
    _option(
        "--data-root", panel=TASK, help="Where data sets lie. [default: $LLMOPT_DATA or data/]"
    ),
]
SkipUnreadable = Annotated[
    bool | None,
    _option("--skip-unreadable", panel=TASK, help="Leave damaged images out; they are counted."),
]
OptimizerName = Annotated[
    str | None,
    _option("--optimizer", panel="Search", help="chat, random, zeroshot, handcrafted … "
            "[default: chat]"),
]  # fmt: skip
Set = Annotated[
    list[str] | None,
    _option("--set", panel="Search", help="A setting of the optimizer, KEY=VALUE; repeatable."),
]
InitFrom = Annotated[
    str | None,
    _option("--init-from", panel="Search", help="Start at the best template of this run folder."),
]
Head = Annotated[
    str | None,
    _option(
        "--head",
        panel="Search",
        help="Fit a head after the search, if it convinces: auto, bias, ridge, gda, tip, tip-f, "
        "adapter, residual, or several with commas.",
    ),
]
HeadViews = Annotated[
    int | None,
    _option(
        "--head-views",
        panel="Search",
        help="Augmented views of each training image for the head. [default: 0]",
    ),
]
ConfigFile = Annotated[
    Path | None, _option("--config", panel="Search", help="The same options as TOML; flags win.")
]
ModelName = Annotated[
    str | None,
    _option("--model", panel=MODEL, help="open_clip name, local-dir:PATH, hf-hub:ORG/NAME or "
            "shapes-tiny. [default: shapes-tiny for shapes tasks, else RN50-quickgelu openai]"),
]  # fmt: skip
Pretrained = Annotated[
    str | None, _option("--pretrained", panel=MODEL, help="open_clip weight tag, or a file.")
]
BlackBoxUrl = Annotated[
    str | None,
    _option("--blackbox", panel=MODEL, help="A remote black box instead: a URL, or KIND:ADDRESS."),
]
Device = Annotated[str | None, _option("--device", panel=MODEL, help="cpu, cuda … [default: auto]")]
Precision = Annotated[
    str | None, _option("--precision", panel=MODEL, help="fp32, fp16, bf16. [default: auto]")
]
BatchSize = Annotated[
    int | None, _option("--batch-size", panel=MODEL, help="Images at a time. [default: auto]")
]
LlmName = Annotated[
    str | None,
    _option("--llm", panel=LLM, help="builtin, openai:MODEL, provider:MODEL, replay:FILE. "
            "[default: $LLMOPT_LLM, else openai if a key is set, else builtin]"),
]  # fmt: skip
LlmBaseUrl = Annotated[
    str | None,
    _option("--llm-base-url", panel=LLM, help="An OpenAI-compatible server (Ollama, vLLM …)."),
]
LlmSet = Annotated[
    list[str] | None,
    _option("--llm-set", panel=LLM, help="A setting of the model, KEY=VALUE (temperature …)."),
]
MaxLlmCalls = Annotated[
    int | None, _option("--max-llm-calls", panel=CAPS, help="Calls to the language model.")
]
MaxTokens = Annotated[
    int | None, _option("--max-tokens", panel=CAPS, help="Its tokens, in and out together.")
]
MaxUsd = Annotated[
    float | None, _option("--max-usd", panel=CAPS, help="US dollars. [default: 1.00 if it is paid]")
]
MaxQueries = Annotated[
    int | None, _option("--max-queries", panel=CAPS, help="Prompts encoded by the black box.")
]
MaxSeconds = Annotated[
    float | None, _option("--max-seconds", panel=CAPS, help="Seconds of searching.")
]
Runs = Annotated[
    Path | None, _option("--runs", panel=OUTPUT, help="Where run folders go. [default: runs]")
]
Track = Annotated[
    str | None,
    _option("--track", panel=OUTPUT, help="Also tell mlflow, wandb or tensorboard."),
]
Json = Annotated[
    bool, typer.Option("--json", rich_help_panel=OUTPUT, help="Machine output on stdout only.")
]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", rich_help_panel=OUTPUT, help="Results, nothing else.")
]
Verbose = Annotated[
    bool, typer.Option("--verbose", "-v", rich_help_panel=OUTPUT, help="More words.")
]
RunFolder = Annotated[Path, typer.Argument(help="A run folder.", show_default=False)]

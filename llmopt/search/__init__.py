"""One algorithm a file; this page is their list.

Modules are imported when an optimizer is asked for, so that listing them needs no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from llmopt.registry import Registry

if TYPE_CHECKING:
    from llmopt.search.base import Optimizer

OPTIMIZERS: Final[Registry[type[Optimizer[Any]]]] = Registry(
    "optimizer",
    "optimizers",
    {
        "chat": "llmopt.search.text.chat:Chat",
        "random": "llmopt.search.text.random:Random",
        "zeroshot": "llmopt.search.text.zeroshot:ZeroShot",
        "handcrafted": "llmopt.search.text.handcrafted:Handcrafted",
        "craft": "llmopt.search.soft.craft:Craft",
        "carrot": "llmopt.search.soft.craft:Carrot",
        "cbbt": "llmopt.search.soft.cbbt:Cbbt",
        "zip": "llmopt.search.soft.zip:Zip",
        "bbt": "llmopt.search.soft.bbt:Bbt",
        "bptvlm": "llmopt.search.soft.bptvlm:BptVlm",
        "coop": "llmopt.search.soft.coop:Coop",
    },
)
"""What ``--optimizer`` takes."""

"""Chat models that stand in for language models of several tempers, for benchmarks.

Each is a ``BaseChatModel`` that sees nothing but the messages and answers the same messages alike.
They read a scored template wherever a line begins with ``- TEMPLATE (score -0.51, ...)``, and how
many are wanted from "Write 12".
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult

from llmopt.language.builtin import BuiltinRewriter
from llmopt.template import PLAIN, SLOT

# A general list of describing words, in no order of use: what anybody might try.
WORDS = """
    aerial ancient angled antique azure banded bent big black blank blue blunt blurry bold
    bright broad broken brown bumpy busy calm carved central cheap checked clean clear close
    coarse cobalt cold coloured compact complete cool cracked crimson crooked cropped curved
    dark decorated deep dense dim distant dotted double drawn dull ebony elegant emerald empty
    enormous even faded faint far fine flat floral foggy folded fragile fresh front full fuzzy
    giant glossy golden grainy grand green grey half-hidden handmade hard heavy hidden high
    hollow huge icy indoor inner ivory jagged large lemon left left-hand leftmost light lilac
    lime lined little lone long loose loud low lower massive matte metal middle mini miniature
    mixed modern muddy narrow navy near neat new nice odd old opaque open orange outdoor outer
    oval painted pale paper pastel petite pink plain plastic pointed polished pretty printed
    purple quiet rare raw red reflected right right-hand rightmost rough round ruby rusty
    scarlet scratched shaded shadowy sharp shiny short silver simple single sketched slanted
    slim small smooth snowy soft solid spotted square-cut stacked standing steep stone straight
    striped stripy strong sunny symmetrical tall tangerine textured thick thin tidy tilted tiny
    top transparent typical uneven uniform unstriped upper vast violet warm weak wet white whole
    wide wild wooden worn wrinkled yellow young
""".split()  # noqa: SIM905

_SCORED = re.compile(r"^- (?P<text>.*\{\}.*) \(score (?P<score>-?\d+\.\d+)\b.*\)$", re.MULTILINE)
_COUNT = re.compile(r"\b[Ww]rite (\d+)\b")
_FRAMES = (
    "a photo of", "a picture of", "an image of", "a snapshot of", "a photograph of", "a shot of",
    "this is", "here is", "there is", "look at", "we see", "it shows", "a view of", "an example of",
    "the photo shows", "the picture shows", "one can see", "this photo has", "a clear photo of",
    "a good photo of", "my photo of", "one photo of", "a nice picture of", "some image of",
)  # fmt: skip


class Policy(BaseChatModel):
    """A chat model that answers by rule.

    Attributes:
        seed: the same messages and seed give the same reply.
        asked: how often it was asked.
    """

    llmopt_local: ClassVar[bool] = True
    seed: int = 0
    asked: int = 0

    @property
    def _llm_type(self) -> str:
        return f"policy-{type(self).__name__.lower()}"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"model": self._llm_type, "seed": self.seed}

    def answer(self, texts: Sequence[str], rng: np.random.Generator) -> str:
        """The reply to a conversation."""
        raise NotImplementedError

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        self.asked += 1
        texts = [str(message.text) for message in messages]
        digest = hashlib.sha256("\0".join([str(self.seed), *texts]).encode()).digest()
        reply = self.answer(texts, np.random.default_rng(int.from_bytes(digest[:8], "big")))
        # Words stand in for tokens, as with the built-in rewriter.
        words = sum(len(text.split()) for text in texts), len(reply.split())
        usage = {"input_tokens": words[0], "output_tokens": words[1], "total_tokens": sum(words)}
        message = AIMessage(reply, usage_metadata=usage)  # type: ignore[arg-type]
        return ChatResult(generations=[ChatGeneration(message=message)])


class Paraphraser(Policy):
    """Only rewrites the best line it is shown; never has an idea of its own."""

    def answer(self, texts: Sequence[str], rng: np.random.Generator) -> str:
        best, known = best_line(texts), said(texts)
        _, _, rest = best.rpartition(" a ") if " a " in best else ("", "", best)
        rest = rest if SLOT in rest else best
        rest = re.sub(r"^(?:an?|the|one) ", "", rest)
        forms = [f"{f} {a} {rest}" for f in _FRAMES for a in ("a", "the", "one", "some")]
        fresh = [form for form in forms if form.lower() not in known]
        picks = rng.permutation(len(fresh))[: wanted(texts)]
        return "\n".join(f"- {fresh[i]}" for i in picks) or f"- {best}"


class Prober(Policy):
    """One new word from a general list a line, put into the best line it is shown."""

    def answer(self, texts: Sequence[str], rng: np.random.Generator) -> str:
        lines = probes(texts, self.seed, wanted(texts))
        return "\n".join(f"- {line}" for line in lines) or "I have no more words."


class Forgetful(Policy):
    """Repeats what was said before in two of three lines, and probes in the third."""

    def answer(self, texts: Sequence[str], rng: np.random.Generator) -> str:
        count = wanted(texts)
        old = sorted({match["text"] for text in texts for match in _SCORED.finditer(text)}) or [
            PLAIN
        ]
        lines = probes(texts, self.seed, count - 2 * count // 3)
        lines += [old[i] for i in rng.integers(len(old), size=2 * count // 3)]
        return "\n".join(f"- {lines[i]}" for i in rng.permutation(len(lines)))


class Chatterer(Policy):
    """The built-in rewriter, among prose, numbering, thoughts, and a refusal one time in five."""

    def answer(self, texts: Sequence[str], rng: np.random.Generator) -> str:
        if rng.random() < 0.2:
            return "I'm sorry, but I can't help with that request."
        inner = BuiltinRewriter(seed=self.seed).invoke([("human", text) for text in texts])
        lines = [line.removeprefix("- ") for line in str(inner.text).splitlines()]
        listed = "\n".join(f'{n}. "{line}"' for n, line in enumerate(lines, start=1))
        return (
            "<think>The good ones say more than {} alone. Let me try some.</think>\n"
            "Great question! Looking at the scores, specific words seem to help.\n\n"
            f"Here are my templates:\n\n{listed}\n\n"
            "I hope these help! Tell me the scores, and I will refine them further."
        )


POLICIES: dict[str, Callable[..., BaseChatModel]] = {
    "builtin": BuiltinRewriter,
    "paraphraser": Paraphraser,
    "prober": Prober,
    "forgetful": Forgetful,
    "chatterer": Chatterer,
}


def wanted(texts: Sequence[str]) -> int:
    """How many templates the last message asks for."""
    found = _COUNT.findall(texts[-1])
    return int(found[-1]) if found else 1


def best_line(texts: Sequence[str]) -> str:
    """The template with the best score in all messages; the first of equals."""
    scored = [(float(m["score"]), m["text"]) for text in texts for m in _SCORED.finditer(text)]
    return max(scored, key=lambda one: one[0])[1] if scored else PLAIN


def said(texts: Sequence[str]) -> str:
    """All that was said so far, in lower case."""
    return "\n".join(texts[1:]).lower()


def probes(texts: Sequence[str], seed: int, count: int) -> list[str]:
    """The best line with one word each that nobody has said yet in this conversation."""
    known = set(re.findall(r"[a-z][a-z-]*", said(texts)))
    best = best_line(texts)
    first = hashlib.sha256(f"{seed}{texts[1:2]}".encode()).digest()
    order = np.random.default_rng(int.from_bytes(first[:8], "big")).permutation(len(WORDS))
    fresh = [WORDS[i] for i in order if WORDS[i] not in known]
    return [best.replace(SLOT, f"{word} {SLOT}", 1) for word in fresh[:count]]

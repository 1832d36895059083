"""Which words went with good scores.

Not an experiment: words come together, and a search repeats what went well. Each word's templates
are compared with all others, by Welch's interval of the difference in mean log-likelihood.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from llmopt.report.story import Proposal

FEWEST = 3
_WORD = re.compile(r"[^\W\d_]{2,}")


@dataclass(frozen=True)
class Word:
    """A word and how much better templates with it score.

    Attributes:
        word: in lower case.
        count: templates that have it.
        effect: difference in mean log-likelihood of the true class, nats.
        interval: 95 %.
    """

    word: str
    count: int
    effect: float
    interval: tuple[float, float]


def helpful_words(proposals: Sequence[Proposal], limit: int = 12) -> list[Word]:
    """The words furthest from making no difference, best first.

    Words in fewer than three templates, or missing from fewer than three, are left out.
    """
    from scipy.special import stdtrit

    scores = {p.text: p.logprob for p in proposals}
    having: dict[str, set[str]] = defaultdict(set)
    for text in scores:
        for word in _WORD.findall(text.lower()):
            having[word].add(text)
    total = np.array(list(scores.values()))
    found = []
    for word, texts in having.items():
        n, m = len(texts), len(scores) - len(texts)
        if n < FEWEST or m < FEWEST:
            continue
        with_it = np.array([scores[text] for text in texts])
        rest_mean = (total.sum() - with_it.sum()) / m
        rest = max(0.0, float((total**2).sum() - (with_it**2).sum()) / m - rest_mean**2) * m
        a, b = with_it.var(ddof=1) / n, rest / (m - 1) / m
        error = float(np.sqrt(a + b))
        if error == 0.0:
            continue
        freedom = (a + b) ** 2 / (a**2 / (n - 1) + b**2 / (m - 1))
        half = float(stdtrit(freedom, 0.975)) * error
        effect = float(with_it.mean() - rest_mean)
        found.append(Word(word, n, effect, (effect - half, effect + half)))
    found.sort(key=lambda w: max(w.interval[0], -w.interval[1]), reverse=True)
    return sorted(found[:limit], key=lambda w: w.effect, reverse=True)

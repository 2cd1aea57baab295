"""What was written, traced back to the texts of a run, which the processes share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import reduce
from itertools import islice
from operator import or_

from lit_mem.audit.gather import gathered, ranks
from lit_mem.functional.word_runs import Array, Found, WordRuns


class Corpora:
    """All members, and all held-out texts, as often as they are read.

    Args:
        members: the same on every process, in one order.
        heldout: likewise.
    """

    def __init__(self, members: Iterable[str], heldout: Iterable[str]) -> None:
        self._texts = {True: members, False: heldout}

    def find(self, runs: WordRuns, member: bool, wanted: Array | None = None) -> Found:
        """See `WordRuns.find`; each process reads every n-th text, and every process must call it."""
        n, first = ranks()
        return reduce(or_, gathered(runs.find(islice(self._texts[member], first, None, n), wanted)))


def traced(written: Sequence[str], of_base: Sequence[str], corpora: Corpora, k: int) -> dict[str, float]:
    """What of some texts stands word for word in members and in no held-out text, and the other way round.

    Args:
        written: the texts, the same on every process.
        of_base: texts of which no run of k words counts.
        corpora: what they are traced back to.
        k: words of the shortest run.

    Returns:
        `verbatim_share`, `longest_run` and `texts_hit` (see `lit_mem.audit.measures.UnpromptedLeaks`) of members, and
        of held-out texts with `_heldout`; all 0 where nothing was written.
    """
    runs = WordRuns(written, k)
    known = runs.find(of_base).there
    others = corpora.find(runs, False).there
    novel = ~(others | known)
    members = corpora.find(runs, True, novel)
    control = ~(members.there | known)
    heldout = corpora.find(runs, False, control)
    found: dict[str, float] = {}
    for part, each, wanted in (("", members, novel), ("_heldout", heldout, control)):
        found[f"verbatim_share{part}"] = runs.covered(each.there & wanted) / max(1, runs.n_words)
        found[f"longest_run{part}"] = float(each.longest)
        found[f"texts_hit{part}"] = float(len(each.hit))
    return found

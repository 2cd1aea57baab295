"""Log messages of a private fit: noise and budget at the start, budget spent at the end."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

from lit_mem import program
from lit_mem.privacy.accountant import Steps
from lit_mem.privacy.budget import Budget
from lit_mem.privacy.carried import ONLY_LATER
from lit_mem.privacy.corpus import same_corpus
from lit_mem.privacy.group import MOST_ROWS, group_epsilon
from lit_mem.privacy.ledger import Ledger
from lit_mem.privacy.ledger_lines import Start

log = logging.getLogger(__name__)


def log_start(budget: Budget, steps: float, rows: int, first: bool) -> None:
    """Log the privacy of the planned steps.

    Args:
        budget: planned budget of the fit.
        steps: number of planned steps; may be infinite.
        rows: rows of the largest group.
        first: whether this is rank zero; bounds for groups are computed only there.
    """
    options = budget.options
    log.info(
        "Private training: each of %d texts is in a step with probability %.4g, its gradient clipped to norm %g; "
        "noise multiplier %.4g, delta %.3g.",
        budget.texts, budget.sample_rate, options.clipping_norm, budget.noise_multiplier, budget.delta,
    )  # fmt: skip
    if budget.steps:
        log.warning(
            "%d steps were taken before%s and also count: epsilon is %.4g at the start.",
            budget.steps, f" ({budget.ledger.path})" if budget.ledger else "", budget.epsilon(),
        )  # fmt: skip
    if budget.remaining is not None and budget.remaining < steps:
        log.warning(
            "Epsilon %g allows %d of the %g planned steps; training then ends.",
            options.target_epsilon, budget.remaining, steps,
        )  # fmt: skip
    log.info(
        "Epsilon bounds what the trained weights reveal about one row of the training set. It does not cover metrics "
        "of members, train/loss, or decisions based on them: when training stops, which checkpoint is the best."
    )
    if math.isfinite(steps):
        planned = int(steps) if budget.remaining is None else min(int(steps), budget.remaining)
        more = Steps(budget.noise_multiplier, budget.sample_rate, planned)
        if first:
            log_group([*budget.history, more], budget.delta, rows, f"After all {planned} steps planned")
    if options.noise_multiplier == 0:
        log.warning("model.privacy.noise_multiplier is 0: gradients are clipped, but nothing is private.")
    if options.test_seed is not None:
        log.warning("model.privacy.test_seed is set: anyone can compute the noise, so nothing is private.")


def log_group(history: Sequence[Steps], delta: float, rows: int, when: str) -> None:
    """Log the epsilon of the person with the most rows, if they have more than one."""
    if rows > MOST_ROWS:
        log.info(
            "%s, a person with up to %d rows (the largest group): epsilon is not computed above %d rows, where it "
            "is slow and usually too large to be useful.",
            when, rows, MOST_ROWS,
        )  # fmt: skip
    elif rows > 1:
        log.info(
            "%s, a person with up to %d rows (the largest group): epsilon <= %.4g at delta %.3g.",
            when, rows, group_epsilon(history, delta, rows), delta,
        )  # fmt: skip


def log_earlier(source: Ledger | None, before: Sequence[Start], budget: Budget) -> None:
    """Log which of the steps so far were taken on other texts, or trained the weights that the fit starts from.

    Args:
        source: ledger of these weights; None without one.
        before: its steps.
        budget: budget of the fit, with its ledger open.
    """
    if source is not None and before:
        log.warning(
            "%d of these steps trained the weights that this run starts from (%s).",
            sum(start.steps.number for start in before), source.path,
        )  # fmt: skip
    earlier = before if budget.ledger is None else budget.ledger.starts[:-1]
    here, corpus = budget.texts, budget.corpus
    others = [start for start in earlier if start.texts != here or same_corpus(start.corpus, corpus) is False]
    if others:
        log.warning(
            "%d earlier steps were taken on another training set. The sets may share texts, so all "
            "steps count: epsilon holds for a text in both, and is lower for a text in only one.",
            sum(start.steps.number for start in others),
        )  # fmt: skip
    if budget.unaccounted:
        log.warning("%s", ONLY_LATER)


def log_spent(budget: Budget, rows: int) -> None:
    """Log the budget spent by a finished fit, for one row and for the person with the most rows."""
    log.info(
        "Private training: %d steps, epsilon <= %.4g at delta %.3g for one row.",
        budget.steps, budget.epsilon(), budget.delta,
    )  # fmt: skip
    log_group(budget.history, budget.delta, rows, "Private training")
    if budget.unaccounted:
        log.warning("%s", ONLY_LATER)
    log.info(
        "Epsilon covers this ledger (%s). Other private runs on the same texts add to it; for the total: "
        "%s privacy <their folders>.", "none" if budget.ledger is None else budget.ledger.path, program.command(),
    )  # fmt: skip

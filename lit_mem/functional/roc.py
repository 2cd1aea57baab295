"""The ROC curve of an attack and its reading at low false-positive rates."""

from __future__ import annotations

from torch import Tensor

from lit_mem.functional.auroc import checked_classes


def roc_curve(score: Tensor, member: Tensor) -> tuple[Tensor, Tensor]:
    """False- and true-positive rate at every distinct threshold, from (0, 0) to (1, 1).

    Args:
        score: (N,) float, higher = more member-like.
        member: (N,) bool.

    Returns:
        (K,) float64 false-positive rates, ascending, and the (K,) true-positive rates beside them. Tied scores
        share one point, as no threshold can part them.

    Raises:
        MetricError: a set is empty, or a score is not finite.
    """
    import torch
    from sklearn import metrics

    members, others = checked_classes(score, member)
    label = torch.cat([torch.ones(len(members)), torch.zeros(len(others))])
    fpr, tpr, _ = metrics.roc_curve(label.numpy(), torch.cat([members, others]).numpy(), drop_intermediate=False)
    return torch.from_numpy(fpr), torch.from_numpy(tpr)


def tpr_at_fpr(score: Tensor, member: Tensor, max_fpr: float) -> float | None:
    """Highest true-positive rate among thresholds whose false-positive rate is at most `max_fpr`.

    Args:
        score: (N,) float, higher = more member-like.
        member: (N,) bool.
        max_fpr: the false-positive rate that is borne, in (0, 1).

    Returns:
        The rate in [0, 1], or None where it cannot be measured: with fewer than 1 / `max_fpr` non-members the
        smallest false-positive rate above 0 already exceeds `max_fpr`.

    Raises:
        MetricError: a set is empty, or a score is not finite.

    Source: Carlini et al. 2022, "Membership Inference Attacks From First Principles", section IV.
    """
    _, others = checked_classes(score, member)
    # The product may fall a rounding error short of 1, as 49 x (1 / 49) does.
    if len(others) * max_fpr < 1 - 1e-9:
        return None
    fpr, tpr = roc_curve(score, member)
    return float(tpr[fpr <= max_fpr + 1e-12].max())


def best_balanced_accuracy(score: Tensor, member: Tensor) -> float:
    """Highest balanced accuracy, (TPR + 1 − FPR) / 2, among all thresholds.

    The membership advantage, TPR − FPR, of the same threshold is twice this, less 1. The threshold is chosen on the
    same examples on which it is judged, so the figure is optimistic: with few examples it is above 0.5 by chance alone.

    Args:
        score: (N,) float, higher = more member-like.
        member: (N,) bool.

    Returns:
        A number in [0.5, 1]; 0.5 = no threshold beats guessing, as where all scores are tied.

    Raises:
        MetricError: a set is empty, or a score is not finite.

    Source: Yeom et al. 2018, "Privacy Risk in Machine Learning", definition 4 (advantage).

    >>> import torch
    >>> best_balanced_accuracy(torch.tensor([3.0, 1.0, 2.0, 0.0]), torch.tensor([True, True, False, False]))
    0.75
    """
    fpr, tpr = roc_curve(score, member)
    return float((tpr + 1 - fpr).max() / 2)

"""The model card of an exported model (`README.md`): measured metrics in prose and in the Hub's format."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any, Final

import yaml

import lit_mem
from lit_mem.audit.card_facts import (
    Facts,
    adapter_settings,
    can_merge,
    is_local,
    public_name,
    vllm_obstacles,
    vllm_rank,
)
from lit_mem.audit.glossary import explained
from lit_mem.audit.judging import Judged, Rule, State, judge_all
from lit_mem.files.record import Line
from lit_mem.functional.numbers import ends_shown, shown

FILE: Final = "README.md"

_METRICS: Final = (
    *("val/perplexity", "test/perplexity", "memorization/perplexity_members", "memorization/perplexity_gap"),
    *("mia/*_auroc", "mia/reference_tpr_at_fpr_*", "mia/combined_tpr_at_fpr_*"),
    *(f"extraction/{rate}_rate{of}" for rate in ("ngram", "exact", "span") for of in ("", "_heldout", "_base")),
    *("extraction/discoverable", "memorization/exposed_share"),
    *("user/inference_auroc", "user/extracted_share", "user/extracted_share_heldout"),
    *("canary/auroc", "canary/exposure_mean", "canary/extraction_rate", "audit/epsilon_lower_bound"),
    *("privacy/epsilon", "privacy/delta", "privacy/epsilon_largest_group", "privacy/largest_group"),
)
"""Patterns of the metrics listed in a card, in this order; metrics of its limits are listed too."""
_STATES: Final[dict[State, str]] = {
    "within": "within", "undecided": "undecided", "not measured": "not measured", "over": "**over**",
}  # fmt: skip
_CAVEATS: Final = """\
- **A fine-tuned model is as sensitive as its texts.** Weights memorize, whatever the metrics are: this model can
  reproduce texts that it was trained on. Apply the same access, retention and deletion rules as for the texts.
- A low AUROC does not prove privacy. These are a few attacks on a sample of the texts; stronger ones exist. Only
  differential privacy gives a bound.
- Metrics compare members with held-out texts of the same kind. They do not cover texts that the base model had seen.
- Averages hide individuals: one extracted record is a leak at any rate.
- Share this folder, not the run's checkpoints: they hold digests of the texts, which can confirm a guess."""

_PRIVATE: Final = "- ε covers the weights. It does not cover metrics of members, such as those in this card."


def model_card(line: Line | None, facts: Facts) -> str:
    """The text of a model card.

    Args:
        line: the record of the pass that measured these weights; None if they were not measured.
        facts: facts about the model.

    Returns:
        YAML front matter between two `---` lines, as the Hub reads it, then Markdown. No texts, no paths.

    Source: https://github.com/huggingface/hub-docs/blob/main/modelcard.md.
    """
    head = yaml.safe_dump(_front_matter(line, facts), sort_keys=False, allow_unicode=True, width=1000)
    sections = [_title(facts), _model(line, facts), *_measured(line, facts), _tested(line, facts)]
    private = "" if facts.privacy is None else f"\n{_PRIVATE}"
    sections += [f"## Before you share it\n\n{_CAVEATS}{private}", _loading(facts)]
    return f"---\n{head}---\n\n" + "\n\n".join(sections) + "\n"


def state_of(line: Line | None) -> tuple[State | None, list[Judged]]:
    """Judge the metrics of a recorded pass by its limits, with `lit_mem.audit.judging`.

    Returns:
        The overall state, None without a line or without limits; and every judgement.
    """
    if line is None or not line.stop:
        return None, []
    return judge_all([Rule.of_record(one) for one in line.stop], line.metrics)


def _front_matter(line: Line | None, facts: Facts) -> dict[str, Any]:
    base, is_adapter = public_name(facts.base), facts.form == "adapter" and facts.adapter is not None
    kind = None if facts.adapter is None else adapter_settings(facts.adapter)["method"].lower()
    tags = [
        "lit_mem",
        "memorization",
        *([f"base_model:adapter:{base}"] if is_adapter else []),
        *([kind] if kind else []),
    ]
    head: dict[str, Any] = {
        "base_model": base,
        "library_name": "peft" if is_adapter else "transformers",
        "pipeline_tag": "text-generation",
        "tags": [*tags, *(["transformers"] if is_adapter else [])],
    }
    if not is_adapter:
        head["base_model_relation"] = "finetune"
    if facts.data and not is_local(facts.data) and "/" in facts.data:
        head["datasets"] = ["/".join(facts.data.split("/")[:2])]
    if line is not None and (metrics := list(_of_index(line))):
        name = public_name(facts.data) if facts.data else "fine-tuning texts"
        dataset = {"name": name, "type": re.sub(r"[^\w.\-/]+", "-", name)}
        task = {"type": "text-generation", "name": "Memorization of the fine-tuning texts"}
        results = [{"task": task, "dataset": dataset, "metrics": metrics}]
        head["model-index"] = [{"name": f"{base.rpartition('/')[2]}-{kind or 'finetuned'}", "results": results}]
    return head


def _names(line: Line) -> list[str]:
    """Names of the metrics listed in the card, in order."""
    limits = [threshold.name for one in line.stop for threshold in Rule.of_record(one).limits]
    own = sorted(line.metrics)
    ends = {f"{name}_{end}" for name in own for end in ("low", "high")}
    shown = [name for pattern in _METRICS for name in own if fnmatchcase(name, pattern) and name not in ends]
    return [name for name in dict.fromkeys([*shown, *limits]) if name in line.metrics]


def _of_index(line: Line) -> Iterator[dict[str, Any]]:
    for name in _names(line):
        if math.isfinite(line.metrics[name]):
            ends = {end: line.metrics[f"{name}_{end}"] for end in ("low", "high") if f"{name}_{end}" in line.metrics}
            args = {f"interval_95_{end}": value for end, value in ends.items() if math.isfinite(value)}
            metric = {"type": name, "value": float(line.metrics[name]), "name": _explained(name)[0]}
            yield metric | ({"args": args} if args else {})


def _title(facts: Facts) -> str:
    base = public_name(facts.base)
    what = "an adapter of" if facts.form == "adapter" else "fine-tuned from"
    return f"# {base}, fine-tuned\n\nThis is {what} `{base}`, with memorization metrics measured by `lit_mem`."


def _model(line: Line | None, facts: Facts) -> str:
    prints = ", ".join(f"{name} `{digest}`" for name, digest in facts.fingerprint.items() if digest)
    rows = {
        "Base model": f"`{public_name(facts.base)}`" + (f", revision `{facts.revision}`" if facts.revision else ""),
        "Fingerprint of the base": prints,
        "Fine-tuned on": _data(facts),
        "Adapter": "" if facts.adapter is None else _listed(adapter_settings(facts.adapter)),
        "Form": {"merged": "the adapter is merged into the base", "model": "all weights are here"}.get(facts.form, ""),
        "Training": _listed(facts.training),
        "Weights": "" if line is None else f"after epoch {line.epoch}, step {line.step:,}",
        "Differential privacy": _privacy(facts),
    }
    body = "\n".join(f"| {name} | {value} |" for name, value in rows.items() if value)
    return f"## Model\n\n| | |\n| --- | --- |\n{body}"


def _data(facts: Facts) -> str:
    counts = [f"{n:,} {what}" for n, what in ((facts.members, "texts (members)"), (facts.heldout, "held out")) if n]
    name = [f"`{public_name(facts.data)}`"] if facts.data else []
    return ": ".join([*name, ", ".join(counts)] if counts else name)


def _privacy(facts: Facts) -> str:
    if facts.privacy is None:
        return "none: training was not private"
    epsilon, delta = facts.privacy
    return f"ε = {shown(epsilon)} at δ = {delta:.3g}, DP-SGD, for one row of the training set"


def _listed(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} `{value}`" for name, value in options.items())


def _measured(line: Line | None, facts: Facts) -> Iterator[str]:
    if line is None:
        yield "## Memorization\n\nNot measured: no pass has scored these weights."
        return
    state, judged = state_of(line)
    if state is not None:
        rows = "\n".join(f"| `{one.threshold}` | {_valued(one)} | {_STATES[one.state]} |" for one in judged)
        yield (
            f"## Limits\n\nOverall: {_STATES[state]}. A limit is judged by the metric's whole 95 % interval, if it "
            "has one: *undecided* means that the limit lies within it.\n\n"
            f"| not to be | measured | |\n| --- | --- | --- |\n{rows}"
        )
    rows = "\n".join(_row(name, line.metrics) for name in _names(line))
    head = "| metric | value | 95 % interval | |\n| --- | --- | --- | --- |"
    found = "".join(f"\n\n**Warning.** {warning}" for warning in facts.warnings)
    yield f"## Memorization\n\n{_how(line, facts)}{found}\n\n{head}\n{rows}"


def _valued(one: Judged) -> str:
    return shown(one.value) + _interval(one.low, one.high)


def _interval(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f" [{shown(low)}, {shown(high)}]"


def _row(name: str, metrics: Mapping[str, float]) -> str:
    low, high = metrics.get(f"{name}_low"), metrics.get(f"{name}_high")
    interval = ends_shown(name, metrics[name], low, high) or _interval(low, high).strip()
    title, meaning = _explained(name)
    words = ": ".join(part for part in (title, meaning) if part and part != name)
    return f"| `{name}` | {shown(metrics[name])} | {interval} | {words} |"


def _explained(name: str) -> tuple[str, str]:
    """Title and meaning of a metric; for a held-out or base variant, derived from the members' metric.

    >>> _explained("extraction/exact_rate_heldout")[0]
    'Whole suffix extracted, held-out texts'
    """
    title, meaning = explained(name)
    for end, side in (("_heldout", "held-out texts"), ("_base", "base model on members")):
        stem = explained(name.removesuffix(end))[0]
        if title == name and name.endswith(end) and stem.endswith(", members"):
            return stem.removesuffix("members") + side, "the same"
    return title, meaning


def _how(line: Line, facts: Facts) -> str:
    def side(scored: int | None, of: int | None, what: str) -> str:
        total = "" if of is None or of == scored else f" of {of:,}"
        return "" if scored is None else f"{scored:,}{total} {what}"

    sides = [side(line.members, facts.members, "members"), side(line.heldout, facts.heldout, "held-out texts")]
    counted = " and ".join(part for part in sides if part)
    against = {"adapter off": "the base with the adapter off", "copy": "a frozen copy of the reference model"}
    reference = against.get(facts.reference)
    return (
        f"Measured by lit_mem {lit_mem.__version__} in the validation of these weights"
        + (f", on {counted}" if counted else "")
        + ". Members were trained on; held-out texts were not, and should be of the same kind. Every AUROC "
        "counts members as positive: 0.5 is chance level, 1 is perfect separation."
        + (f" The reference attack compares with {reference}." if reference else "")
        + ("" if line.complete else " The pass was interrupted: not every measure was computed.")
    )


def _tested(line: Line | None, facts: Facts) -> str:
    names = set() if line is None else set(line.metrics)
    attacks = sorted({found[1] for name in names if (found := re.fullmatch(r"mia/(.+)_auroc", name))})
    tests = {
        f"membership inference ({', '.join(attacks)})" if attacks else "membership inference": bool(attacks),
        "extraction: members' prefixes, continued by greedy decoding": "extraction/ngram_rate" in names,
        "extraction of marked spans": "extraction/span_rate" in names,
        "canaries: synthetic secrets inserted into the training set at random": "canary/auroc" in names,
        "a lower bound on ε from canaries": "audit/epsilon_lower_bound" in names,
        "training with differential privacy": facts.privacy is not None,
        "individual subgroups of the texts": any(name.startswith("slice/") for name in names),
    }
    yes = [f"- {what}" for what, done in tests.items() if done]
    no = [f"- {what}" for what, done in tests.items() if not done]
    no.append("- prompts other than a text's own beginning, instructions, jailbreaks, and further fine-tuning")
    return "\n".join(["## Tested", "", *(yes or ["Nothing."]), "", "## Not tested", "", *no])


def _loading(facts: Facts) -> str:
    where, local = "path/to/this/folder", is_local(facts.base)
    lines = []
    if facts.form == "adapter" and facts.adapter is not None:
        base = f"path/to/{public_name(facts.base)}" if local else public_name(facts.base)
        lines += [
            "from peft import PeftModel",
            "from transformers import AutoModelForCausalLM, AutoTokenizer",
            "",
            f'base = AutoModelForCausalLM.from_pretrained("{base}")',
            f'model = PeftModel.from_pretrained(base, "{where}")',
        ]
    else:
        lines += ["from transformers import AutoModelForCausalLM, AutoTokenizer", ""]
        lines += [f'model = AutoModelForCausalLM.from_pretrained("{where}")']
    if facts.tokenizer:
        lines.append(f'tokenizer = AutoTokenizer.from_pretrained("{where}")')
    code = "\n".join(lines)
    return f"## How to load it\n\n```python\n{code}\n```\n\n{_vllm(facts)}"


def _vllm(facts: Facts) -> str:
    if facts.form != "adapter" or facts.adapter is None:
        return "vLLM: `vllm serve path/to/this/folder`, if vLLM supports the architecture of the base model."
    if obstacles := vllm_obstacles(facts.adapter):
        advice = "; merge it into the base first" if can_merge(facts.adapter) else ""
        return f"vLLM does not load this adapter ({'; '.join(obstacles)}){advice}."
    options = f"--enable-lora --max-lora-rank {vllm_rank(facts.adapter)} --lora-modules name=path/to/this/folder"
    return f"vLLM: `{options}`, if vLLM supports LoRA for the architecture of the base model."

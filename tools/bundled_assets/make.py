"""Rebuild the bundled assets: `python -m tools.bundled_assets.make --seed 0`.

The corpus is reproduced byte for byte on any machine. The weights are reproduced on the same machine with the same
version of PyTorch; elsewhere they agree up to rounding.
"""

import argparse
import hashlib
import itertools
import json
import logging
import math
import platform
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tools.bundled_assets import corpus

logger = logging.getLogger(__name__)

HERE = Path(__file__).parents[2] / "lit_mem" / "assets"
N_PRETRAINING_TEXTS = 60_000
N_EVALUATION_TEXTS = 1_000
N_THREADS = 1  # so that the weights do not depend on the number of cores


def write_corpus(out: Path, seed: int) -> None:
    """Write the splits of the case reports to `out/case_reports`, and the notes to `out/notes`."""
    folder = out / "case_reports"
    folder.mkdir(parents=True, exist_ok=True)
    for split, rows in corpus.case_reports(seed).items():
        (folder / f"{split}.jsonl").write_bytes(corpus.to_jsonl(rows).encode("ascii"))
    (out / "notes").mkdir(exist_ok=True)
    (out / "notes" / "notes.jsonl").write_bytes(corpus.to_jsonl(corpus.notes(seed)).encode("ascii"))


def pretraining_split(seed: int) -> tuple[list[corpus.Text], list[corpus.Text]]:
    """Draw the pretraining texts, and evaluation texts.

    Returns:
        N_PRETRAINING_TEXTS to train on; N_EVALUATION_TEXTS of the same kind, none of them among
        the first.
    """
    avoid = corpus.case_patients(seed, sum(corpus.SPLIT_SIZES.values()))
    stream = corpus.pretraining_texts(seed, avoid=avoid)
    training = list(itertools.islice(stream, N_PRETRAINING_TEXTS))
    seen = {text.text for text in training}
    fresh = (text for text in stream if text.text not in seen)
    return training, list(itertools.islice(fresh, N_EVALUATION_TEXTS))


def write_model(out: Path, seed: int, steps: int | None) -> dict[str, Any]:
    """Train tokenizer and model, write them to `out/tiny_llama`, and return its metrics.

    Returns:
        The manifest's entry about the model, measured on the stored weights.
    """
    # PyTorch and transformers load slowly, and --corpus-only needs neither.
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from tools.bundled_assets import pretrain

    torch.set_num_threads(N_THREADS)
    schedule = pretrain.Schedule() if steps is None else pretrain.Schedule(steps=steps)
    training, evaluation = pretraining_split(seed)
    started = time.perf_counter()
    tokenizer = pretrain.train_tokenizer(text.text for text in training)
    examples = pretrain.encode(tokenizer, [text.text for text in training])
    model, losses = pretrain.pretrain(examples, schedule, seed)
    seconds = time.perf_counter() - started
    folder = out / "tiny_llama"
    pretrain.save(model, tokenizer, folder)

    stored = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    reloaded = AutoTokenizer.from_pretrained(folder)
    reports = corpus.case_reports(seed)
    held_out = pretrain.encode(reloaded, [text.text for text in evaluation])
    n_predicted = sum(map(len, held_out)) - len(held_out)
    return {
        "parameters": sum(p.numel() for p in stored.parameters()),
        "pretraining": {
            "texts": len(training),
            "tokens_per_text": round(sum(map(len, examples)) / len(examples), 1),
            **schedule._asdict(),
            "final_loss": round(sum(losses[-50:]) / len(losses[-50:]), 4),
            "seconds": round(seconds),
        },
        "perplexity": {
            "pretraining_heldout": pretrain.perplexity(stored, held_out),
            # No model is better on average than the entropy of the draws.
            "pretraining_heldout_entropy_bound": math.exp(sum(text.nats for text in evaluation) / n_predicted),
            **{
                f"case_reports_{split}": pretrain.perplexity(
                    stored, pretrain.encode(reloaded, [row["text"] for row in rows])
                )
                for split, rows in reports.items()
            },
        },
        "versions": {
            "torch": torch.__version__,
            **{name: version(name) for name in ("transformers", "tokenizers", "safetensors")},
        },
    }


def write_manifest(out: Path, seed: int, model: dict[str, Any] | None) -> None:
    """Write `out/manifest.json`: what was built, from what, and the SHA-256 of each file.

    With `model=None` the model's entry in an existing manifest is kept.
    """
    target = out / "manifest.json"
    if model is None and target.exists():
        model = json.loads(target.read_text()).get("model")
    files = {
        file.relative_to(out).as_posix(): {
            "bytes": file.stat().st_size,
            "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        }
        for name in ("case_reports", "notes", "tiny_llama")
        for file in sorted((out / name).glob("*"))
    }
    manifest = {
        "made_by": "python -m tools.bundled_assets.make",
        "seed": seed,
        "python": platform.python_version(),
        "rows": {**corpus.SPLIT_SIZES, "notes": corpus.N_NOTES},
        "model": model,
        "files": files,
    }
    target.write_bytes((json.dumps(manifest, indent=2) + "\n").encode("ascii"))


def main(argv: list[str] | None = None) -> None:
    """Read the command line and rebuild."""
    parser = argparse.ArgumentParser(prog="python -m tools.bundled_assets.make", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="seed of corpus and weights")
    parser.add_argument("--out", type=Path, default=HERE, help="folder to write to")
    parser.add_argument("--steps", type=int, help="optimizer steps (default: the full schedule)")
    parser.add_argument("--corpus-only", action="store_true", help="keep the existing model")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    write_corpus(args.out, args.seed)
    model = None if args.corpus_only else write_model(args.out, args.seed, args.steps)
    write_manifest(args.out, args.seed, model)
    logger.info("wrote %s", args.out)


if __name__ == "__main__":
    main()

"""Lesson 4: audit an adapter that is finished, whoever trained it: what did it memorize of its training texts?

You learn to measure with no trainer, to judge by a limit, to find the most exposed texts, and to write the report.
Offline, about half a minute on a CPU: python audit_finished_model.py [folder of an adapter of the same base]
"""

import json
import sys

import torch
from peft import AutoPeftModelForCausalLM, LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

import lit_mem
from lit_mem import assets
from lit_mem.cli import report

# 1. Texts that the adapter was trained on (members) and texts that it was not (held-out), of other persons.
base, notes = str(assets.path("tiny_llama")), assets.path("notes") / "notes.jsonl"
rows = [json.loads(line) for line in notes.read_text("utf-8").splitlines()]
held_persons = set(sorted({row["person"] for row in rows})[::2])
texts = {
    "train": [row["text"] for row in rows if row["person"] not in held_persons],
    "heldout": [row["text"] for row in rows if row["person"] in held_persons],
}
tokenizer = AutoTokenizer.from_pretrained(base)

# 2. A finished adapter: yours, if you give its folder; else one that this plain loop trains.
adapter = sys.argv[1] if len(sys.argv) > 1 else "logs/finished_adapter"
if len(sys.argv) == 1:
    torch.manual_seed(0)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), LoraConfig(r=8, target_modules="all-linear"))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for text in texts["train"] * 2:
        ids = tokenizer(text, return_tensors="pt")["input_ids"]
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(adapter)

# 3. The audit, in one call: the base model without the adapter is what membership is judged against.
result = lit_mem.audit(adapter, members=texts["train"], heldout=texts["heldout"], limits="mia/reference_auroc > 0.7")
print(result)  # the main metrics, and whether the adapter is within the limit

# 4. The most exposed texts, by file and row: a table without the texts themselves.
print(result.to_pandas().sort_values("mia/reference").tail(3)[["origin", "set", "mia/reference"]])

# 5. The same adapter in plain peft, as whoever gets it uses it: does it complete a text of a member?
tuned = AutoPeftModelForCausalLM.from_pretrained(adapter)
ids = tuned.generate(**tokenizer(texts["train"][0][:60], return_tensors="pt"), max_new_tokens=24, do_sample=False)
print("The tuned model writes:", tokenizer.decode(ids[0], skip_special_tokens=True))

# 6. The report: a page, a JSON file and an annex to file.
report.main([str(result.folder)])
print(f"Open it: python -m webbrowser {result.folder}/report.html")

"""Audit a finished adapter: what has it memorized of its training texts? Runs offline on bundled assets.

Pass the folder of your own adapter for that base as an argument to audit it instead.
"""

import json
import sys

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

import lit_mem
from lit_mem import assets

base, tokenizer = str(assets.path("tiny_llama")), AutoTokenizer.from_pretrained(assets.path("tiny_llama"))
texts = {  # synthetic case reports as lists of texts; rows, conversations, a Dataset or a file work too
    name: [
        json.loads(row)["text"] for row in (assets.path("case_reports") / f"{name}.jsonl").read_text().splitlines()[:60]
    ]
    for name in ("train", "heldout")
}
adapter = sys.argv[1] if len(sys.argv) > 1 else "logs/finished_adapter"
if len(sys.argv) == 1:  # fine-tune one first, in a plain loop
    torch.manual_seed(0)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), LoraConfig(r=8, target_modules="all-linear"))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for text in texts["train"] * 2:
        ids = tokenizer(text, return_tensors="pt")["input_ids"]
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(adapter)

result = lit_mem.audit(adapter, members=texts["train"], heldout=texts["heldout"], limits="mia/reference_auroc > 0.7")
print(result)  # the main metrics, and whether the adapter is within the limit
print(result.to_pandas().sort_values("mia/reference").tail(3)[["origin", "set", "mia/reference"]])

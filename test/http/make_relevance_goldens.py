"""Makes test/http/relevance_goldens.json: embeddings, likelihoods and yes against no, by transformers in float32.

    python -m venv venv && venv/bin/pip install torch transformers
    venv/bin/python test/http/make_relevance_goldens.py

Running it again gives the same bytes. Embeddings are the pooled last hidden states, divided by their length; a likelihood is the
geometric mean of the probabilities of the query's tokens behind the document's; yes against no is p(yes) / (p(yes) + p(no)).
"""

import json
from pathlib import Path

import torch
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

ROOT = Path(__file__).resolve().parents[2]
OUT = Path(__file__).with_name("relevance_goldens.json")
QUERY = "The king had three sons."
TEXTS = [
    "Once upon a time there was a king who had three sons, and the youngest was called Simpleton.",
    "The ship sailed over the sea, and the storm broke its mast in two.",
    "A king!",
    "Two cats sat on the wall 😀 and spoke of mice. " * 6,
]


def round_all(values):
    return [float(f"{value:.7g}") for value in values]


def main():
    torch.set_num_threads(1)
    folder = ROOT / "models" / "tales"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    base = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    def encode(text):
        return tokenizer(text, add_special_tokens=False).input_ids

    def log_probabilities(ids):
        return model(torch.tensor([ids])).logits[0].log_softmax(-1)

    golden = {"query": QUERY, "texts": TEXTS, "mean": [], "last": [], "likelihood": [], "yes_no": []}
    with torch.no_grad():
        for text in TEXTS:
            hidden = base(torch.tensor([encode(text)])).last_hidden_state[0]
            for name, pooled in (("mean", hidden.mean(0)), ("last", hidden[-1])):
                golden[name].append(round_all((pooled / pooled.norm()).tolist()))
            document, query = encode(f"Passage: {text}\nQuery:"), encode(f" {QUERY}")
            scores = log_probabilities(document + query)
            own = [scores[len(document) + i - 1, token] for i, token in enumerate(query)]
            golden["likelihood"].append(float(torch.stack(own).mean().exp()))
            question = f"Passage: {text}\nQuery: {QUERY}\nDoes the passage answer the query? Answer yes or no.\nAnswer:"
            yes, no = (log_probabilities(encode(question))[-1, encode(word)[0]] for word in (" yes", " no"))
            golden["yes_no"].append(float(torch.sigmoid(yes - no)))
    OUT.write_text(json.dumps(golden, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()

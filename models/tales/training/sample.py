"""Samples from the shipped weights, unedited, and how many of a hundred end well."""

import argparse
import json

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

SEED, LIMIT = 1, 400
SETTINGS = dict(do_sample=True, temperature=0.9, top_p=0.9, top_k=0)

SHOWN = (
    "Once upon a time there was a king who had three sons.",
    [{"role": "user", "content": "Tell me a story about a cat."}],
    [{"role": "user", "content": "Good morning! Where are you going?"}],
)

PLAIN = (
    "Once upon a time",
    "The old woman opened the door.",
    "There was once a poor miller who had a daughter.",
    "One morning the captain came on deck.",
    "It was a dark night, and the wind blew.",
)
CHATS = (
    "Tell me a story.",
    "Tell me a story about a king.",
    "Tell me a story about a dog.",
    "Can you tell me a story about the sea?",
    "Who are you?",
)


def balanced(text, ended):
    """Whether double quotes pair in every paragraph; one cut off at the limit does not count."""
    paragraphs = text.split("\n\n")
    return all(p.count('"') % 2 == 0 for p in (paragraphs if ended else paragraphs[:-1]))


class Teller:
    def __init__(self, folder):
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    def encode(self, prompt):
        if not isinstance(prompt, str):
            prompt = self.tokenizer.apply_chat_template(
                prompt, tokenize=False, add_generation_prompt=True
            )
        return prompt, self.tokenizer(prompt, return_tensors="pt")

    def tell(self, prompt, count, seed):
        """(prompt text, [(new text, whether it ended by itself)])."""
        torch.manual_seed(seed)
        text, inputs = self.encode(prompt)
        outputs = self.model.generate(
            input_ids=inputs["input_ids"].repeat(count, 1),
            attention_mask=inputs["attention_mask"].repeat(count, 1),
            max_new_tokens=LIMIT,
            **SETTINGS,
        )
        new = outputs[:, inputs["input_ids"].shape[1] :]
        ended = [(row == self.tokenizer.eos_token_id).any().item() for row in new]
        texts = self.tokenizer.batch_decode(new, skip_special_tokens=True)
        return text, list(zip(texts, ended))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="folder of the model")
    parser.add_argument("--out", help="JSON file for the statistics; without it only the samples")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    teller = Teller(options.model)

    for prompt in SHOWN:
        text, [(new, ended)] = teller.tell(prompt, 1, SEED)
        print(f"--- prompt\n{text}\n--- continuation\n{new}\n--- ended: {ended}\n", flush=True)
    if not options.out:
        return

    statistics = {"seed": SEED, "limit": LIMIT, **SETTINGS}
    chats = [[{"role": "user", "content": c}] for c in CHATS]
    for name, prompts in (("plain", PLAIN), ("chat", chats)):
        told = [t for i, p in enumerate(prompts) for t in teller.tell(p, 10, SEED + i)[1]]
        statistics[name] = {
            "samples": len(told),
            "ended": sum(ended for _, ended in told),
            "with_quotes": sum('"' in text for text, _ in told),
            "with_quotes_and_balanced": sum('"' in t and balanced(t, e) for t, e in told),
        }
        print(name, json.dumps(statistics[name]), flush=True)
    with open(options.out, "w", encoding="utf-8") as file:
        json.dump(statistics, file, indent=2)
        file.write("\n")


if __name__ == "__main__":
    main()

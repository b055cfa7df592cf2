"""Makes test/generation/beam_goldens.json: beam searches by transformers on the tiny checkpoints in test/fixtures.

    python -m venv venv && venv/bin/pip install torch transformers
    venv/bin/python test/generation/make_beam_goldens.py

Running it again gives the same bytes. A search is kept only if float64 and float32 find the same beams in the same order, so that no
rounding decides; the scores are those of float64, rounded to float32.
"""

import json
from itertools import product
from pathlib import Path

import torch
import transformers
from transformers import AutoModelForCausalLM

ROOT = Path(__file__).resolve().parents[2]
OUT = ROOT / 'test' / 'generation' / 'beam_goldens.json'
PROMPTS = [[271], [12, 250, 77, 31, 8], [100, 101, 102, 40, 41, 299, 7, 5, 3, 200, 201, 17]]
MAX_TOKENS = 20


def search(model, prompt, beams, length_penalty, early_stopping, ends):
    ids = torch.tensor([prompt])
    found = model.generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=False, num_beams=beams, num_return_sequences=beams, max_new_tokens=MAX_TOKENS,
        length_penalty=length_penalty, early_stopping=early_stopping, eos_token_id=ends, pad_token_id=-1, return_dict_in_generate=True,
        output_scores=True,
    )
    sequences = []
    for row in found.sequences[:, len(prompt) :].tolist():
        length = next((i + 1 for i, token in enumerate(row) if token in ends), MAX_TOKENS)
        sequences.append(row[:length])
    return sequences, found.sequences_scores.float().tolist()


def main():
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    searches, dropped = [], 0
    for name in ['neox-parallel', 'neox-sequential']:
        path = ROOT / 'test' / 'fixtures' / name
        exact, single = (AutoModelForCausalLM.from_pretrained(path, dtype=dtype).eval() for dtype in (torch.float64, torch.float32))
        for model in (exact, single):
            model.generation_config = transformers.GenerationConfig()
        # Tokens that come up often end a beam, else all beams would run to the last token.
        for prompt, beams, length_penalty, early_stopping in product(PROMPTS, [2, 4, 7], [1.0, 0.0, 2.0, -1.0], [False, True, 'never']):
            ends = {'neox-parallel': [192, 90], 'neox-sequential': [3]}[name] if beams < 7 else [289]
            arguments = (prompt, beams, length_penalty, early_stopping, ends)
            (tokens, scores), (same, _) = search(exact, *arguments), search(single, *arguments)
            if tokens != same:
                dropped += 1
                continue
            searches.append(dict(model=f'test/fixtures/{name}', prompt=prompt, num_beams=beams, length_penalty=length_penalty,
                                 early_stopping=early_stopping, ends=ends, max_tokens=MAX_TOKENS, tokens=tokens, scores=scores))
    lengths = sorted({len(tokens) for search in searches for tokens in search['tokens']})
    print(len(searches), 'searches,', dropped, 'dropped, lengths', lengths)
    lines = ',\n'.join('    ' + json.dumps(search) for search in searches)
    OUT.write_text(f'{{\n  "transformers": "{transformers.__version__}",\n  "searches": [\n{lines}\n  ]\n}}\n')


if __name__ == '__main__':
    main()

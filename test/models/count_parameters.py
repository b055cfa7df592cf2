"""Counts the parameters of every row of src/models/known-checkpoints.ts with transformers, from its config alone.

    npm run setup && python3 test/models/count_parameters.py

Needs torch and transformers (5.18 made the committed file). The models are built on the meta device, which keeps no numbers. Writes
goldens/parameters.json, id -> count, against which memory.test.ts holds Parley's own counts.
"""

import json
import subprocess
from pathlib import Path

import torch
import transformers

here = Path(__file__).resolve().parent
module = here.parent.parent / 'dist/models/known-checkpoints.js'
script = f'import({json.dumps(module.as_uri())}).then((m) => console.log(JSON.stringify(m.knownCheckpoints)))'


def count(config: dict) -> int:
    (name,) = config['architectures']
    fields = {key: value for key, value in config.items() if key != 'architectures'}
    if 'text_config' in fields:  # the text side alone is served
        name, fields = name.replace('ForConditionalGeneration', 'ForCausalLM'), fields['text_config']
    model_class = getattr(transformers, name)
    with torch.device('meta'):
        model = model_class(model_class.config_class(**fields))
    model.tie_weights()
    total = sum(parameter.numel() for parameter in model.parameters())
    # transformers 5 ties every T5 by its config and unties those whose checkpoint stores an unembedding, as these do.
    unembedding = model.get_output_embeddings().weight
    if fields.get('tie_word_embeddings') is False and unembedding is model.get_input_embeddings().weight:
        total += unembedding.numel()
    if name == 'OPTForCausalLM':  # two rows in front of the table of positions that no position uses
        total -= 2 * fields['hidden_size']
    return total


checkpoints = json.loads(subprocess.run(['node', '-e', script], check=True, capture_output=True, text=True).stdout)
counts = {}
for checkpoint in checkpoints:
    name = checkpoint['id']
    counts[name] = count(checkpoint['config'])
    print(f'{counts[name] / 1e9:9.3f} B  {name}', flush=True)
(here / 'goldens/parameters.json').write_text(json.dumps(counts, indent=2) + '\n')

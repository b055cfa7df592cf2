"""Makes test/fixtures/torch: the weights of test/fixtures/neox-parallel as every kind of pytorch_model.bin, and odd tensors.

    venv/bin/python test/models/make_torch_files.py   # after make_goldens.py; the same environment

torch.save names storages in the legacy format after memory addresses, so those files differ from run to run; their numbers do not.
"""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file

FIXTURES = Path(__file__).resolve().parents[1] / 'fixtures'
OUT = FIXTURES / 'torch'
FORMATS = {'zip': True, 'legacy': False}


def main():
    OUT.mkdir(exist_ok=True)
    state = load_file(FIXTURES / 'neox-parallel' / 'model.safetensors')
    # What Pythia's files of 2023 hold beside the weights.
    for layer in range(2):
        prefix = f'gpt_neox.layers.{layer}.attention.'
        state[prefix + 'bias'] = torch.ones(16, 16, dtype=torch.bool).tril().view(1, 1, 16, 16)
        state[prefix + 'masked_bias'] = torch.tensor(-1e9)
        state[prefix + 'rotary_emb.inv_freq'] = torch.ones(2)
    state = torch.nn.Module.state_dict(holder(state))  # an OrderedDict with _metadata, as a model's own
    for name, zipped in FORMATS.items():
        save(state, OUT / f'{name}.bin', zipped)
        save(odd_tensors(), OUT / f'odd-{name}.bin', zipped)
    write_shards(state)


def holder(state):
    """A module whose state_dict is `state`: tensors with dots in their names are not allowed in a flat one."""
    root = torch.nn.Module()
    for name, tensor in state.items():
        module = root
        *path, last = name.split('.')
        for part in path:
            if part not in module._modules:
                module.add_module(part, torch.nn.Module())
            module = module._modules[part]
        module.register_buffer(last, tensor)
    return root


def odd_tensors():
    """Views, shared storages and types that a file of weights can hold."""
    base = torch.arange(24, dtype=torch.float32)
    return {
        'matrix': base.view(4, 6),
        'rows': base.view(4, 6)[1:3],
        'turned': base.view(4, 6).t(),
        'column': base.view(4, 6)[:, 2],
        'one row': base.view(4, 6)[3:4],
        'spread': torch.ones(1).expand(5),
        'scalar': torch.tensor(1.5),
        'empty': torch.zeros(0, 7),
        'half': torch.ones(3, dtype=torch.float16),
        'brain': torch.ones(3, dtype=torch.bfloat16),
        'double': torch.ones(2, dtype=torch.float64),
        'long': torch.tensor([2**40, -1]),
        'mask': torch.ones(2, 2, dtype=torch.bool),
        'parameter': torch.nn.Parameter(torch.full((3,), 2.0)),
    }


def write_shards(state):
    """Two shards with the other generation of the format each, as nobody would, but an index allows."""
    names = sorted(state)
    shards = {'pytorch_model-00001-of-00002.bin': names[::2], 'pytorch_model-00002-of-00002.bin': names[1::2]}
    for (file, members), zipped in zip(shards.items(), FORMATS.values()):
        save({name: state[name] for name in members}, OUT / file, zipped)
    index = {'metadata': {'total_size': 0}, 'weight_map': {name: file for file, members in shards.items() for name in members}}
    (OUT / 'pytorch_model.bin.index.json').write_text(json.dumps(index, indent=1) + '\n')


def save(state, path, zipped):
    torch.save(state, path, _use_new_zipfile_serialization=zipped)
    path.chmod(0o644)


if __name__ == '__main__':
    main()

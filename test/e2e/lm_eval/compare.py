"""lm-evaluation-harness against Parley and against its own Hugging Face backend: the same scores, request by request.

    pip install 'lm_eval[api,hf]' datasets
    python test/e2e/lm_eval/compare.py [--model FOLDER]

Run it from the repository's root, when `npm start` or `npm test` has built the server. It starts a server of its own in float32, needs
no network, and skips itself where the harness is not installed. Exit code 1: something differs.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", TOKENIZERS_PARALLELISM="false")

try:
    import lm_eval
    from lm_eval.tasks import TaskManager
    import lm_eval.models.huggingface
    import lm_eval.models.openai_completions
except ImportError as error:
    print(f"skipped: lm-evaluation-harness is not installed ({error})")
    sys.exit(0)

HERE = Path(__file__).parent
SCORED = ["parley_endings", "parley_last_words", "parley_passages"]
WRITTEN = ["parley_continue"]


def serve(model):
    """A server in float32. Returns its process and, once it is ready, its address."""
    command = ["node", "dist/main.js", "serve", "--model", model, "--dtype", "float32", "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    output = ""
    for line in process.stdout:
        output += line
        if line.startswith("ready"):
            return process, re.search(r"http://127\.0\.0\.1:\d+", output).group()
    raise SystemExit(f"the server did not start: {output}")


def run(backend, arguments, tasks, **more):
    return lm_eval.simple_evaluate(
        model=backend,
        model_args=arguments,
        tasks=tasks,
        task_manager=TaskManager(include_path=str(HERE), include_defaults=False),
        log_samples=True,
        bootstrap_iters=0,
        verbosity="ERROR",
        **more,
    )


def responses(results, task):
    samples = sorted(results["samples"][task], key=lambda sample: sample["doc_id"])
    return [response for sample in samples for response in sample["resps"]]


def metrics(results, task):
    return {name: value for name, value in results["results"][task].items() if isinstance(value, float)}


def compare(name, expected, found, tasks):
    """Prints both sides' scores. Returns how many responses and metrics differ."""
    wrong = 0
    for task in tasks:
        pairs = list(zip(responses(expected, task), responses(found, task), strict=True))
        different, distance = 0, 0.0
        for (a, *_), (b, *_) in pairs:
            if isinstance(a, str):
                different += a != b
                continue
            # (log-likelihood, is greedy), or the log-likelihood alone
            (a, *a_greedy), (b, *b_greedy) = ([*x] if isinstance(x, (tuple, list)) else [x] for x in (a, b))
            distance = max(distance, abs(a - b))
            different += abs(a - b) > 1e-3 or a_greedy != b_greedy
        print(f"{name}: {task}, {len(pairs)} responses, {different} differ, log-likelihoods by {distance:.1e} at most")
        for metric, value in metrics(expected, task).items():
            other = metrics(found, task)[metric]
            different += abs(value - other) > 1e-5 * max(1, abs(value))
            print(f"    {metric:24} Hugging Face {value:.6f}   Parley {other:.6f}", flush=True)
        wrong += different
    return wrong


def without_max_new_tokens(model, folder):
    """The same checkpoint. The harness's Hugging Face backend would let max_new_tokens of generation_config.json overrule the task's."""
    for file in Path(model).resolve().iterdir():
        (Path(folder) / file.name).symlink_to(file)
    config = Path(folder) / "generation_config.json"
    if config.exists():
        values = json.loads(config.read_text())
        values.pop("max_new_tokens", None)
        config.unlink()
        config.write_text(json.dumps(values))
    return folder


def compare_all(model, url, name):
    hf = f"pretrained={model},dtype=float32,softmax_dtype=float32"
    completions = f"model={name},base_url={url}/v1/completions"
    local = f"{completions},tokenizer={model}"
    one_by_one, concurrent, batched = "num_concurrent=1", "num_concurrent=8", "num_concurrent=4,batch_size=16"
    wrong = 0

    def scores(window):
        return run("hf", f"{hf},max_length={window}", SCORED, device="cpu", batch_size=8)

    # A window that every text fits in, and one that cuts. The harness's API client keeps 2 tokens less than its max_length.
    for window in (1022, 200):
        expected = scores(window)
        for how in (one_by_one, concurrent, batched):
            found = run("local-completions", f"{local},max_length={window + 2},{how}", SCORED)
            wrong += compare(f"window {window}, {how}", expected, found, SCORED)
        if window == 1022:
            found = run("local-completions", f"{completions},max_length=1024,{concurrent}", SCORED)
            wrong += compare("the server's own tokenizer", expected, found, SCORED)
            found = run("local-completions", f"{local},max_length=1024,tokenized_requests=False,{concurrent}", SCORED)
            wrong += compare("prompts as text", expected, found, SCORED)
    # The whole context: prompts of one token more.
    found = run("local-completions", f"{local},max_length=1026,{concurrent}", SCORED)
    wrong += compare("window 1024", scores(1024), found, SCORED)

    expected = run("hf", hf, WRITTEN, device="cpu", batch_size=1)
    for how in (one_by_one, concurrent, batched):
        found = run("local-completions", f"{local},max_length=1024,{how}", WRITTEN)
        wrong += compare(f"written, {how}", expected, found, WRITTEN)
    expected = run("hf", hf, WRITTEN, device="cpu", batch_size=1, apply_chat_template=True)
    chat = f"model={name},base_url={url}/v1/chat/completions,{concurrent}"
    found = run("local-chat-completions", chat, WRITTEN, apply_chat_template=True)
    return wrong + compare("chats", expected, found, WRITTEN)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="models/tales")
    given = parser.parse_args().model
    with tempfile.TemporaryDirectory() as folder:
        process, url = serve(given)
        try:
            wrong = compare_all(without_max_new_tokens(given, folder), url, Path(given).resolve().name)
        finally:
            process.terminate()
            process.wait()
    print("all equal" if wrong == 0 else f"{wrong} differ")
    sys.exit(int(wrong > 0))


if __name__ == "__main__":
    main()

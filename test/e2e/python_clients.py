"""The README's Python, as it stands there, against the bundled model; and the openai package's WebSocket clients.

    pip install 'openai[realtime]' anthropic langchain-openai
    python test/e2e/python_clients.py

Run it from the repository's root, when `npm start` or `npm test` has built the server. It skips itself where openai is not installed, and
an example of another package where that is not.
Exit code 1: something failed.
"""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

try:
    import openai
except ImportError as error:
    print(f"skipped: {error}")
    sys.exit(0)

REALTIME = """
from openai import OpenAI

client = OpenAI(base_url="http://127.0.0.1:8000/v1", websocket_base_url="ws://127.0.0.1:8000/v1", api_key="none")
with client.realtime.connect(model="tales") as connection:
    content = [{"type": "input_text", "text": "Tell me a story."}]
    connection.conversation.item.create(item={"type": "message", "role": "user", "content": content})
    connection.response.create(response={"max_output_tokens": 20})
    for event in connection:
        if event.type == "response.output_text.delta":
            print(event.delta, end="")
        elif event.type == "response.done":
            assert event.response.status == "incomplete", event
            break
"""

RESPONSES = """
from openai import OpenAI

client = OpenAI(base_url="http://127.0.0.1:8000/v1", websocket_base_url="ws://127.0.0.1:8000/v1", api_key="none")
with client.responses.connect() as connection:
    connection.response.create(model="tales", input="Tell me a story.", max_output_tokens=20)
    for event in connection:
        if event.type == "response.output_text.delta":
            print(event.delta, end="")
        elif event.type in ("response.completed", "response.incomplete"):
            break
"""


def serve():
    """The bundled model's server. Returns its process and its port, once it is ready."""
    command = ["node", "dist/main.js", "serve", "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    output = ""
    for line in process.stdout:
        output += line
        if line.startswith("ready"):
            return process, re.search(r"http://127\.0\.0\.1:(\d+)", output)[1]
    sys.exit(f"the server ended:\n{output}")


def main():
    readme = Path("README.md").read_text(encoding="utf-8")
    examples = re.findall(r"^```python\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL)
    assert examples, "the README has no Python"
    server, port = serve()
    failed = 0
    try:
        for code in [*examples, REALTIME, RESPONSES]:
            package = re.search(r"^from (\w+) import", code, re.MULTILINE)[1]
            if importlib.util.find_spec(package) is None:
                print(f"skipped: {package} is not installed")
                continue
            run = subprocess.run([sys.executable, "-c", code.replace(":8000", f":{port}")], capture_output=True, text=True)
            good = run.returncode == 0 and len(run.stdout) >= 20
            print("ok" if good else f"FAILED\n{code}\n{run.stdout}\n{run.stderr}")
            failed += not good
    finally:
        server.terminate()
        server.wait()
    print(f"openai {openai.__version__}: {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

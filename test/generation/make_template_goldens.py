"""What transformers makes of the chat templates in test/fixtures/chat-templates: golden.json beside them.

    python test/generation/make_template_goldens.py

families/*.jinja are written after the templates that models of these families have, and use what those use. snippets.json is a list of
templates, each about one thing of Jinja or Python. Needs transformers (5.18 with jinja2 3.1.6 made the file) and makes the same each time.
"""

import datetime
import json
from pathlib import Path

import transformers.utils.chat_template_utils as chat

FOLDER = Path(__file__).parent.parent / "fixtures" / "chat-templates"
TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}


class FixedTime(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls(2026, 7, 4, 9, 5, 3)


chat.datetime = FixedTime


def conversation(*turns):
    roles = {"s": "system", "u": "user", "a": "assistant"}
    return [{"role": roles[turn[0]], "content": turn[1:]} for turn in turns]


CONVERSATIONS = {
    "one question": conversation("uHello"),
    "system": conversation("sBe brief.", "uHi there"),
    "many turns": conversation("sYou are X.", "ua", "ab", "uc", "ad", "ue"),
    "answered": conversation("ua", "ab"),
    "white space": conversation("s s ", "u\n a\n\nb \r\n", "a  b \t"),
    "unicode": conversation("s\ufeffbom\u2028x", "u\U0001f600 cafe\u0301 \u00a0", "a\u4f60\u597d\x85", "u\x1f end \ufeff"),
    "thoughts": conversation("uq", "a<think>\n hm \n</think>\n\n    code  \n", "ur", "a<think>\nx\n</think>\n  y"),
    "template text": conversation("uHe said \"x\" 'y' \\ {{ z }} {% if %} </s>"),
    "nothing": conversation("u", "a", "ux"),
    "two questions": conversation("ua", "ub"),
    "answer first": conversation("aa", "ub"),
    "late system": conversation("ua", "sb", "uc"),
}
OPTIONS = [{"add_generation_prompt": True}, {"add_generation_prompt": False}, {"continue_final_message": True}]


def outcome(render):
    try:
        return {"text": render()}
    except Exception as error:
        return {"error": str(error)[:200]}


def rendered(source, messages, options):
    texts, _ = chat.render_jinja_template([messages], chat_template=source, **options, **TOKENS)
    return texts[0]


golden = {"conversations": CONVERSATIONS, "families": [], "snippets": []}
for path in sorted((FOLDER / "families").glob("*.jinja")):
    source = path.read_bytes().decode()
    for name, messages in CONVERSATIONS.items():
        options = OPTIONS + ([{"add_generation_prompt": True, "enable_thinking": False}] if "enable_thinking" in source else [])
        for option in options:
            case = {"family": path.stem, "conversation": name, "options": option}
            golden["families"].append(case | outcome(lambda: rendered(source, messages, option)))
snippet_variables = {
    "messages": [{"role": "user", "content": " Hello é "}, {"role": "assistant", "content": "it's"}],
    "tools": None,
    "documents": None,
    "add_generation_prompt": True,
    **TOKENS,
}
golden["variables"] = snippet_variables
for source in json.loads((FOLDER / "snippets.json").read_text()):
    render = lambda: chat._compile_jinja_template(source).render(**snippet_variables)
    golden["snippets"].append({"source": source} | outcome(render))
(FOLDER / "golden.json").write_text(json.dumps(golden, ensure_ascii=False, indent=0) + "\n")
print(len(golden["families"]), "chats,", len(golden["snippets"]), "snippets")

"""Chat examples from the books: openings to continue, stories asked for, talk."""

import re

from clean import ENDS_SENTENCE

NOUNS = (
    "king queen prince princess giant witch wizard fairy dragon cat dog horse bear wolf fox "
    "lion tiger monkey elephant mouse rat rabbit bird eagle owl crow raven duck goose hen swan "
    "fish frog snake spider bee donkey goat sheep cow pig boy girl man woman mother father "
    "brother sister baby uncle aunt grandmother soldier sailor captain pirate hunter farmer "
    "miller shepherd tailor shoemaker fisherman merchant robber thief doctor teacher knight "
    "detective castle palace forest garden island mountain river sea ship boat train house "
    "tower cave well ring sword treasure gold letter clock lamp doll tree flower rose apple "
    "snow storm winter summer Christmas school village city dwarf mermaid ghost emperor servant "
    "beggar carpenter gardener"
).split()
NOUN = re.compile(r"\b(" + "|".join(NOUNS) + r")\b")

ASK_ABOUT = (
    "Tell me a story about {}.",
    "Tell me a story about {}.",
    "Tell me a story about {}",
    "Tell me a tale about {}.",
    "Tell me about {}.",
    "Write a story about {}.",
    "A story about {}, please.",
    "Please tell me a short story about {}.",
    "Can you tell me a story about {}?",
)
ASK = ("Tell me a story.", "Tell me a story", "Tell me another story.", "A story, please.")
OPENING = (
    "{}",
    "{}",
    "{}",
    "Continue: {}",
    "Continue this story: {}",
    "Tell me a story. {}",
    "Go on with this: {}",
)
GO_ON = ("Go on.", "And then?", "What happened then?", "Continue.", "Tell me more.", "What next?")
SYSTEM = (
    "You are a teller of tales.",
    "You are a helpful assistant.",
    "You tell short stories in plain English.",
    "Answer in plain English.",
    "You are Tales, a story teller.",
)

SENTENCE_END = re.compile(r"[.!?][\"')]*(?= [\"'(]?[A-Z])")


def render(turns, system=None):
    """The text of a conversation, as the chat template renders it."""
    text = f"<|system|>\n{system}\n" if system else ""
    for i, turn in enumerate(turns):
        text += f"<|assistant|>\n{turn}<|endoftext|>\n" if i % 2 else f"<|user|>\n{turn}\n"
    return text


def split_opening(paragraph, rng):
    """(first one or two sentences, rest), cut outside quotes; None if there is no such cut."""
    cuts = [m.end() for m in SENTENCE_END.finditer(paragraph)]
    cuts = [c for c in cuts[:3] if 20 <= c <= 300 and paragraph[:c].count('"') % 2 == 0]
    if not cuts:
        return None
    cut = rng.choice(cuts[:2])
    return paragraph[:cut], paragraph[cut:].strip()


def with_article(noun, rng):
    if noun in ("gold", "snow", "winter", "summer", "Christmas", "school"):
        return noun
    if rng.random() < 0.2:
        return "the " + noun
    return ("an " if noun[0] in "aeiou" else "a ") + noun


def story_chat(paragraphs, starts_chapter, rng):
    """A chat made of one passage, or None where the passage suits no form."""
    system = rng.choice(SYSTEM) if rng.random() < 0.12 else None
    head = " ".join(re.split(r"(?<=[.!?]) ", paragraphs[0])[:2])
    nouns = NOUN.findall(head)
    form = rng.random()
    if nouns and form < 0.6:
        ask = rng.choice(ASK_ABOUT).format(with_article(rng.choice(nouns), rng))
        turns = [ask, "\n\n".join(paragraphs)]
    elif starts_chapter and form < 0.8:
        turns = [rng.choice(ASK), "\n\n".join(paragraphs)]
    else:
        opening = split_opening(paragraphs[0], rng)
        if opening is None:
            return None
        rest = [p for p in (opening[1], *paragraphs[1:]) if p]
        if not rest:
            return None
        turns = [rng.choice(OPENING).format(opening[0]), "\n\n".join(rest)]
    if len(paragraphs) >= 4 and rng.random() < 0.3:
        told = turns[1].split("\n\n")
        half = len(told) // 2
        if half and ENDS_SENTENCE.search(told[half - 1]):
            first, second = "\n\n".join(told[:half]), "\n\n".join(told[half:])
            turns = [turns[0], first, rng.choice(GO_ON), second]
    return render(turns, system)


def speech(paragraph):
    """What is said in a paragraph of speech, without the narration; None if it is none."""
    if not paragraph.startswith('"') or "\n" in paragraph:
        return None
    parts = [p.strip() for p in paragraph.split('"')[1::2]]
    said = parts[0]
    for part in parts[1:]:
        if said.endswith((".", "!", "?")):
            said += " " + part[:1].upper() + part[1:]
        elif part[:1].islower() or part.startswith(("I ", "I'")) or said.endswith("--"):
            said += " " + part
        else:
            said = said.rstrip(",;:") + ". " + part
    said = re.sub(r"[,;:]\Z", ".", said)
    if not 8 <= len(said) <= 400 or not ENDS_SENTENCE.search(said) or not said[0].isupper():
        return None
    return said


def talks(run, rng):
    """Conversations: speeches of consecutive paragraphs, two to eight turns each."""
    spoken = []
    for paragraph in [*run, ""]:
        said = speech(paragraph)
        if said is not None:
            spoken.append(said)
            continue
        while len(spoken) >= 2:
            turns = min(len(spoken) // 2 * 2, rng.choice((2, 2, 4, 4, 6, 8)))
            system = rng.choice(SYSTEM) if rng.random() < 0.12 else None
            yield render(spoken[:turns], system)
            spoken = spoken[turns:]
        spoken = []

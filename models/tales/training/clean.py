"""From a file of books to runs of clean paragraphs.

A run is a list of paragraphs that follow one another in the book. Headings,
contents, footnotes, long verse and paragraphs whose quotation marks do not pair
end a run, so that a passage cut from it reads on and closes its quotes.
"""

import lzma
import re
from pathlib import Path

FILES = ("stories_children", "novels_plain")

# Whole books kept out of the tokenizer and of training, for the held-out measure.
HELD_OUT = (
    "Queen Zixi of Ix",
    "The Magic City",
    "The Adventures of a Dog, and a Good Dog Too",
    "The King of the Golden River",
    "The Young Outlaw",
    "The Boxcar Children",
)

SEPARATOR = "<|endoftext|>"
ALLOWED = re.compile(r"[\n -~éèêëæöüçàâïôñ£]*\Z")
ODD = re.compile(r"[\[\]*|<>{}=#~\\^/_@+]")
ENDS_SENTENCE = re.compile(r"[.!?][\"')]*\Z")
ENDS_PARAGRAPH = re.compile(r"(?:[.!?:;,]|--)[\"')]*\Z")
HEADING_WORD = re.compile(r"(chapter|book|part|section|contents|preface|introduction)\b", re.I)

# Speech in single quotes, as British editions set it; 'tis and its like are no speech.
OPEN_SINGLE = re.compile(
    r"(?:(?<=[\s(\-])|^)'(?!(?:tis|twas|twere|twill|em|til)\b)(?=[\w.\-])", re.I
)
CLOSE_SINGLE = re.compile(r"(?<=[.,!?;:\-)])'(?=\Z|[\s\-),;:.?!])")


def read_books(corpus):
    """Yield (title, text) for every book of the two files."""
    for name in FILES:
        index = (Path(corpus) / f"{name}.index.tsv").read_text(encoding="utf-8")
        titles = [line.split("\t")[0] for line in index.splitlines()[1:]]
        text = lzma.open(Path(corpus) / f"{name}.txt.xz", "rt", encoding="utf-8").read()
        books = [book.strip() for book in text.split(SEPARATOR) if book.strip()]
        if len(books) != len(titles):
            raise SystemExit(f"{name}: {len(books)} books but {len(titles)} titles")
        yield from zip(titles, books)


def speaks_in_single_quotes(paragraphs):
    single = sum(bool(re.match(r"'[A-Z]", p)) for p in paragraphs)
    double = sum(bool(re.match(r'"[A-Z]', p)) for p in paragraphs)
    return single > double


def to_double_quotes(paragraph):
    """Speech to double quotes, quotes within speech to single ones; None if unsure."""
    marks = [(m.start(), True) for m in OPEN_SINGLE.finditer(paragraph)]
    marks += [(m.start(), False) for m in CLOSE_SINGLE.finditer(paragraph)]
    marks.sort()
    if len(marks) % 2 or any(opens != (i % 2 == 0) for i, (_, opens) in enumerate(marks)):
        return None
    chars = list(paragraph.replace('"', "'"))
    for position, _ in marks:
        chars[position] = '"'
    return "".join(chars)


def quotes_pair(paragraph):
    """Whether double quotes open and close in turn, and brackets balance."""
    marks = [m.start() for m in re.finditer('"', paragraph)]
    if len(marks) % 2 or paragraph.count("(") != paragraph.count(")"):
        return False
    for i, position in enumerate(marks):
        before = paragraph[position - 1] if position else " "
        after = paragraph[position + 1 : position + 2] or " "
        if i % 2 == 0 and (before not in " \n(-'" or after.isspace()):
            return False
        if i % 2 and (before.isspace() or after not in " \n,.;:!?-)'"):
            return False
    return True


def is_heading(paragraph):
    if paragraph.upper() == paragraph or HEADING_WORD.match(paragraph):
        return len(paragraph) < 120
    return len(paragraph) < 90 and not ENDS_PARAGRAPH.search(paragraph)


def is_clean(paragraph):
    letters = sum(c.isalpha() for c in paragraph)
    return (
        2 <= len(paragraph) <= 2500
        and paragraph.count("\n") < 8
        and ENDS_PARAGRAPH.search(paragraph) is not None
        and ODD.search(paragraph) is None
        and ALLOWED.match(paragraph) is not None
        and letters > 0.6 * len(paragraph)
        and sum(c.isupper() for c in paragraph) < 0.25 * letters
        and quotes_pair(paragraph)
    )


def clean_runs(book):
    """The runs of clean paragraphs of one book, in order."""
    paragraphs = [p.strip() for p in re.split(r"\n\s*\n", book) if p.strip()]
    single = speaks_in_single_quotes(paragraphs)
    runs, run = [], []
    for paragraph in paragraphs:
        paragraph = re.sub(r"-{3,}", "--", re.sub(r" ?\. \. \.( \.)?", "...", paragraph))
        text = to_double_quotes(paragraph) if single else paragraph
        if text is None or is_heading(text) or not is_clean(text):
            if run:
                runs.append(run)
            run = []
        else:
            run.append(text)
    if run:
        runs.append(run)
    return runs

"""Check the prose of docstrings, comments, messages and pages against a word list: `python tests/lint/prose.py`.

Files of `prose_allowed.txt` are not checked yet. `--regenerate` writes that list anew; it should only become shorter.
"""

import argparse
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
ALLOWED = Path(__file__).with_name("prose_allowed.txt")

# Pattern -> what to write instead.
WORDS = {
    r"strangers?|nobody|somebody|whoever|whatever|whose ever": "name the role: the user, untrusted, third-party",
    r"put(s|ting)? aside|by heart|go(es|ne|ing)? on with|told apart|tell(s|ing)? apart": "use the term of docs/glossary.md",
    r"see there|as there|likewise|of theirs|of ours|not ours": "describe it in full",
    r"says?|said|tells?|told|promise[sd]?|believes?|believed": "a model predicts, a card specifies, a check reports",
    r"stands?(?! for\b| out\b|-alone\b)|stood": "is, lies in, is stored in",
    r"pictures?": "image, photograph, figure",
    r"straddl(e|es|ed|ing)|quarantined?": "cross-split, rejected",
    r"zoo|deploy/\w+|(?:the|a) floor": "models, inference/, baseline or layer",
    r"(?:colou|neighbou|behaviou|favou)r\w*|gr[e]y\w*|centre[sd]?|catalogues?|artefacts?": "American spelling",
    r"(?:normal|initial|standard|random|optim|summar|general|serial|quant|regular|recogn)is(?:e[sd]?|ing|ation)": "-ize",
}
_PATTERN = re.compile("|".join(f"(?P<w{i}>\\b(?:{words})\\b)" for i, words in enumerate(WORDS)), re.IGNORECASE)
_HINTS = list(WORDS.values())
# A docstring's first line is an imperative or a noun phrase.
_OPENING = re.compile(r'^[rRbBuU]*"""(What|Who|Whose|Whether|Where|How|Of|As|That|Likewise)\b')
_CODE = re.compile(r"`[^`]*`|\{[^{}]*\}|\]\([^)]*\)|https?://\S+")


FOLDERS = ("agebench", "benchmarks", "examples")


def files() -> list[Path]:
    """Return the checked files: the package, benchmarks, examples, the manual and the pages beside the README."""
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")]
    return sorted([*(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")), *pages])


def prose(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line number, text) of all prose in a file: of Python its comments and strings of several words."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        fenced = False
        for number, line in enumerate(text.splitlines(), start=1):
            fenced ^= line.lstrip().startswith("```")
            if not fenced:
                yield number, line
        return
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT or (token.type == tokenize.STRING and " " in token.string):
            for offset, line in enumerate(token.string.splitlines()):
                yield token.start[0] + offset, line


def problems(path: Path) -> Iterator[str]:
    """Yield one line for each word to replace, and for each docstring that opens with a clause."""
    name = path.relative_to(ROOT).as_posix()
    for number, line in prose(path):
        opening = _OPENING.match(line) if path.suffix == ".py" else None
        if opening:
            yield f"{name}:{number}: opens with '{opening[1]}': start with an imperative verb or a noun phrase"
        for match in _PATTERN.finditer(_CODE.sub("", line)):
            yield f"{name}:{number}: '{match[0]}': {_HINTS[int(str(match.lastgroup)[1:])]}"


def main() -> int:
    """Check all files; return 1 where one has a problem, or where an allowed file has none any more."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--regenerate", action="store_true", help="write the list of files that do not pass yet")
    parser.add_argument("paths", nargs="*", type=Path, help="check these files, allowed or not")
    arguments = parser.parse_args()
    if arguments.paths:
        lines = [line for path in arguments.paths for line in problems(path.resolve())]
        print("\n".join(lines))
        return 1 if lines else 0
    allowed = set(ALLOWED.read_text().split()) if ALLOWED.exists() else set()
    failing = {path.relative_to(ROOT).as_posix(): list(problems(path)) for path in files()}
    failing = {name: lines for name, lines in failing.items() if lines}
    if arguments.regenerate:
        ALLOWED.write_text("".join(f"{name}\n" for name in sorted(failing)))
        print(f"{len(failing)} files: {len(set(failing) - allowed)} added, {len(allowed - set(failing))} removed")
        return 0
    new = [line for name, lines in failing.items() if name not in allowed for line in lines]
    new += [
        f"{name}: passes; remove it with `python {Path(__file__).name} --regenerate`" for name in allowed - set(failing)
    ]
    print("\n".join(new) or f"prose: {len(allowed)} files are not checked yet", file=sys.stderr if new else sys.stdout)
    return 1 if new else 0


if __name__ == "__main__":
    sys.exit(main())

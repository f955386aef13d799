"""The answer-leak check: a description must say what is seen and leave the verdict to the reader (METHOD.md section 2).

Stage 2 learns quality from descriptions alone. A description that says "good" or "poorly lit" would hand it the answer, so such a target is
refused. The lists are METHOD.md choices; they hold the verdict words of Q-Instruct (average, acceptable, fine) and of Q-Align's KADID file
(pristine, mediocre, pleasing, satisfactory), but not words that are features too (low, medium, high, clear).
"""

import re

from biqa.errors import AnswerLeak

_LEVEL_FORMS = "bad(?:ly)? worse worst poor(?:ly|er|est)? fair(?:er|est)? good better best excellent(?:ly)? excellence"

_SYNONYMS = """
terribl[ey] awful(?:ly)? horribl[ey] dreadful(?:ly)? atrocious abysmal appalling lousy crappy inferior substandard sub-?par worthless unusable
disappointing(?:ly)? second-rate third-rate low-grade
mediocre mediocrity average so-so passabl[ey] tolerabl[ey] (?:un)?acceptabl[ey] (?:un)?satisfactor(?:y|ily) (?:un)?satisfying (?:in)?adequate(?:ly)?
ok okay middling run-of-the-mill
decent(?:ly)? fine finest nice(?:ly)? (?:un)?pleasing(?:ly)? (?:un)?pleasant(?:ly)? great(?:est)? superb(?:ly)? outstanding(?:ly)? superior
exceptional(?:ly)? (?:im)?perfect(?:ly)? perfection pristine flawless(?:ly)? impeccabl[ey] ideal(?:ly)? (?:sub)?optimal(?:ly)? splendid(?:ly)?
magnificent(?:ly)? marvell?ous(?:ly)? wonderful(?:ly)? fantastic fabulous amazing(?:ly)? terrific brilliant(?:ly)? admirabl[ey] impressive(?:ly)?
top-notch first-rate first-class world-class high-end high-grade
quality
"""
"""Words for worse than fair, about fair and better than fair, and the verdict itself: regular expressions, one a word."""

_LEAK = re.compile(rf"\b(?:{'|'.join((_LEVEL_FORMS + _SYNONYMS).split())})\b", re.IGNORECASE)

_INNOCENT = re.compile(
    r"\b(?:"
    # fair as a colour or an event
    r"fair[- ]?(?:haired|hair|skinned|skin|complexion|weather|grounds?)"
    r"|(?:fun|book|trade|county|street|village|job|art|world's|craft) fair"
    # good, bad, better, best in set phrases
    r"|good[- ](?:bye|morning|afternoon|evening|night|friday)|good deal of|good many|baked good|bad-tempered|better half|best (?:man|friends?)"
    # great in names and kinship
    r"|great (?:wall|dane|britain|lakes|barrier reef|tit|egret|heron|white shark|deal of)|great-(?:grand|aunt|uncle)\w*|lake superior"
    # poor in money
    r"|poor (?:people|famil(?:y|ies)|neighbou?rhoods?|districts?|villages?|countr(?:y|ies))"
    # fine as thin or small
    r"|fine(?:ly)?[- ](?:grain(?:ed)?|details?|detailed|lines?|textures?|textured|structures?|hairs?|sand|dust|mesh|threads?|patterns?|print|art)"
    # average as the mean; perfect as geometry
    r"|on average|average (?:of|luminance|luma|brightness|colou?r|value)|perfect (?:circles?|squares?|spheres?)"
    # quality as a property of something else than the picture's rank
    r"|quality (?:time|factor|control|assurance|inspectors?)|(?:dreamlike|painterly|cinematic|ethereal|tonal|graphic|sketch-like|surreal) quality"
    r")\b",
    re.IGNORECASE,
)


def find_leak(text: str) -> str | None:
    """The first word of `text` that gives the answer away, as it stands there, or None.

    Refused, in any case and inflection: the five level words, their synonyms, and "quality" as a verdict. Passed over: set phrases in which
    such a word means something else ("fair-haired", "good-bye", "fine detail", "on average", "quality factor"), and other words that contain
    one ("fairly dark", "unfair", "goods").
    """
    found = _search(text)
    return found[0] if found else None


def check_leak(text: str, where: str) -> None:
    """Refuse a description that gives the answer away.

    Args:
        text: the description.
        where: file and row, or image: goes into the message.

    Raises:
        AnswerLeak: naming the word, the place, and what to do.
    """
    found = _search(text)
    if found:
        start, end = max(0, found.start() - 30), found.end() + 30
        excerpt = f"{'...' if start else ''}{text[start:end]}{'...' if end < len(text) else ''}"
        raise AnswerLeak(
            f'{where}: the description says "{found[0]}", which gives the answer away: "{excerpt}". '
            f"Say what is seen instead (sharp, dark, noisy), or take that sentence out."
        )


def _search(text: str) -> re.Match[str] | None:
    if not _LEAK.search(text):
        return None
    # innocent phrases become blanks of the same length, so that positions stay
    return _LEAK.search(_INNOCENT.sub(lambda phrase: " " * len(phrase[0]), text))

"""Words of free descriptions, as tables: what names a feature, how much, and where a phrase ends. Every entry is a choice of this project.

Free text is read onto the project's own scales. One degree runs through all tables: 0 none, 1 barely, 2 slightly, 3 somewhat, 4 plainly, 5 very;
a *pole* (`POLES`) turns it into a strength. Choices worth knowing:

- "slightly" and "somewhat" of either pole are the middle: "slightly blurry" and "fairly sharp" are both `sharpness` 2.
- "not sharp" is `sharpness` 1, "not blurry" 3; "no visible noise" is none, "no significant noise" and "hardly any noise" are faint.
- an exposure that names a defect never falls to the middle: "slightly underexposed" is `brightness` 1, "overexposed" 3, "severely overexposed" 4.
- adjectives of the picture go to its attributes ("desaturated" -> `colourfulness`); a noun that names a process goes to the distortion of that name
  ("banding" -> `colour_quantization`), unless an attribute measures the same: blur, noise, under- and overexposure, and blocks of compression.
- an artefact of no named kind is `visible_artefacts`, a colour cast `colour_defect`; a distortion that is absent has no strength and is left out.
- verdicts count where they can mean one thing only ("poor lighting", "poor contrast", "good sharpness"); "good contrast" is left out.
- light, shadow, colour in the singular, background and foreground are content.
"""

from typing import Final

POLES: Final[dict[str, tuple[int | None, ...]]] = {
    "high": (1, 1, 2, 2, 3, 4),
    "low": (3, 3, 2, 2, 1, 0),
    "top": (2, 4, 4, 4, 4, 4),
    "middle": (None, 2, 2, 2, 2, 2),
    "bottom": (None, 0, 0, 0, 0, 0),
    "under": (2, 2, 1, 1, 1, 0),
    "over": (2, 2, 3, 3, 3, 4),
    "blur": (3, 3, 2, 1, 0, 0),
    "amount": (0, 1, 1, 2, 3, 4),
    "free": (None, 0, 0, 0, 0, 0),
    "level": (None, 1, 2, 3, 4, 5),
}
"""Pole -> strength at degrees 0..5 (0: negated). "amount" and "level" are the scales of `features.AMOUNTS` and `features.DEGREES`."""

PLAIN = 4
"""Degree of an adjective that stands alone ("noisy")."""
SOME = 3
"""Degree of a noun that stands alone ("there is noise")."""


def _phrases(words: str) -> list[str]:
    return [phrase for part in words.split(",") if (phrase := " ".join(part.split()))]


_SUBJECTS = {
    "frame": "image, images, picture, photo, photograph, scene, shot, view, snapshot, frame, it, photography",
    "detail": "detail, details, edge, edges, outline, outlines, contours, texture, textures, content, contents, subject, main subject, main object",
    "focus": "focus",
    "light": "lighting, illumination, exposure, lighting conditions",
    "brightness": "brightness, luminance, light level",
    "colour": "colours, tones, hues, palette, colour palette, colour tones, colouring",
    "saturation": "saturation, colour saturation, colourfulness, vibrancy, vividness",
    "contrast": "contrast, tonal contrast",
    "clarity": "sharpness, clarity, definition, crispness",
}
SUBJECTS: Final[dict[str, str]] = {phrase: name for name, words in _SUBJECTS.items() for phrase in _phrases(words)}
"""Noun at the level of the image -> its class. Adjectives count beside one of these only: "a dark dog" says nothing of the picture."""

MEASURED: Final[dict[str, str]] = {
    "detail": "sharpness", "focus": "sharpness", "clarity": "sharpness", "light": "brightness", "brightness": "brightness", "colour": "colourfulness",
    "saturation": "colourfulness", "contrast": "contrast",
}  # fmt: skip
"""Class of noun -> the feature that a lack of it is about."""

_ADJECTIVES = (
    (
        "sharpness",
        "high",
        "frame detail focus",
        "sharp, crisp, clear, in focus, well focused, sharply focused, well defined, sharply defined, detailed",
    ),
    ("sharpness", "high", "detail", "rich, high, preserved, well preserved, retained, intact, distinct, visible, discernible, distinguishable, good"),
    ("sharpness", "high", "focus clarity", "accurate, precise, good, high, strong"),
    ("sharpness", "top", "detail focus clarity", "excellent, superb, outstanding, exceptional, remarkable"),
    ("sharpness", "middle", "detail focus clarity", "moderate, medium, acceptable, sufficient, adequate, decent, fair"),
    (
        "sharpness",
        "low",
        "frame detail focus",
        "blurry, blurred, soft, fuzzy, out of focus, unfocused, unclear, indistinct, unsharp, poorly focused, smeared",
    ),
    (
        "sharpness",
        "low",
        "detail focus clarity",
        "poor, low, lost, missing, weak, limited, insufficient, bad, poorly defined, undefined, inaccurate, off",
    ),
    ("brightness", "high", "frame light", "bright, well lit, brightly lit, brightly illuminated, well illuminated"),
    ("brightness", "high", "light brightness", "high, strong, intense, ample, abundant"),
    ("brightness", "middle", "frame", "well exposed, properly exposed, correctly exposed"),
    ("brightness", "middle", "light brightness", "moderate, medium, normal, balanced, sufficient, adequate, correct, accurate, proper, appropriate"),
    ("brightness", "low", "frame light", "dark, dim, gloomy, dimly lit, poorly lit, badly lit, underlit, poorly illuminated"),
    ("brightness", "low", "light brightness", "low, weak, insufficient, inadequate, poor, limited, faint, bad"),
    ("brightness", "under", "*", "underexposed, under exposed"),
    ("brightness", "over", "*", "overexposed, over exposed, blown out"),
    ("colourfulness", "high", "frame colour", "colourful, vivid, vibrant, saturated, richly coloured, brightly coloured"),
    ("colourfulness", "high", "colour", "rich, bright, lively, intense, bold, strong, striking"),
    ("colourfulness", "high", "saturation", "high, strong, rich"),
    ("colourfulness", "middle", "saturation", "moderate, medium, normal, balanced"),
    ("colourfulness", "low", "frame colour", "pale, washed out, faded, desaturated, undersaturated, dull, drab, muted, monotonous"),
    ("colourfulness", "low", "colour", "weak, subdued, lifeless"),
    ("colourfulness", "low", "saturation", "low, weak, poor, insufficient"),
    ("colourfulness", "bottom", "frame colour", "black and white, monochrome, monochromatic, greyscale, colourless, nearly colourless"),
    ("contrast", "high", "contrast", "high, strong, sharp, stark, bold, striking, harsh, pronounced"),
    ("contrast", "middle", "contrast", "moderate, medium, normal, balanced, sufficient, adequate"),
    ("contrast", "low", "contrast", "low, weak, poor, flat, dull, insufficient, limited, faint, soft, bad"),
    ("contrast", "low", "frame", "flat, hazy"),
    ("noise", "amount", "*", "noisy, grainy"),
    ("noise", "free", "*", "noise free, grain free"),
    ("blockiness", "amount", "*", "blocky, overcompressed, over compressed"),
    ("blockiness", "amount", "frame", "compressed"),
    ("blockiness", "free", "*", "block free"),
    ("motion_blur", "level", "*", "motion blurred"),
    ("pixelate", "level", "*", "pixelated, pixellated"),
    ("quantization", "level", "*", "posterised"),
    ("colour_saturation_lab", "level", "*", "oversaturated, over saturated, overly saturated, garish"),
    ("high_sharpen", "level", "*", "oversharpened, over sharpened, overly sharpened"),
    ("denoise", "level", "*", "oversmoothed, over smoothed, overly smooth, waxy"),
)
ADJECTIVES: Final[dict[str, dict[str, tuple[str, str]]]] = {}
"""Adjective -> class of its noun ("*": any) -> feature and pole: "sharp" of edges is sharpness, of contrast contrast."""
for _feature, _pole, _classes, _words in _ADJECTIVES:
    for _phrase in _phrases(_words):
        ADJECTIVES.setdefault(_phrase, {}).update(dict.fromkeys(_classes.split(), (_feature, _pole)))

_DEFECTS = (
    ("noise", "amount", "noise, grain, graininess, noisiness, film grain, digital noise, image noise, random noise, luminance noise, sensor noise"),
    ("sharpness", "blur", "blur, blurring, blurriness, fuzziness, loss of detail, loss of details, loss of sharpness"),
    ("brightness", "under", "underexposure, low light, dim light, weak light, insufficient light, poor light, lack of light"),
    ("brightness", "over", "overexposure"),
    (
        "blockiness",
        "amount",
        "blocking, blockiness, macroblocking, block artefacts, blocking artefacts, blocky artefacts, compression blocks, compression",
    ),
    (
        "blockiness",
        "amount",
        "jpeg compression, jpeg artefacts, jpeg blocking, compression artefacts, compression artefact, jpeg compression artefacts",
    ),
    ("visible_artefacts", "amount", "artefacts, artefact, digital artefacts, visual artefacts, image artefacts"),
    ("colour_defect", "amount", "colour cast, colour casts, colour distortion, colour distortions, colour defects"),
    ("gaussian_blur", "level", "gaussian blur"),
    ("lens_blur", "level", "defocus blur, out of focus blur, lens blur"),
    ("motion_blur", "level", "motion blur, camera shake, motion streaks"),
    ("colour_diffusion", "level", "colour bleeding, colour smearing"),
    ("colour_shift", "level", "chromatic aberration, colour fringing, colour fringes, purple fringing"),
    ("colour_quantization", "level", "banding, colour banding"),
    ("colour_saturation_lab", "level", "oversaturation"),
    ("jpeg2000", "level", "ringing, ringing artefacts"),
    ("white_noise", "level", "white noise, gaussian noise"),
    ("white_noise_ycbcr", "level", "colour noise, coloured noise, chroma noise, chromatic noise"),
    ("impulse_noise", "level", "salt and pepper noise, impulse noise"),
    ("multiplicative_noise", "level", "speckle noise"),
    ("denoise", "level", "smoothing, oversmoothing"),
    ("pixelate", "level", "pixelation, pixellation"),
    ("quantization", "level", "posterisation"),
    ("high_sharpen", "level", "oversharpening, halos, sharpening halos, sharpening artefacts"),
    ("jitter", "level", "pixel jitter"),
    ("", "level", "distortion, distortions"),
)
DEFECTS: Final[dict[str, tuple[str, str]]] = {phrase: (name, pole) for name, pole, words in _DEFECTS for phrase in _phrases(words)}
"""Noun that names a defect wherever it stands -> feature and pole ("": understood, but no feature)."""

_ADVERBS = {
    1: "barely, hardly, scarcely",
    2: "slightly, a bit, a little, a little bit, a touch, a tad, mildly, marginally, faintly, subtly, lightly",
    3: "somewhat, moderately, fairly, relatively, reasonably, partially, partly, kind of, sort of",
    4: "quite, rather, pretty, clearly, visibly, noticeably, obviously, notably, distinctly",
    5: "very, extremely, severely, highly, incredibly, exceptionally, overly, too, far too, way too, excessively, really, so, particularly, strongly,"
    "heavily, greatly, significantly, considerably, seriously, badly, completely, totally, entirely, fully, perfectly, crystal, razor, tack, pin",
}
ADVERBS: Final[dict[str, int]] = {phrase: degree for degree, words in _ADVERBS.items() for phrase in _phrases(words)}
WHOLLY: Final = frozenset(_phrases("quite, completely, totally, entirely, fully, perfectly"))
"""Negated, these leave something: "not entirely sharp" is the middle."""

_AMOUNTS = {
    0: "absent, nonexistent, non existent, zero",
    1: "hardly any, barely any, scarcely any, almost no, virtually no, practically no, next to no, little to no, little or no, negligible,"
    "imperceptible, invisible",
    2: "slight, faint, minor, minimal, mild, subtle, low, small, little, light, weak, limited, few, tiny, slightest, a little, a bit of, a touch of,"
    "a hint of, a little bit of, a trace of, a small amount of, well controlled, under control",
    3: "some, moderate, noticeable, visible, apparent, evident, present, detectable, discernible, perceptible, observable, medium, certain, seen,"
    "observed, noticed, found",
    4: "heavy, strong, significant, considerable, serious, pronounced, prominent, obvious, clear, a lot of, lots of, much, many, plenty of,"
    "a great deal of, substantial, high, marked, distinct, large, conspicuous, abundant, full of, intense, bad",
    5: "severe, extreme, excessive, massive, overwhelming, terrible, too much, too many, so much",
}
AMOUNTS: Final[dict[str, int]] = {phrase: degree for degree, words in _AMOUNTS.items() for phrase in _phrases(words)}
SEEN: Final = frozenset(_phrases(_AMOUNTS[3] + ", obvious, clear, distinct"))
"""Amounts that say that something can be seen: negated, they leave nothing ("no obvious noise"); a negated size leaves a little."""

_HAVE = {"has": "have", "shows": "show", "exhibits": "exhibit", "contains": "contain", "displays": "display", "suffers from": "suffer from"}
_LOOK = {"looks": "look", "appears": "appear", "seems": "seem", "feels": "feel"}
_POSITIVES = (
    {f"{auxiliary} {plural}": singular for singular, plural in (_HAVE | _LOOK).items() for auxiliary in ("does not", "doesn't")}
    | {f"{auxiliary} {plural}": plural for plural in (_HAVE | _LOOK).values() for auxiliary in ("do not", "don't")}
    | {f"{verb}n't": verb for verb in ("is", "are", "was", "were")}
    | {f"{auxiliary} {verb}": verb for auxiliary in ("do not", "don't", "cannot", "can't") for verb in ("see", "notice", "observe", "detect", "find")}
    | {"without": "with", "free of": "affected by", "free from": "affected by", "devoid of": "affected by"}
    | {"lacks": "has", "lack": "have", "lacking": "having", "lacking in": "of", "lacked": "had"}
)
_NOT_LOOK = {verb: positive for verb, positive in _POSITIVES.items() if verb.split()[-1] in _LOOK.values()}
POSITIVES: Final[dict[str, str]] = _POSITIVES | {f"{verb} to be": f"{positive} to be" for verb, positive in _NOT_LOOK.items()}
"""Negation with a verb or a preposition -> the same without the negation."""

_CLOSED = (
    (
        "negation",
        "no, not, never, neither, without, free of, free from, devoid of, absence of, far from, anything but, by no means, cannot, not at all",
    ),
    ("negation", "no longer, no sign of, no signs of, no trace of, no traces of, no evidence of, no hint of"),
    ("lack", "lacks, lack, lacking, lacking in, lacked, lack of"),
    ("copula", "is, are, was, were, 's, being, remains, remain, stays, can be, has been, have been, becomes, comes across as"),
    ("not_copula", "isn't, aren't, wasn't, weren't"),
    ("have", "having, showing, affected by, marred by, plagued by, retains, features"),
    ("join", "and, or, nor, as well as"),
    ("break", "but, while, although, though, whereas, however, yet, despite, because, since, when, where, until, so that, due to, ;, (, )"),
    ("with", "with, makes, making, make, leaves, leaving, rendering"),
    ("preposition", "in, of, on, at, from, to, within, throughout, across, along, around, behind, near, by, into, over, between, for, through"),
    ("preposition", "such as, like, including"),
    ("determiner", "the, a, an, this, its, any"),
    (
        "filler",
        "overall, also, generally, general, still, even, itself, just, only, not only, fine, mostly, almost, nearly, enough, either, especially",
    ),
    ("filler", "most, most of the, much of the, here, everywhere, level of, levels of, a level of, amount of, amounts of, degree of, level, levels"),
    ("filler", "signs of, traces of, evidence of, issues such as, issues like, issues with, problems such as, problems like, problems with"),
    ("relative", "that, which, who, whose"),
    ("comparison", "more, less, least, as, fewer"),
    ("doubt", "whether, if, unless, could be, would be, should be, might be, may be, instead of, rather than"),
    ("other", "clear view"),
)
KINDS: Final[dict[str, str]] = {
    **dict.fromkeys(SUBJECTS, "subject"),
    **dict.fromkeys((*ADJECTIVES, *ADVERBS, *AMOUNTS), "modifier"),
    **dict.fromkeys(DEFECTS, "defect"),
    **{phrase: "negation" for phrase in POSITIVES if " " in phrase},
    **dict.fromkeys((*_LOOK, *_LOOK.values(), *(f"{verb} to be" for verb in (*_LOOK, *_LOOK.values()))), "copula"),
    **dict.fromkeys((*_NOT_LOOK, *(f"{verb} to be" for verb in _NOT_LOOK)), "not_copula"),
    **dict.fromkeys((*_HAVE, *_HAVE.values()), "have"),
    **{phrase: kind for kind, words in _CLOSED for phrase in _phrases(words)},
    **{",": "join", ":": "colon"},
}
"""Phrase -> its part in a clause. Later rows win."""

LONGEST = max(len(phrase.split()) for phrase in KINDS)

SCALE = ("very low", "low", "moderate", "high", "very high")
WORDINGS: Final[dict[tuple[str, str], tuple[str, ...]]] = {
    ("colourfulness", "colour"): ("very dull", "dull", "moderately vivid", "vivid", "very vivid"),
    ("contrast", "frame"): tuple(f"{word}-contrast" for word in SCALE),
    **{(feature, kind): SCALE for kind, feature in MEASURED.items() if kind in ("clarity", "brightness", "saturation", "contrast")},
}
"""Feature and class of noun -> adjectives at strengths 0..4, where they are not those of the registry."""

NOUNS: Final[dict[str, str]] = {"sharpness": "sharpness", "brightness": "brightness"}
"""What a feature with two poles is called where a defect's name ("blur") is replaced."""
PREDICATES: Final[dict[str, tuple[str, ...]]] = {
    "amount": ("absent", "faint", "moderate", "heavy", "very heavy"),
    "level": ("barely visible", "slight", "noticeable", "strong", "extreme"),
}
"""Pole -> what stands after "the noise is", weakest strength first."""
DEGREES_OF: Final[dict[str, tuple[str, ...]]] = {
    "amount": ("not ", "slightly ", "moderately ", "", "very "),
    "level": ("barely ", "slightly ", "moderately ", "", "very "),
}
"""Pole -> what stands before an adjective such as "noisy" or "pixelated", weakest strength first."""
FREE: Final[dict[str, str]] = {"noise": "noise-free", "blockiness": "block-free"}

"""Features to text and back: seeded paraphrases one way, exact parsing the other (METHOD.md sections 2 and 7).

A description is one short sentence a feature, in the order of the registry. Every sentence that `describe` can write is known in advance, so `parse`
looks sentences up and never guesses: what it does not know it leaves out, and `coverage` says how much that was.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class FeatureSpec:
    """One feature and its wording: a scale of strengths or, where `ordered` is False, kinds that are no scale ("blur" is not less than "noise").

    What is said of strengths holds for the numbers of kinds too, but for their order: no step between two of them means anything.
    """

    name: str
    strengths: tuple[str, ...]
    """Words of the ordered scale, weakest first; or the words of the kinds."""
    templates: tuple[str, ...]
    """Sentences with a place for `{strength}`."""
    lowest: int
    """The number of the first strength: 0 for attributes and kinds, 1 for distortions (KADID-10k's levels 1..5)."""
    ordered: bool = True
    """Whether the strengths are a scale."""
    better: int | None = None
    """Whether viewers rate an image higher (+1) or lower (-1) the more of it there is; None where that depends on the image, or has an optimum.

    A choice of the project: sharpness is better; noise, blocks, voted defects and all distortions that grow with their level are worse, but for
    `altered_contrast`, whose levels mix more contrast with less. In KADID-10k and TID2013 the mean opinion of each of these distortions is lower at
    the strongest level than at the mildest.
    """

    def sentence(self, template: str, strength: int) -> str:
        """The template with the word for `strength`, first letter upper case.

        Raises:
            ValueError: the strength is not on the scale.
        """
        if not self.lowest <= strength < self.lowest + len(self.strengths):
            raise ValueError(f"{self.name}: strength {strength} is not within {self.lowest}..{self.lowest + len(self.strengths) - 1}")
        text = template.format(strength=self.strengths[strength - self.lowest])
        return text[0].upper() + text[1:]

    def sentences(self) -> Iterator[tuple[str, int]]:
        """Every sentence about this feature with its strength: templates in order, weakest strength first."""
        for template in self.templates:
            for strength in range(self.lowest, self.lowest + len(self.strengths)):
                yield self.sentence(template, strength), strength


AMOUNTS = ("no", "faint", "moderate", "heavy", "very heavy")

ATTRIBUTES: tuple[FeatureSpec, ...] = (
    FeatureSpec(
        "brightness",
        ("very dark", "dark", "moderately bright", "bright", "very bright"),
        ("The image is {strength}.", "The scene looks {strength}.", "Overall it appears {strength}."),
        lowest=0,
    ),
    FeatureSpec(
        "contrast",
        ("very low", "low", "moderate", "high", "very high"),
        ("The contrast is {strength}.", "The image has {strength} contrast.", "It shows {strength} contrast."),
        lowest=0,
    ),
    FeatureSpec(
        "colourfulness",
        ("nearly colourless", "pale", "moderately colourful", "colourful", "very colourful"),
        ("The picture is {strength}.", "The view looks {strength}.", "Its tones are {strength}."),
        lowest=0,
    ),
    FeatureSpec(
        "sharpness",
        ("very blurred", "blurred", "moderately sharp", "sharp", "very sharp"),
        ("Details are {strength}.", "The edges look {strength}.", "Its content appears {strength}."),
        lowest=0,
        better=+1,
    ),
    FeatureSpec(
        "noise", AMOUNTS, ("There is {strength} noise.", "The image has {strength} noise.", "It shows {strength} noise."), lowest=0, better=-1
    ),
    FeatureSpec(
        "blockiness",
        AMOUNTS,
        ("There are {strength} compression blocks.", "The image has {strength} compression blocks.", "It shows {strength} compression blocks."),
        lowest=0,
        better=-1,
    ),
)
"""Attributes of any image, annotated or measured: five strengths 0..4."""


def _voted(name: str, noun: str, *, seen: str = "") -> FeatureSpec:
    """A defect that viewers voted for; `seen` goes before the noun where nothing else tells it from a measured feature."""
    verb = "are" if noun.endswith("s") else "is"
    templates = (f"There {verb} {{strength}} {seen}{noun}.", f"The image has {{strength}} {seen}{noun}.", f"Viewers note {{strength}} {noun}.")
    return FeatureSpec(name, AMOUNTS, templates, lowest=0, better=-1)


VOTED_DEFECTS: tuple[FeatureSpec, ...] = (
    _voted("visible_artefacts", "artefacts", seen="visible "),
    _voted("visible_blur", "blur", seen="visible "),
    _voted("contrast_defect", "contrast defects"),
    _voted("colour_defect", "colour defects"),
)
"""Defects by the share of viewers who voted for them (KonIQ++): five strengths 0..4, of which 0 means that nobody did."""

MAIN_DEFECT = FeatureSpec(
    "main_defect",
    ("blur", "noise", "underexposure", "overexposure", "changed contrast", "of another kind"),
    ("The main defect is {strength}.", "Its dominant defect is {strength}.", "What disturbs most is {strength}."),
    lowest=0,
    ordered=False,
)
"""The defect of an authentic image that a person named as its main one, in the order of LIQE's list: kinds 0..5, no scale."""

DEGREES = ("barely visible", "slight", "noticeable", "strong", "extreme")
"""Levels 1..5 of a distortion (METHOD.md choice: one scale for all that grow with the level, none of them a level word)."""


def _growing(name: str, *nouns: str, better: int | None = -1) -> FeatureSpec:
    """A distortion that grows with its level, under several noun phrases."""
    templates = [
        template
        for noun in nouns
        for template in (
            f"The image shows {{strength}} {noun}.",
            f"There {'are' if noun.endswith('s') else 'is'} {{strength}} {noun}.",
            f"The picture has {{strength}} {noun}.",
            f"{{strength}} {noun} can be seen.",
        )
    ]
    return FeatureSpec(name, DEGREES, tuple(templates), lowest=1, better=better)


KADID_DISTORTIONS: tuple[FeatureSpec, ...] = (
    _growing("gaussian_blur", "soft blur", "smooth blur"),
    _growing("lens_blur", "out-of-focus blur", "defocus blur"),
    _growing("motion_blur", "motion blur", "motion streaks"),
    _growing("colour_diffusion", "colour bleeding", "colour smearing"),
    _growing("colour_shift", "colour fringes", "colour misalignment"),
    _growing("colour_quantization", "colour banding", "palette reduction"),
    _growing("colour_saturation_hsv", "colour fading", "desaturation"),
    _growing("colour_saturation_lab", "oversaturation", "garish colours"),
    _growing("jpeg2000", "wavelet ringing", "wavelet artefacts"),
    _growing("jpeg", "block artefacts", "JPEG blocking"),
    _growing("white_noise", "white noise", "random grain"),
    _growing("white_noise_ycbcr", "coloured noise", "coloured grain"),
    _growing("impulse_noise", "salt-and-pepper noise", "black and white specks"),
    _growing("multiplicative_noise", "speckle noise", "speckled grain"),
    _growing("denoise", "waxy smoothing", "denoising smear"),
    _growing("brighten", "overexposure", "brightening"),
    _growing("darken", "underexposure", "darkening"),
    # levels of these two run through zero, from more to less: "barely visible" to "extreme" would say what is not there
    FeatureSpec(
        "mean_shift",
        ("strongly lifted", "slightly lifted", "not shifted", "slightly lowered", "strongly lowered"),
        ("All tones are {strength}.", "Every tone looks {strength}.", "The whole tonal range is {strength}."),
        lowest=1,
    ),
    _growing("jitter", "pixel jitter", "pixel scatter"),
    _growing("non_eccentricity_patch", "patch displacement", "patch misalignment"),
    _growing("pixelate", "pixelation", "mosaic effects"),
    _growing("quantization", "posterisation", "tonal steps"),
    _growing("colour_block", "coloured squares", "stray colour blocks"),
    _growing("high_sharpen", "oversharpening", "sharpening halos"),
    FeatureSpec(
        "contrast_change",
        ("strongly raised", "visibly raised", "slightly raised", "visibly reduced", "strongly reduced"),
        ("The contrast was {strength}.", "Tonal differences are {strength}.", "The tonal contrast looks {strength}."),
        lowest=1,
    ),
)
"""KADID-10k's 25 types in the order of the database: levels 1..5."""

OTHER_DISTORTIONS: tuple[FeatureSpec, ...] = (
    # of TID2013, in its order; its mean shift, contrast change and saturation change go either way, which their level does not tell
    _growing("correlated_noise", "blotchy noise", "clumped grain"),
    _growing("masked_noise", "hidden noise", "noise within textures"),
    _growing("high_frequency_noise", "high-frequency noise", "pixel-sized grain"),
    _growing("jpeg_errors", "misplaced stripes", "broken blocks"),
    _growing("jpeg2000_errors", "transmission smears", "transmission errors"),
    _growing("tone_shift", "tonal shift", "shifted brightness"),
    _growing("altered_contrast", "altered contrast", "contrast alteration", better=None),
    _growing("altered_saturation", "altered saturation", "saturation alteration"),
    _growing("comfort_noise", "synthetic grain", "replaced grain"),
    _growing("compressed_noise", "compressed noise", "compressed grain"),
    _growing("dithering", "dithering dots", "dither patterns"),
    _growing("sparse_sampling", "sampling artefacts", "reconstruction artefacts"),
    # of CSIQ
    _growing("pink_noise", "pink noise", "cloudy noise"),
    _growing("contrast_loss", "contrast loss", "washed-out tones"),
)
"""Types of TID2013 and CSIQ (LIVE's fast fading is `jpeg2000_errors`) that KADID-10k has not: levels 1..5."""

DISTORTIONS = KADID_DISTORTIONS + OTHER_DISTORTIONS

FEATURES: dict[str, FeatureSpec] = {spec.name: spec for spec in (*ATTRIBUTES, *VOTED_DEFECTS, MAIN_DEFECT, *DISTORTIONS)}
"""Name -> wording, in the canonical order of a description."""

NOTHING = ("No distortion is visible.", "There is no visible distortion.", "The image shows no visible distortion.")
"""What is said of an image without any feature."""


def describe(features: Mapping[str, int], rng: np.random.Generator) -> str:
    """An English description: one sentence a feature, in the order of the registry.

    Args:
        features: name -> strength: 0..4 for attributes and voted defects, 0..5 for the main defect (a kind), 1..5 for distortions; {} gives a
            "no visible distortion" sentence.
        rng: draws the paraphrase of each sentence.

    Raises:
        ValueError: a feature is not in the registry, or a strength is not on its scale.
    """
    if unknown := set(features) - set(FEATURES):
        raise ValueError(f"no wording for {', '.join(sorted(unknown))}: known are {', '.join(FEATURES)}")
    if not features:
        return NOTHING[rng.integers(len(NOTHING))]
    named = [spec for name, spec in FEATURES.items() if name in features]
    return " ".join(spec.sentence(spec.templates[rng.integers(len(spec.templates))], features[spec.name]) for spec in named)


def parse(text: str) -> dict[str, int]:
    """The features that a description names: the inverse of `describe`.

    Sentences match whatever their case, spacing and final mark; others are ignored. When a feature is named twice, the first mention wins. Any text
    is taken, also a cut or garbled one.

    Returns:
        name -> strength, in the order of mention.
    """
    features: dict[str, int] = {}
    for sentence in _split(text):
        known = _SENTENCES.get(sentence)
        if known is not None:
            features.setdefault(*known)
    return features


def coverage(text: str) -> float:
    """Share of the sentences that `parse` understands, in [0, 1]; 0 for a text without a sentence."""
    sentences = _split(text)
    return sum(sentence in _SENTENCES or sentence in _NOTHING for sentence in sentences) / max(len(sentences), 1)


def corpus() -> list[str]:
    """Every sentence that `describe` can write, in the order of the registry: what a tokenizer needs to have seen."""
    return [*NOTHING, *(sentence for spec in FEATURES.values() for sentence, _ in spec.sentences())]


_SENTENCE_END = re.compile(r"[.!?\n]+")


def _split(text: str) -> list[str]:
    """Sentences in lower case with single spaces and no final mark; empty ones are left out."""
    return [" ".join(words) for part in _SENTENCE_END.split(text.lower()) if (words := part.split())]


_SENTENCES: dict[str, tuple[str, int]] = {
    _split(sentence)[0]: (spec.name, strength) for spec in FEATURES.values() for sentence, strength in spec.sentences()
}
_NOTHING = frozenset(_split(sentence)[0] for sentence in NOTHING)

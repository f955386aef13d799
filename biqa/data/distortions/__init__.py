"""KADID-10k's 25 distortion types at five levels, on numpy, scipy, scikit-image and Pillow.

The amounts are those of the generator that KADID-10k's authors published with it (Lin, Hosu, Saupe, "KADID-10k: A Large-scale
Artificially Distorted IQA Database", QoMEX 2019). ARNIQA (Agnolucci et al., WACV 2024) uses them too, but sorts mean shift and
contrast by magnitude and stops JPEG 2000 at a ratio of 170; here the authors' values stay, because the mean opinions
(`biqa.data.kadid_opinions`) were given to those. The code is new and differs in three places: the result is not stretched to the full range,
denoising is by total variation (no network), and quantization steps are even.

Lengths are meant for 512 x 384 pixels. A crop shows the same pixels, so a blur keeps its radius; what would reach across a crop is cut
(`pixels.within`), and patches and blocks keep their share of the area (`spatial`).
"""

import numpy as np

from biqa.data.distortions import blur, brightness, colour, compression, noise, sharpness, spatial
from biqa.data.distortions.pixels import Distortion, Image, to_image, to_pixels
from biqa.errors import IncompatibleChoice

AMOUNTS: dict[str, tuple[Distortion, tuple[float, ...]]] = {
    "gaussian_blur": (blur.gaussian_blur, (0.1, 0.5, 1, 2, 5)),
    "lens_blur": (blur.lens_blur, (1, 2, 4, 6, 8)),
    "motion_blur": (blur.motion_blur, (1, 2, 4, 6, 10)),
    "colour_diffusion": (colour.colour_diffusion, (1, 3, 6, 8, 12)),
    "colour_shift": (colour.colour_shift, (1, 3, 6, 8, 12)),
    "colour_quantization": (colour.colour_quantization, (64, 48, 32, 16, 8)),
    "colour_saturation_hsv": (colour.colour_saturation_hsv, (0.4, 0.2, 0.1, 0, -0.4)),
    "colour_saturation_lab": (colour.colour_saturation_lab, (1, 2, 3, 6, 9)),
    "jpeg2000": (compression.jpeg2000, (16, 32, 45, 120, 400)),
    "jpeg": (compression.jpeg, (43, 36, 24, 7, 4)),
    "white_noise": (noise.white_noise, (0.001, 0.002, 0.003, 0.005, 0.01)),
    "white_noise_ycbcr": (noise.white_noise_ycbcr, (0.0001, 0.0005, 0.001, 0.002, 0.003)),
    "impulse_noise": (noise.impulse_noise, (0.001, 0.005, 0.01, 0.02, 0.03)),
    "multiplicative_noise": (noise.multiplicative_noise, (0.001, 0.005, 0.01, 0.02, 0.05)),
    "denoise": (noise.denoise, (0.01, 0.03, 0.05, 0.1, 0.15)),
    "brighten": (brightness.brighten, (0.1, 0.2, 0.4, 0.7, 1.1)),
    "darken": (brightness.darken, (0.05, 0.1, 0.2, 0.4, 0.8)),
    "mean_shift": (brightness.mean_shift, (0.15, 0.08, 0, -0.08, -0.15)),
    "jitter": (spatial.jitter, (0.05, 0.1, 0.2, 0.5, 1)),
    "non_eccentricity_patch": (spatial.non_eccentricity_patch, (20, 40, 60, 80, 100)),
    "pixelate": (spatial.pixelate, (0.01, 0.05, 0.1, 0.2, 0.5)),
    "quantization": (spatial.quantization, (20, 16, 13, 10, 7)),
    "colour_block": (spatial.colour_block, (2, 4, 6, 8, 10)),
    "high_sharpen": (sharpness.high_sharpen, (1, 2, 3, 6, 12)),
    "contrast_change": (brightness.contrast_change, (0.3, 0.15, 0, -0.4, -0.6)),
}
"""Type -> (function, its amount at level 1 to 5), in KADID-10k's order."""

DISTORTIONS: tuple[str, ...] = tuple(AMOUNTS)
"""The 25 types in KADID-10k's order (type 01 first)."""


def distort(image: Image, kind: str, level: int, rng: np.random.Generator) -> Image:
    """One distortion of one image.

    Args:
        image: uint8 [H, W, 3], RGB.
        kind: one of `DISTORTIONS`.
        level: 1..5 as KADID-10k numbers them. Higher is stronger, except for mean_shift and contrast_change, which are signed (unchanged near 3).
        rng: draws noise, directions and places; the same state gives the same image.

    Returns:
        uint8 [H, W, 3], a new array.

    Raises:
        IncompatibleChoice: `kind` or `level` is none of these.
    """
    if kind not in AMOUNTS:
        raise IncompatibleChoice(f"There is no distortion type {kind!r}. Choose from: {', '.join(DISTORTIONS)}.")
    if level not in range(1, 6):
        raise IncompatibleChoice(f"{kind} has the levels 1 to 5, not {level}.")
    function, amounts = AMOUNTS[kind]
    return to_image(function(to_pixels(image), amounts[level - 1], rng))

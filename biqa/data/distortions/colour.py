"""Colour: diffusion, shift, quantization, saturation (KADID-10k types 4 to 8)."""

import numpy as np
from PIL import Image as PillowImage
from scipy.ndimage import gaussian_filter, shift
from skimage.color import hsv2rgb, rgb2gray, rgb2hsv, rgb2lab

from biqa.data.distortions.pixels import Pixels, lab_to_rgb, to_image, to_pixels, within


def colour_diffusion(pixels: Pixels, amount: float, rng: np.random.Generator) -> Pixels:
    """Colour runs over the edges and grows vivid: Lab's a and b blurred with sigma `1.5 amount + 2` pixels, then multiplied by `amount`."""
    lab = rgb2lab(pixels)
    lab[..., 1:] = amount * gaussian_filter(lab[..., 1:], within(1.5 * amount + 2, pixels), axes=(0, 1), mode="nearest")
    return lab_to_rgb(lab)


def colour_shift(pixels: Pixels, distance: float, rng: np.random.Generator) -> Pixels:
    """The green channel moved by `distance` pixels in a random direction, blended in where the image has edges."""
    grey = rgb2gray(pixels)
    edges = gaussian_filter(np.hypot(*np.gradient(grey)), 4, mode="nearest")
    low, high = np.percentile(edges, (1, 99))
    weight = np.clip((edges - low) / max(high - low, 1e-6), 0.0, 1.0)  # a flat image has no edges
    angle = rng.uniform(0.0, 2 * np.pi)
    reach = within(distance, pixels)
    moved = shift(pixels[..., 1], (round(reach * np.sin(angle)), round(reach * np.cos(angle))), order=0, mode="nearest")
    shifted = pixels.copy()
    shifted[..., 1] += weight * (moved - pixels[..., 1])
    return shifted


def colour_quantization(pixels: Pixels, colours: float, rng: np.random.Generator) -> Pixels:
    """A palette of that many colours (median cut), with Floyd-Steinberg dither."""
    image = PillowImage.fromarray(to_image(pixels))
    palette = image.quantize(int(colours), method=PillowImage.Quantize.MEDIANCUT)
    return to_pixels(np.asarray(image.quantize(palette=palette, dither=PillowImage.Dither.FLOYDSTEINBERG).convert("RGB")))


def colour_saturation_hsv(pixels: Pixels, factor: float, rng: np.random.Generator) -> Pixels:
    """HSV's saturation times `factor`: below 1 paler, 0 grey, negative the complementary colours."""
    hsv = rgb2hsv(pixels)
    hsv[..., 1] *= factor
    # the way back is linear in the saturation, so a negative one, which HSV does not have, lands on the other side of grey
    return hsv2rgb(hsv).astype(np.float32)


def colour_saturation_lab(pixels: Pixels, factor: float, rng: np.random.Generator) -> Pixels:
    """Lab's a and b times `factor`: 1 changes nothing, above it more vivid, up to garish."""
    lab = rgb2lab(pixels)
    lab[..., 1:] *= factor
    return lab_to_rgb(lab)

"""Noise, and what denoising leaves (KADID-10k types 11 to 15). Variances are on the scale 0..1 of a channel."""

import numpy as np
from skimage.color import rgb2ycbcr, ycbcr2rgb
from skimage.restoration import denoise_tv_chambolle

from biqa.data.distortions.pixels import Pixels


def white_noise(pixels: Pixels, variance: float, rng: np.random.Generator) -> Pixels:
    """Gaussian noise added to R, G and B."""
    return pixels + _gaussian(pixels, variance, rng)


def white_noise_ycbcr(pixels: Pixels, variance: float, rng: np.random.Generator) -> Pixels:
    """Gaussian noise added to Y, Cb and Cr, so that most of it is coloured."""
    ycbcr = rgb2ycbcr(pixels) + 255 * _gaussian(pixels, variance, rng)
    return ycbcr2rgb(ycbcr)


def impulse_noise(pixels: Pixels, density: float, rng: np.random.Generator) -> Pixels:
    """Salt and pepper: that share of the samples (each channel by itself) becomes 0 or 1."""
    draw = rng.random(pixels.shape, dtype=np.float32)
    return np.where(draw < density, np.where(draw < density / 2, np.float32(0), np.float32(1)), pixels)


def multiplicative_noise(pixels: Pixels, variance: float, rng: np.random.Generator) -> Pixels:
    """Speckle: each sample times 1 + Gaussian noise, so that bright parts are noisier."""
    return pixels * (1 + _gaussian(pixels, variance, rng))


def denoise(pixels: Pixels, variance: float, rng: np.random.Generator) -> Pixels:
    """Gaussian noise added and taken away again, with the fine detail.

    KADID-10k's authors denoised with a network (DnCNN); here it is total-variation denoising (Chambolle 2004), which needs no weights. Its strength,
    one standard deviation of the noise, leaves the soft patches of the network rather than noise.
    """
    noisy = np.clip(pixels + _gaussian(pixels, variance, rng), 0.0, 1.0)
    return denoise_tv_chambolle(noisy, weight=float(np.sqrt(variance)), eps=0, max_num_iter=30, channel_axis=-1)


def _gaussian(pixels: Pixels, variance: float, rng: np.random.Generator) -> Pixels:
    return rng.standard_normal(pixels.shape, dtype=np.float32) * np.float32(np.sqrt(variance))

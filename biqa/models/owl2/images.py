"""mPLUG-Owl2's images: CLIP's processor after one of the three pre-steps that public code for its checkpoints has."""

from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from transformers.image_transforms import to_pil_image
from transformers.image_utils import SizeDict
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.processing_utils import ImagesKwargs

from biqa.errors import BadRecord, IncompatibleChoice

PreStep = Literal["pad", "squash", "crop"]
MAX_PIXELS = 80_000_000
"""Larger images on the way to the model are refused: about 1 GB of memory. A photograph of 8,900 pixels a side fits."""


class Owl2ImagesKwargs(ImagesKwargs, total=False):
    """CLIP's options and one more."""

    pre_step: str


class Owl2ImageProcessor(CLIPImageProcessorPil):
    """Images of any size and mode to `pixel_values` [images, 3, size, size], normalised with CLIP's mean and standard deviation.

    It always works with Pillow: torchvision's resizing gives other pixels.

    Args:
        pre_step: what happens before CLIP's processing (shortest edge to the size by a bicubic filter, then the middle is cut out).
            pad: the image is centred on a square of CLIP's mean colour (all published training scripts, and the scorers of Q-Align and DeQA-Score).
            squash: it is stretched to a square of its longer edge (README and evaluation of mPLUG-Owl2).
            crop: nothing, so that what stands out of the middle square is lost (evaluation scripts of Q-Instruct).
        kwargs: transformers' own; `size={"shortest_edge": n}` and `crop_size={"height": n, "width": n}` for another size than 448.

    Raises:
        IncompatibleChoice: no such pre-step.
        BadRecord: an image that has no stated range, or becomes larger than MAX_PIXELS on the way.
    """

    valid_kwargs = Owl2ImagesKwargs
    size = {"shortest_edge": 448}  # noqa: RUF012 (transformers' own attributes)
    crop_size = {"height": 448, "width": 448}  # noqa: RUF012
    pre_step: str = "pad"

    def _standardize_kwargs(self, *, pre_step: str, **kwargs: Any) -> dict[str, Any]:  # noqa: ANN401 (transformers' own) # pyright: ignore[reportIncompatibleMethodOverride]
        if pre_step not in get_args(PreStep):
            raise IncompatibleChoice(f"pre_step={pre_step} is none of {', '.join(get_args(PreStep))}.")
        return super()._standardize_kwargs(**kwargs) | {"pre_step": pre_step}

    def process_image(  # pyright: ignore[reportIncompatibleMethodOverride] (all options are always handed over, standardised)
        self,
        image: Any,  # noqa: ANN401 (all that transformers takes for an image)
        *,
        pre_step: str,
        size: SizeDict,
        image_mean: tuple[float, ...],
        **kwargs: Any,  # noqa: ANN401
    ) -> NDArray[np.uint8]:
        """One image after its pre-step: [3, height, width]."""
        picture = image if isinstance(image, Image.Image) else to_pil_image(image)
        _check_size(picture, pre_step, size.shortest_edge or 0)
        background = tuple(int(255 * mean) for mean in image_mean)
        picture = _rgb(picture, background)
        if pre_step == "pad":
            picture = _padded(picture, background)
        elif pre_step == "squash":
            picture = picture.resize((max(picture.size), max(picture.size)))
        return super().process_image(picture, **kwargs)


def _check_size(image: Image.Image, pre_step: str, shortest_edge: int) -> None:
    longer, shorter = max(image.size), min(image.size)
    pixels = shortest_edge**2 * longer // shorter if pre_step == "crop" else longer**2
    if pixels > MAX_PIXELS:
        raise BadRecord(
            f"an image of {image.width} x {image.height} pixels takes {pixels:,} pixels on its way to mPLUG-Owl2 (pre_step={pre_step}), "
            f"and more than {MAX_PIXELS:,} are refused. Scale it down, or cut it."
        )


def _rgb(image: Image.Image, background: tuple[int, ...]) -> Image.Image:
    """8-bit RGB: transparent pixels lie on the background, 16-bit grey is scaled (65535 -> 255) and not cut off."""
    if image.mode in ("I", "F"):
        raise BadRecord(f"an image with 32-bit pixels (mode {image.mode}) has no stated range. Give it 8 or 16 bits.")
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) / 257.0).round().astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        seen = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", seen.size, background), seen).convert("RGB")
    return image.convert("RGB")


def _padded(image: Image.Image, background: tuple[int, ...]) -> Image.Image:
    """The image in the middle of a square, half a pixel to the left and top where it cannot be the middle."""
    side = max(image.size)
    square = Image.new("RGB", (side, side), background)
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square

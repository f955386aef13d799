"""Valid small pictures in every form that people have: the beginnings of mutated ones."""

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import ExifTags, Image

SIZE = (37, 23)


def pictures() -> dict[str, bytes]:
    """Name -> file."""
    return {f"{number:02}-{what}.{ending}": data for number, (what, ending, data) in enumerate(_pictures())}


def _pictures() -> Iterator[tuple[str, str, bytes]]:
    rng = np.random.default_rng(0)
    width, height = SIZE
    smooth = np.linspace(0, 200, width)[None, :, None] + np.linspace(0, 50, height)[:, None, None] * np.ones(3)
    rgb = Image.fromarray(np.clip(smooth + rng.normal(0, 5, smooth.shape), 0, 255).astype(np.uint8))
    alpha = Image.fromarray(np.tile(np.linspace(0, 255, width).astype(np.uint8), (height, 1)))
    rgba = rgb.copy()
    rgba.putalpha(alpha)
    deep = Image.fromarray(np.asarray(rgb.convert("L")).astype(np.uint16) * 257)
    forms = {
        "grey": rgb.convert("L"), "grey-alpha": rgba.convert("LA"), "palette": rgb.quantize(16), "bits": rgb.convert("1"), "rgb": rgb, "rgba": rgba, "deep": deep,
    }  # fmt: skip
    seen = forms["palette"].copy()
    seen.info["transparency"] = 3
    for what, image in forms.items():
        yield what, "png", _saved(image, "png")
        yield what, "tif", _saved(image, "tiff")
    yield "see-through", "png", _saved(seen, "png", transparency=3)
    yield "moving", "png", _saved(rgb, "png", save_all=True, append_images=[rgba.convert("RGB")])
    for orientation in (3, 6, 8):
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = orientation
        exif[ExifTags.Base.Model] = "camera"
        for ending in ("jpeg", "png", "webp", "tiff"):
            yield f"turned-{orientation}", ending, _saved(rgb, ending, exif=exif)
    for what, image in {"grey": forms["grey"], "rgb": rgb, "cmyk": rgb.convert("CMYK")}.items():
        yield what, "jpeg", _saved(image, "jpeg")
        yield f"progressive-{what}", "jpeg", _saved(image, "jpeg", progressive=True, optimize=True)
    yield "restarts", "jpeg", _saved(rgb, "jpeg", subsampling=0, restart_marker_blocks=2, comment=b"said of it")
    yield "lossy", "webp", _saved(rgb, "webp")
    yield "lossless", "webp", _saved(rgba, "webp", lossless=True)
    yield "moving", "webp", _saved(rgb, "webp", save_all=True, append_images=[rgb.rotate(180)])
    for what in ("grey", "palette", "bits", "rgb", "rgba"):
        yield what, "bmp", _saved(forms[what], "bmp")
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
        yield compression, "tif", _saved(rgb, "tiff", compression=compression)
    yield "fax", "tif", _saved(forms["bits"], "tiff", compression="group4")
    yield "float", "tif", _saved(Image.fromarray(np.asarray(forms["grey"]).astype(np.float32)), "tiff")
    yield "pages", "tif", _saved(rgb, "tiff", save_all=True, append_images=[rgb.rotate(180)])
    for what in ("grey", "rgb", "rgba", "deep"):
        yield what, "jp2", _saved(forms[what], "jpeg2000")
    yield "lossy", "j2k", _saved(rgb, "jpeg2000", irreversible=True, quality_layers=[20], no_jp2=True)
    yield "unknown", "gif", _saved(forms["palette"], "gif")


def _saved(image: Image.Image, form: str, **options: Any) -> bytes:
    made = io.BytesIO()
    image.save(made, form, **options)
    return made.getvalue()

"""`model=owl2`: mPLUG-Owl2 from a published checkpoint, or small and from random weights."""

from pathlib import Path
from typing import Any, Literal

import torch

from biqa.errors import IncompatibleChoice
from biqa.models.base import Base
from biqa.models.families import OWL2
from biqa.models.hub import checkpoint_folder
from biqa.models.owl2.configuration import Owl2Config
from biqa.models.owl2.images import Owl2ImageProcessor, PreStep
from biqa.models.owl2.loading import load_owl2
from biqa.models.owl2.modeling import Owl2ForConditionalGeneration
from biqa.models.owl2.processing import Owl2Processor, Template
from biqa.models.owl2.vocabulary import train_tokenizer
from biqa.models.quantization import Quantization, packed
from biqa.models.vlm import VLM, decoder_of

TINY: dict[str, Any] = {
    "hidden_size": 64, "intermediate_size": 112, "num_hidden_layers": 3, "num_attention_heads": 4, "max_position_embeddings": 1024,
    "rms_norm_eps": 1e-5,
    "visual_config": {
        "visual_model": {
            "hidden_size": 32, "intermediate_size": 80, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 56, "patch_size": 14,
        },
        "visual_abstractor": {
            "hidden_size": 32, "encoder_hidden_size": 32, "intermediate_size": 56, "num_hidden_layers": 2, "num_attention_heads": 4,
            "num_learnable_queries": 8, "grid_size": 4,
        },
    },
}  # fmt: skip
"""The architecture small enough for a CPU: it shows that everything runs and learns nothing of use, for 56 pixels hold no traces of compression."""
TINY_VOCABULARY = 2048

FILES = ("*.json", "*.model", "*.bin", "*.safetensors")
"""What is fetched of a checkpoint on the hub: the original ones are pickled, and read as tensors alone."""


def build_owl2(
    *,
    size: Literal["7b", "tiny"],
    path: str | None,
    template: Template,
    pre_step: PreStep,
    dtype: str,
    attention: str,
    vision: bool,
    seed: int,
    quantization: Quantization | None = None,
) -> VLM:
    """The model and its processor.

    Args:
        size: "7b": the checkpoint of `path`; "tiny": `TINY` with random weights drawn from `seed`.
        path: folder of a checkpoint, or its name on the hub; its config.json says the sizes.
        template: form of the prompts (`biqa.models.owl2.processing.TEMPLATES`).
        pre_step: what happens to an image that is not square (`Owl2ImageProcessor`).
        dtype: of the weights, torch's name.
        attention: attention implementation of transformers.
        vision: False builds the decoder alone.
        seed: of random weights.
        quantization: of the decoder's linear layers; None: as they are.

    Raises:
        IncompatibleChoice: no path for 7b, one for tiny, or weights that do not fit.
        RunNotFound: no checkpoint there, or a damaged one.
    """
    if size == "tiny":
        if path is not None:
            raise IncompatibleChoice(f"model.path={path} with model.size=tiny, which has random weights: leave one of them out.")
        return _tiny(template=template, pre_step=pre_step, dtype=dtype, attention=attention, quantization=quantization, vision=vision, seed=seed)
    if path is None:
        raise IncompatibleChoice(
            "model=owl2 needs a checkpoint: model.path=FOLDER, or its name on the hub such as MAGAer13/mplug-owl2-llama2-7b. "
            "To see the whole chain run without one: model.size=tiny."
        )
    folder = checkpoint_folder(path, "model.path", FILES)
    backbone = _loaded(folder, dtype=dtype, attention=attention, vision=vision, quantization=quantization)
    tokens = backbone.config.tokens_per_image
    processor = Owl2Processor.from_pretrained(folder, template=template, pre_step=pre_step, tokens_per_image=tokens)
    return VLM(backbone, processor, OWL2, vision=vision, base=Base.of(path, folder))


def _loaded(folder: Path, *, dtype: str, **options: Any) -> Any:  # noqa: ANN401
    """The model of a checkpoint in training mode, as models made from a config are: what is loaded comes in the other one."""
    return load_owl2(folder, dtype=getattr(torch, dtype), **options).train()


def _tiny(
    *,
    template: Template,
    pre_step: PreStep,
    dtype: str,
    attention: str,
    vision: bool,
    seed: int,
    quantization: Quantization | None = None,
) -> VLM:
    tokenizer = train_tokenizer(TINY_VOCABULARY)
    config = Owl2Config(**TINY, vocab_size=len(tokenizer), pad_token_id=0)
    config._attn_implementation = attention
    side = config.tower.image_size
    seen: dict[str, Any] = {"pre_step": pre_step, "size": {"shortest_edge": side}, "crop_size": {"height": side, "width": side}}
    images = Owl2ImageProcessor(**seen)
    processor = Owl2Processor(images, tokenizer, template=template, tokens_per_image=config.tokens_per_image)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        backbone: Any = Owl2ForConditionalGeneration(config).to(getattr(torch, dtype))
    if quantization is None:
        return VLM(backbone if vision else decoder_of(backbone, OWL2), processor, OWL2, vision=vision)
    how: dict[str, Any] = {"dtype": dtype, "attention": attention, "vision": vision, "quantization": quantization}
    return VLM(packed(backbone, lambda folder: _loaded(folder, **how)), processor, OWL2, vision=vision)

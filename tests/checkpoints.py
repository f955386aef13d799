"""Writer of small checkpoints of every family, laid out on disk as the published ones are: names of weights, config.json, tokenizer, image processor,
chat template. Random weights from a seed.
"""

import json
import re
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    GPT2Tokenizer,
    LlamaTokenizer,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    Qwen2Tokenizer,
)
from transformers.utils.logging import disable_progress_bar

from biqa.models.tiny import _wording, train_tokenizer

VOCABULARY = 640
CHATML = (
    "{% for message in messages %}SYSTEM{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}IMAGE{% else %}{{ part['text'] }}{% endif %}{% endfor %}"
    "{{ '<|im_end|>\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
NO_SYSTEM = CHATML.replace("SYSTEM", "")
HELPFUL = CHATML.replace("SYSTEM", "{% if loop.first %}{{ '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}{% endif %}")
IDEFICS = (
    "BOS{% for message in messages %}{{ message['role'] | capitalize }}{{ ':' if message['content'][0]['type'] == 'image' else ': ' }}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}{% endfor %}"
    "{{ '<end_of_utterance>\\n' }}{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
)
VICUNA = (
    "{% for message in messages %}{{ message['role'] | upper }}: "
    "{% for part in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\\n' }}{% endfor %}"
    "{% for part in message['content'] | selectattr('type', 'equalto', 'text') %}{{ part['text'] + ' ' }}{% endfor %}"
    "{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
TEMPLATES = {
    "llava": VICUNA,
    "smolvlm": IDEFICS.replace("BOS", "<|im_start|>"),
    "idefics3": IDEFICS.replace("BOS", "<|begin_of_text|>"),
    "qwen2_5_vl": HELPFUL.replace("IMAGE", "<|vision_start|><|image_pad|><|vision_end|>"),
    "qwen3_vl": NO_SYSTEM.replace("IMAGE", "<|vision_start|><|image_pad|><|vision_end|>"),
    "internvl": NO_SYSTEM.replace("IMAGE", "{{ '<IMG_CONTEXT>\\n' }}"),
}
IMAGE_TOKENS = {"qwen2_5_vl": "<|image_pad|>", "qwen3_vl": "<|image_pad|>", "internvl": "<IMG_CONTEXT>"}
HALF = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
CLIP = {"image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711]}
COMMON = {"do_convert_rgb": True, "do_normalize": True, "do_rescale": True, "do_resize": True, "rescale_factor": 1 / 255}
IMAGES: dict[str, dict[str, Any]] = {
    "llava": {
        "image_processor_type": "CLIPImageProcessor", "do_center_crop": True, "crop_size": {"height": 28, "width": 28},
        "resample": 3, "size": {"shortest_edge": 28}, **COMMON, **CLIP,
    },
    "smolvlm": {
        "image_processor_type": "SmolVLMImageProcessor", "do_image_splitting": True, "do_pad": True, "max_image_size": {"longest_edge": 28},
        "resample": 1, "size": {"longest_edge": 112}, **COMMON, **HALF,
    },
    "idefics3": {
        "image_processor_type": "Idefics3ImageProcessor", "do_image_splitting": True, "do_pad": True, "max_image_size": {"longest_edge": 28},
        "resample": 1, "size": {"longest_edge": 84}, **COMMON, **HALF,
    },
    "qwen2_5_vl": {
        "image_processor_type": "Qwen2VLImageProcessor", "min_pixels": 4 * 28 * 28, "max_pixels": 30 * 28 * 28, "patch_size": 14,
        "temporal_patch_size": 2, "merge_size": 2, **CLIP,
    },
    "qwen3_vl": {
        "image_processor_type": "Qwen2VLImageProcessorFast", "size": {"longest_edge": 30 * 32 * 32, "shortest_edge": 4 * 32 * 32},
        "patch_size": 16, "temporal_patch_size": 2, "merge_size": 2, **HALF,
    },
    "internvl": {
        "image_processor_type": "GotOcr2ImageProcessorFast", "crop_to_patches": False, "min_patches": 1, "max_patches": 6,
        "resample": 3, "size": {"height": 28, "width": 28}, **COMMON, "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225],
    },
}  # fmt: skip
"""preprocessor_config.json."""
PROCESSORS: dict[str, dict[str, Any]] = {
    "llava": {
        "processor_class": "LlavaProcessor", "image_token": "<image>", "num_additional_image_tokens": 1, "patch_size": 7,
        "vision_feature_select_strategy": "default",
    },
    "smolvlm": {"processor_class": "SmolVLMProcessor", "image_seq_len": 4},
    "idefics3": {"processor_class": "Idefics3Processor", "image_seq_len": 4},
    "internvl": {"processor_class": "InternVLProcessor", "image_seq_length": 4},
}  # fmt: skip
"""processor_config.json, where published ones have it."""
VIDEOS = {
    "qwen2_5_vl": "Qwen2VLVideoProcessor",
    "qwen3_vl": "Qwen3VLVideoProcessor",
    "smolvlm": "SmolVLMVideoProcessor",
    "internvl": "InternVLVideoProcessor",
}
"""Video processors, which want torchvision."""
NAMES = tuple(TEMPLATES)


def write_checkpoint(folder: Path, family: str, *, seed: int = 0, tied: bool | None = None, old_names: bool = True, **changes: Any) -> Path:
    """Write a checkpoint of a family.

    Args:
        folder: where to; made.
        family: `model_type`.
        seed: of the weights.
        tied: whether input and output embeddings are one; None: as in the family's best-known small checkpoint.
        old_names: weights under the names of the time at which the family was published.
        changes: parts of the config to change, `vision_config={...}`.
    """
    tokenizer = write_tokenizer(folder, family)
    values = _configs(family, tokenizer)
    if tied is not None:
        values["tie_word_embeddings"] = tied
    for name, change in changes.items():
        values[name] = {**values.get(name, {}), **change} if isinstance(change, dict) and "model_type" not in change else change
    config = AutoConfig.for_model(values.pop("model_type"), **values)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForImageTextToText.from_config(config)
        _randomise(model)
    disable_progress_bar()
    model.to(torch.bfloat16).save_pretrained(folder, save_original_format=old_names)
    (folder / "preprocessor_config.json").write_text(json.dumps(IMAGES[family]))
    if family in PROCESSORS:
        (folder / "processor_config.json").write_text(json.dumps(PROCESSORS[family]))
    if family in VIDEOS:
        (folder / "video_preprocessor_config.json").write_text(json.dumps({"video_processor_type": VIDEOS[family]}))
    if old_names and config.vision_config.model_type in ("clip_vision_model", "siglip_vision_model"):
        rename_weights(folder, r"^vision_tower\.", "vision_tower.vision_model.")  # which transformers reads and does not write
    if old_names and family == "qwen2_5_vl":
        _flatten(folder / "config.json")
    return folder


def _randomise(model: torch.nn.Module) -> None:
    """Weights so large that a wrong one shows, and no gain, bias or scale at its neutral value."""
    for parameter in model.parameters():
        if parameter.ndim >= 2:
            torch.nn.init.normal_(parameter, std=1.5 / parameter[0].numel() ** 0.5)
        else:
            parameter.data.add_(0.2 * torch.randn_like(parameter))


def rename_weights(folder: Path, pattern: str, replacement: str | None) -> None:
    """Rename the weights of a checkpoint, or leave out those that match."""
    state = load_file(folder / "model.safetensors")
    kept = state.items() if replacement is not None else [(name, value) for name, value in state.items() if not re.search(pattern, name)]
    save_file({re.sub(pattern, replacement or "", name): value for name, value in kept}, folder / "model.safetensors", metadata={"format": "pt"})


def _flatten(file: Path) -> None:
    """config.json with the decoder's values at the top, as Qwen published it."""
    whole = json.loads(file.read_text())
    text = whole.pop("text_config")
    rope = text.pop("rope_parameters")
    text |= {"rope_theta": rope["rope_theta"], "rope_scaling": {"type": "mrope", "mrope_section": rope["mrope_section"]}}
    kept = {name: value for name, value in text.items() if name not in ("model_type", "layer_types", "tie_word_embeddings")}
    file.write_text(json.dumps(kept | whole))


def _configs(family: str, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    image_token = tokenizer.convert_tokens_to_ids(IMAGE_TOKENS.get(family, "<image>"))
    text = {
        "vocab_size": -(-len(tokenizer) // 32) * 32 + 32,  # padded, as published ones are
        "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "max_position_embeddings": 4096, "eos_token_id": tokenizer.eos_token_id, "bos_token_id": tokenizer.bos_token_id,
    }  # fmt: skip
    tower = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 28, "patch_size": 7}
    qwen_tower = {"depth": 2, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "out_hidden_size": 32}
    tokens = {
        f"{name}_token_id": tokenizer.convert_tokens_to_ids(f"<|{token}|>")
        for name, token in (("image", "image_pad"), ("video", "video_pad"), ("vision_start", "vision_start"), ("vision_end", "vision_end"))
    }
    made: dict[str, dict[str, Any]] = {
        "llava": {
            "text_config": {"model_type": "llama", **text, "num_key_value_heads": 4},
            "vision_config": {"model_type": "clip_vision_model", **tower, "projection_dim": 32},
            "image_token_index": image_token, "vision_feature_layer": -2, "tie_word_embeddings": False,
        },
        "smolvlm": {
            "text_config": {"model_type": "llama", **text}, "vision_config": tower,
            "image_token_id": image_token, "scale_factor": 2, "tie_word_embeddings": False,
        },
        "idefics3": {
            "text_config": {"model_type": "llama", **text}, "vision_config": tower,
            "image_token_id": image_token, "scale_factor": 2, "tie_word_embeddings": False,
        },
        "qwen2_5_vl": {
            "text_config": {**text, "hidden_size": 64, "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3]}},
            "vision_config": {
                **qwen_tower, "out_hidden_size": 64, "window_size": 56, "fullatt_block_indexes": [1], "patch_size": 14,
            },
            **tokens, "tie_word_embeddings": True,
        },
        "qwen3_vl": {
            "text_config": {
                **text, "num_hidden_layers": 3, "head_dim": 16,
                "rope_parameters": {"rope_type": "default", "rope_theta": 5e6, "mrope_section": [4, 2, 2], "mrope_interleaved": True},
            },
            "vision_config": {**qwen_tower, "depth": 3, "patch_size": 16, "num_position_embeddings": 16, "deepstack_visual_indexes": [0, 1]},
            **tokens, "tie_word_embeddings": True,
        },
        "internvl": {
            "text_config": {"model_type": "qwen2", **text, "tie_word_embeddings": True},
            "vision_config": {**tower, "attention_bias": True}, "image_token_id": image_token, "image_seq_length": 4,
            "downsample_ratio": 0.5, "tie_word_embeddings": True,
        },
    }  # fmt: skip
    return {"model_type": family, **made[family]}


# tokenizers


@lru_cache
def _bytes_bpe() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary and merges of a byte-level BPE without special tokens."""
    model = json.loads(train_tokenizer(VOCABULARY).to_str())["model"]
    special = ("<pad>", "<s>", "</s>", "<image>")
    words = [word for word, _ in sorted(model["vocab"].items(), key=lambda pair: pair[1]) if word not in special]
    return {word: index for index, word in enumerate(words)}, [(merge[0], merge[1]) for merge in model["merges"]]


@lru_cache
def _pieces_bpe() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary and merges of a BPE with sentencepiece's ▁ for a space and one token a byte, as LLaMA has it."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Metaspace(), pre_tokenizers.Split("▁", "merged_with_next"), pre_tokenizers.Digits(individual_digits=True)]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))], show_progress=False
    )
    tokenizer.train_from_iterator([line.strip() for line in _wording()], trainer)
    model = json.loads(tokenizer.to_str())["model"]
    return model["vocab"], [(merge[0], merge[1]) for merge in model["merges"]]


def write_tokenizer(folder: Path, family: str) -> PreTrainedTokenizerBase:
    """Write a small tokenizer of the family's kind with its special tokens and chat template."""
    tokenizer = TOKENIZERS[family]()
    tokenizer.chat_template = TEMPLATES[family]
    tokenizer.save_pretrained(folder)
    return tokenizer


def _llava() -> PreTrainedTokenizerBase:
    vocabulary, merges = _pieces_bpe()
    tokenizer = LlamaTokenizer(vocab=dict(vocabulary), merges=merges, legacy=False, add_bos_token=True)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"], "pad_token": "<pad>"})
    return tokenizer


def _smolvlm() -> PreTrainedTokenizerBase:
    vocabulary, merges = _bytes_bpe()
    tokenizer = GPT2Tokenizer(
        vocab=dict(vocabulary), merges=merges, unk_token="<|endoftext|>", bos_token="<|im_start|>", eos_token="<end_of_utterance>", pad_token="<|im_end|>",
    )  # fmt: skip
    places = [f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)]
    tokenizer.add_special_tokens(
        {"additional_special_tokens": ["<fake_token_around_image>", "<image>", "<end_of_utterance>", "<global-img>", *places]}
    )
    return tokenizer


def _idefics3() -> PreTrainedTokenizerBase:
    """As LLaMA 3 has it: a byte-level BPE that writes its first token itself. Rows and columns of tiles are plain text."""
    vocabulary, merges = _bytes_bpe()
    inner = Tokenizer(models.BPE(vocab=dict(vocabulary), merges=merges, ignore_merges=True))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = Tokenizer.from_str(train_tokenizer(VOCABULARY).to_str()).decoder
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<|begin_of_text|>", eos_token="<|end_of_text|>", pad_token="<|reserved_special_token_0|>"
    )
    tokenizer.add_special_tokens({"additional_special_tokens": ["<fake_token_around_image>", "<image>", "<end_of_utterance>"]})
    tokenizer._tokenizer.post_processor = processors.TemplateProcessing(
        single="<|begin_of_text|> $A", special_tokens=[("<|begin_of_text|>", tokenizer.bos_token_id)]
    )
    return tokenizer


def _qwen(**more: str) -> PreTrainedTokenizerBase:
    vocabulary, merges = _bytes_bpe()
    tokenizer = Qwen2Tokenizer(
        vocab=dict(vocabulary), merges=merges, eos_token="<|im_end|>", pad_token="<|endoftext|>", extra_special_tokens=dict(more)
    )  # fmt: skip
    special = ["<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
    tokenizer.add_special_tokens({"additional_special_tokens": [*special, *more.values()]})
    return tokenizer


def _internvl() -> PreTrainedTokenizerBase:
    return _qwen(start_image_token="<img>", end_image_token="</img>", context_image_token="<IMG_CONTEXT>", video_token="<video>")


TOKENIZERS: dict[str, Callable[[], PreTrainedTokenizerBase]] = {
    "llava": _llava, "smolvlm": _smolvlm, "idefics3": _idefics3, "qwen2_5_vl": _qwen, "qwen3_vl": _qwen, "internvl": _internvl,
}  # fmt: skip

"""mPLUG-Owl2 as transformers' models are: whole, and its decoder alone. The computation itself is LLaMA's, with the layers of `decoder`.

Shapes: B rows, L positions, D width. Module names are those of the original checkpoints, which therefore load as they are.
"""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Cache, GenerationConfig
from transformers import initialization as init
from transformers.generation.utils import GenerateOutput
from transformers.modeling_outputs import BaseModelOutputWithPast, BaseModelOutputWithPooling, CausalLMOutputWithPast
from transformers.models.llama.modeling_llama import LlamaForCausalLM, LlamaModel, LlamaPreTrainedModel, LlamaRMSNorm, LlamaRotaryEmbedding

from biqa.errors import IncompatibleChoice
from biqa.models.memory import REMEMBERED
from biqa.models.owl2.configuration import IMAGE_TOKEN_ID, Owl2Config
from biqa.models.owl2.decoder import Owl2Attention, Owl2DecoderLayer
from biqa.models.owl2.vision import Abstractor, AbstractorAttention, Tower, TowerEmbeddings, patch_positions, query_positions


class Owl2PreTrainedModel(LlamaPreTrainedModel):
    """What transformers needs to know of the architecture."""

    config: Owl2Config  # pyright: ignore[reportIncompatibleVariableOverride] (transformers' own custom)
    _no_split_modules = ["Owl2DecoderLayer", "TowerLayer", "AbstractorLayer"]  # noqa: RUF012 (transformers' own attribute)
    _can_record_outputs = {"hidden_states": Owl2DecoderLayer, "attentions": Owl2Attention}  # noqa: RUF012
    # the base checkpoint holds 32 of these and lacks those; both are computed
    _keys_to_ignore_on_load_unexpected = [r"rotary_emb\.inv_freq$"]  # noqa: RUF012
    _keys_to_ignore_on_load_missing = [r"[qk]_pos_embed$"]  # noqa: RUF012

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, TowerEmbeddings):
            init.normal_(module.cls_token, std=self.config.initializer_range)
            init.normal_(module.position_embedding, std=self.config.initializer_range)
        elif isinstance(module, Abstractor):
            init.normal_(module.query_embeds, std=self.config.initializer_range)
            init.normal_(module.vit_eos, std=self.config.initializer_range)
        elif isinstance(module, AbstractorAttention):
            # buffers that a checkpoint lacks come out of its loading as empty memory
            init.copy_(module.q_pos_embed, query_positions(self.config.abstractor))
            init.copy_(module.k_pos_embed, patch_positions(self.config.abstractor))


class Owl2Model(Owl2PreTrainedModel, LlamaModel):  # pyright: ignore[reportIncompatibleVariableOverride]
    """Tower, abstractor and decoder without its head; with `has_vision=False` the decoder alone."""

    def __init__(self, config: Owl2Config) -> None:
        Owl2PreTrainedModel.__init__(self, config)  # not LlamaModel's, which would allocate layers of its own first
        self.padding_idx = config.pad_token_id
        self.vocab_size = config.vocab_size
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size, self.padding_idx)
        self.layers = nn.ModuleList([Owl2DecoderLayer(config, index) for index in range(config.num_hidden_layers)])
        self.norm = LlamaRMSNorm(config.hidden_size, config.rms_norm_eps)
        self.rotary_emb = LlamaRotaryEmbedding(config)
        self.gradient_checkpointing = False
        if config.has_vision:
            self.vision_model = Tower(config)
            self.visual_abstractor = Abstractor(config)
        self.post_init()

    def forward(  # noqa: PLR0917 (transformers' own signature)
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        pixel_values: Tensor | None = None,
        visual: Tensor | None = None,
        mm_encoder_outputs: Mapping[str, Any] | None = None,
        cache: Cache | None = None,
        **kwargs: Any,  # noqa: ANN401 (transformers' own)
    ) -> BaseModelOutputWithPast:
        """Last hidden states [B, L, D].

        Args:
            input_ids: [B, L], IMAGE_TOKEN_ID where a visual token goes (`tokens_per_image` in a row for each image).
            attention_mask: [B, past + L], 1 on real positions, which may stand on either side.
            position_ids: [B, L]; None: counted over all positions, as the original does.
            past_key_values: the cache, extended in place.
            inputs_embeds: [B, L, D] instead of input_ids, with `visual`.
            use_cache: whether to make a cache where there is none.
            pixel_values: [N, 3, H, W], images in the order of the rows; a row may have none or several.
            visual: [B, L] bool, True on visual tokens; None: all are text.
            mm_encoder_outputs: "image": what `get_image_features` returned, in place of pixel_values.
            cache: what transformers 5.24 and later call past_key_values.
            kwargs: transformers' other options.

        Raises:
            ValueError: the places for visual tokens are not those that the images fill.
        """
        if inputs_embeds is None:
            assert input_ids is not None, "input_ids or inputs_embeds"
            features = torch.cat(tuple(mm_encoder_outputs["image"].pooler_output)) if mm_encoder_outputs else None
            inputs_embeds, visual = self.embed(input_ids, pixel_values, features)
        kwargs |= {"attention_mask": attention_mask, "position_ids": position_ids, "use_cache": use_cache}
        kwargs[REMEMBERED] = past_key_values if cache is None else cache
        kwargs["visual"] = visual  # LlamaModel hands on to its layers what it does not know itself
        return super().forward(inputs_embeds=inputs_embeds, **kwargs)

    def get_image_features(self, pixel_values: Tensor, return_dict: bool = True) -> BaseModelOutputWithPooling:
        """What tower and abstractor make of images [N, 3, H, W]: `pooler_output` is one [tokens_per_image, D] for each."""
        assert self.config.has_vision, "a decoder alone cannot take images"
        made: Any = tuple(self.visual_abstractor(self.vision_model(pixel_values)))
        return BaseModelOutputWithPooling(pooler_output=made)

    def embed(self, input_ids: Tensor, pixel_values: Tensor | None, features: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Embeddings [B, L, D] with the images in their places, and which positions are visual [B, L]; None for text alone.

        Args:
            input_ids: [B, L], IMAGE_TOKEN_ID where a visual token goes.
            pixel_values: [N, 3, H, W], images in the order of the rows.
            features: [visual tokens, D], what `get_image_features` made of them, in their place.

        Raises:
            ValueError: the places for visual tokens are not those that the images fill.
        """
        if pixel_values is not None:
            made: Any = self.get_image_features(pixel_values).pooler_output
            features = torch.cat(made)
        if not torch.compiler.is_compiling():
            self._check_places(input_ids, 0 if features is None else len(features) // self.config.tokens_per_image)
        if features is None:
            return self.embed_tokens(input_ids), None
        visual = input_ids == IMAGE_TOKEN_ID
        embeddings = self.embed_tokens(input_ids.masked_fill(visual, 0))
        return embeddings.masked_scatter(visual[..., None], features.to(embeddings.dtype)), visual

    def _check_places(self, input_ids: Tensor, images: int) -> None:
        if images == 0 and input_ids.shape[1] == 1:
            return  # a step of decoding, which should not wait for the device
        places, each = int((input_ids == IMAGE_TOKEN_ID).sum()), self.config.tokens_per_image
        if places != images * each:
            raise ValueError(f"{images} images fill {images * each} places ({each} each), but the prompts have {places} for them.")


class Owl2ForCausalLM(Owl2PreTrainedModel, LlamaForCausalLM):  # pyright: ignore[reportIncompatibleVariableOverride]
    """The decoder alone, with the way of text alone: `has_vision=False`, whatever the config says. Of a whole checkpoint it loads its own part."""

    model: Owl2Model
    _keys_to_ignore_on_load_unexpected = [  # noqa: RUF012
        r"rotary_emb\.inv_freq$", r"^model\.(vision_model|visual_abstractor)\.", r"\.multiway\.1\.",
    ]  # fmt: skip

    def __init__(self, config: Owl2Config) -> None:
        if config.has_vision:
            config = copy.deepcopy(config)
            config.has_vision = False
        Owl2PreTrainedModel.__init__(self, config)
        _add_parts(self, config)


class Owl2ForConditionalGeneration(Owl2PreTrainedModel, LlamaForCausalLM):  # pyright: ignore[reportIncompatibleVariableOverride]
    """mPLUG-Owl2 as a whole.

    Raises:
        IncompatibleChoice: the config is that of a decoder alone.
    """

    model: Owl2Model

    def __init__(self, config: Owl2Config) -> None:
        if not config.has_vision:
            raise IncompatibleChoice(
                "has_vision=false in config.json: this mPLUG-Owl2 is a decoder without its vision tower and cannot look at images. "
                "Use a whole checkpoint, or a stage that needs no image."
            )
        Owl2PreTrainedModel.__init__(self, config)
        _add_parts(self, config)

    def forward(  # noqa: PLR0917 (transformers' own signature)
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        pixel_values: Tensor | None = None,
        visual: Tensor | None = None,
        cache: Cache | None = None,
        **kwargs: Any,  # noqa: ANN401 (transformers' own)
    ) -> CausalLMOutputWithPast:
        """As LlamaForCausalLM's, with `pixel_values` or `visual` as in `Owl2Model.forward`.

        Args:
            labels: [B, L], -100 where nothing is to be learnt, as on every visual token; the loss is the mean cross-entropy of the rest.
            logits_to_keep: how many last positions get logits; 0: all.

        Raises:
            ValueError: the places for visual tokens are not those that the images fill.
        """
        kwargs |= {"input_ids": input_ids, "inputs_embeds": inputs_embeds, "visual": visual, "pixel_values": pixel_values, "labels": labels}
        kwargs |= {"attention_mask": attention_mask, "position_ids": position_ids, "use_cache": use_cache}
        kwargs[REMEMBERED] = past_key_values if cache is None else cache
        return super().forward(logits_to_keep=logits_to_keep, **kwargs)

    @torch.no_grad()
    def generate(  # pyright: ignore[reportIncompatibleMethodOverride] (named arguments only)
        self,
        inputs: Tensor | None = None,
        generation_config: GenerationConfig | None = None,
        *,
        input_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        **kwargs: Any,  # noqa: ANN401 (transformers' own)
    ) -> GenerateOutput | torch.LongTensor:
        """As GenerationMixin's, but the answer holds NEW TOKENS ONLY, without the prompt: [B * num_return_sequences, steps].

        Images are encoded once, before rows are repeated for beams or for several answers: repeating `pixel_values` instead would put the images
        of a prompt that has several into the wrong places. Placeholders lie outside the vocabulary and must not reach logits processors.

        Args:
            inputs: [B, L] prompts with placeholders, like `input_ids`; padded on the left if at all.
            generation_config: transformers' own; `kwargs` take its options too.
            input_ids: see `inputs`.
            pixel_values: [N, 3, H, W], images in the order of the rows.
            kwargs: transformers' other options. Without `attention_mask` every position counts as real.

        Raises:
            ValueError: the places for visual tokens are not those that the images fill.
        """
        prompts = input_ids if inputs is None else inputs
        if prompts is not None:
            kwargs["inputs_embeds"], kwargs["visual"] = self.model.embed(prompts, pixel_values)
        return super().generate(generation_config=generation_config, **kwargs)  # pyright: ignore[reportAttributeAccessIssue]

    def prepare_inputs_for_generation(  # pyright: ignore[reportIncompatibleMethodOverride] (named arguments only)
        self,
        input_ids: Tensor,
        inputs_embeds: Tensor | None = None,
        visual: Tensor | None = None,
        is_first_iteration: bool | None = False,
        **kwargs: Any,  # noqa: ANN401 (transformers' own)
    ) -> dict[str, Any]:
        """Inputs of one step: `visual` belongs to the prompt's embeddings, and what is generated is text."""
        kwargs |= {"inputs_embeds": inputs_embeds, "is_first_iteration": is_first_iteration}
        step = super().prepare_inputs_for_generation(input_ids, **kwargs)  # pyright: ignore[reportAttributeAccessIssue]
        if is_first_iteration and visual is not None:
            step["visual"] = visual[:, -step["inputs_embeds"].shape[1] :]  # fewer where a cache holds the beginning
        return step


def _add_parts(model: Owl2ForCausalLM | Owl2ForConditionalGeneration, config: Owl2Config) -> None:
    """What LlamaForCausalLM's own __init__ would build with LlamaModel."""
    model.model = Owl2Model(config)
    model.vocab_size = config.vocab_size
    model.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
    model.post_init()

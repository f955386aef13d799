"""A stand-in for the package vllm, with the fixture `vllm` that installs it: a test module asks for it with `pytest_plugins = ["vllm_stand_in"]`.

It takes what vLLM 0.32 takes and refuses what that refuses, as far as biqa uses it, and computes real answers slowly: transformers and PEFT read the
weights, each token is one whole forward pass, and an answer's random numbers come from a seed of its own, as vLLM has it.
"""

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
ARCHITECTURES = (
    "LlavaForConditionalGeneration", "SmolVLMForConditionalGeneration", "Idefics3ForConditionalGeneration", "Qwen2_5_VLForConditionalGeneration",
    "Qwen3VLForConditionalGeneration", "InternVLForConditionalGeneration", "LlamaForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM",
)  # fmt: skip
PROMPT_KEYS = {"prompt_token_ids", "multi_modal_data", "multi_modal_uuids"}


@dataclass(kw_only=True)
class SamplingParams:
    """Those of vLLM's that biqa sets, with vLLM's checks."""

    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int | None = None
    stop_token_ids: list[int] = field(default_factory=list)
    ignore_eos: bool = False
    max_tokens: int = 16
    detokenize: bool = True
    logprob_token_ids: list[int] | None = None

    def __post_init__(self) -> None:
        if not 0.0 <= self.temperature <= 2.0:
            raise ValueError(f"temperature must be in [0, 2], got {self.temperature}.")
        if self.temperature < 1e-5 and self.n > 1:
            raise ValueError(f"n must be 1 when using greedy sampling, got {self.n}.")
        if not 0.0 < self.top_p <= 1.0:
            raise ValueError(f"top_p must be in (0, 1], got {self.top_p}.")
        if self.max_tokens < 1:
            raise ValueError(f"max_tokens must be at least 1, got {self.max_tokens}.")
        if not all(isinstance(token, int) for token in self.stop_token_ids):
            raise ValueError("stop_token_ids must contain only integers")
        if self.seed is not None and not 0 <= self.seed < 2**63:
            raise ValueError("a seed travels as a 64-bit number")


@dataclass(frozen=True)
class LoRARequest:
    """An adapter."""

    lora_name: str
    lora_int_id: int
    lora_path: str

    def __post_init__(self) -> None:
        if self.lora_int_id < 1:
            raise ValueError(f"id must be > 0, got {self.lora_int_id}")
        assert self.lora_path, "lora_path cannot be empty"


class LLM:
    """vLLM's class of that name. `started` lists what was started; `deaf` leaves adapters without effect, `broken` is raised at the start."""

    started: ClassVar["list[LLM]"] = []
    deaf = False
    broken: Exception | None = None

    def __init__(
        self, model: str, *, trust_remote_code: bool, dtype: str, tensor_parallel_size: int, gpu_memory_utilization: float, max_model_len: int,
        enable_prefix_caching: bool, generation_config: str, logprobs_mode: str, hf_overrides: dict[str, str],
        limit_mm_per_prompt: dict[str, int] | None = None, enable_lora: bool = False, max_lora_rank: int = 16, max_loras: int = 1,
    ) -> None:  # fmt: skip
        if self.broken is not None:
            raise self.broken
        self.folder = Path(model)
        config = json.loads((self.folder / "config.json").read_text())
        (self.architecture,) = config["architectures"]
        if self.architecture not in ARCHITECTURES:
            raise ValueError(f"Model architectures {config['architectures']} are not supported for now.")
        if max_lora_rank not in RANKS:
            raise ValueError(f"max_lora_rank: Input should be one of {RANKS}")
        if not (0 < gpu_memory_utilization <= 1 and max_model_len >= -1 and tensor_parallel_size >= 1):
            raise ValueError("out of range")
        assert (trust_remote_code, generation_config, logprobs_mode) == (False, "vllm", "raw_logprobs")
        assert hf_overrides == {"head_dtype": "float32"}
        self.images = (limit_mm_per_prompt or {}).get("image", 999)
        self.longest = 4096 if max_model_len == -1 else max_model_len
        self.rank = max_lora_rank if enable_lora else 0
        self.sees = self.architecture.endswith("ForConditionalGeneration")
        kind: Any = AutoModelForImageTextToText if self.sees else AutoModelForCausalLM
        self.model: Any = kind.from_pretrained(self.folder, dtype=getattr(torch, dtype), trust_remote_code=False).eval()
        self.adapter: str | None = None
        self.answered: list[list[int]] = []
        """Token ids of every answer, in the order in which they were asked for."""
        self.script: list[int] | None = None
        """What every answer says, in place of what the model would say."""
        self.running = True
        self.llm_engine = SimpleNamespace(engine_core=SimpleNamespace(shutdown=self._shutdown))
        if self.sees and self.images:
            from biqa.models.families import FAMILIES
            from biqa.models.processing import Processor

            self.family = FAMILIES[config["model_type"]]
            self.processor = Processor(self.folder, self.model.config.image_token_id)
        LLM.started.append(self)

    def _shutdown(self, timeout: float | None = None) -> None:
        self.running = False

    def generate(
        self, prompts: Sequence[dict[str, Any]], sampling_params: Sequence[SamplingParams], *, use_tqdm: bool, lora_request: LoRARequest | None
    ) -> list[SimpleNamespace]:
        """Answers, as vLLM returns them."""
        assert self.running, "it was stopped"
        if len(prompts) != len(sampling_params):
            raise ValueError("The lengths of prompts and sampling_params must be the same.")
        self._load(lora_request)
        with torch.inference_mode():
            return [self._answered(prompt, params) for prompt, params in zip(prompts, sampling_params, strict=True)]

    def _load(self, request: LoRARequest | None) -> None:
        path = None if request is None else request.lora_path
        if path is None or path == self.adapter:
            return
        config = json.loads((Path(path) / "adapter_config.json").read_text())
        if config.get("modules_to_save"):
            raise ValueError('vLLM only supports modules_to_save being either None or ["classifier", "score"] for classification models.')
        if config["r"] > self.rank:
            raise ValueError(f"LoRA rank {config['r']} is greater than max_lora_rank {self.rank}.")
        self.adapter = path
        if not self.deaf:
            self.model = PeftModel.from_pretrained(self.model, path).eval()

    def _answered(self, prompt: dict[str, Any], params: SamplingParams) -> SimpleNamespace:
        assert prompt.keys() <= PROMPT_KEYS, prompt.keys()
        ids, embedded = self._embedded(prompt)
        if len(ids) >= self.longest:
            raise ValueError(f"The decoder prompt (length {len(ids)}) is longer than the maximum model length of {self.longest}.")
        outputs = [self._output(embedded, params, index) for index in range(params.n)]
        return SimpleNamespace(prompt_token_ids=ids, outputs=outputs)

    def _embedded(self, prompt: dict[str, Any]) -> tuple[list[int], torch.Tensor]:
        """Token ids with the image in full, and what the decoder is given for them: [1, L, D]. An answer may hold the image's token as a word."""
        ids = list(prompt["prompt_token_ids"])
        if "multi_modal_data" not in prompt:
            return ids, self._words(ids)
        if self.images < 1:
            raise ValueError("At most 0 image(s) may be provided in one prompt.")
        assert isinstance(prompt["multi_modal_uuids"]["image"], str)
        made = self.processor.image_processor(images=[prompt["multi_modal_data"]["image"]], return_tensors="pt", **dict(self.family.image_options))
        text = self.family.placeholder(self.model.config, made, self.processor.image_token)
        place = ids.index(token := self.model.config.image_token_id)
        whole = self.processor.tokenizer(text, add_special_tokens=False)["input_ids"]
        ids[place : place + 1] = whole
        embedded = self._words(ids)
        where = [place + at for at, one in enumerate(whole) if one == token]
        features = self.model.get_image_features(**self.family.batch(self.family.seen(made)), return_dict=True).pooler_output
        embedded[0, where] = torch.cat(list(features))
        return ids, embedded

    def _words(self, ids: list[int]) -> torch.Tensor:
        return self.model.get_input_embeddings()(torch.tensor([ids]))

    def _output(self, embedded: torch.Tensor, params: SamplingParams, index: int) -> SimpleNamespace:
        generator = torch.Generator().manual_seed((params.seed or 0) + index)
        written: list[int] = []
        logprobs: list[dict[int, SimpleNamespace]] = []
        most = min(params.max_tokens, self.longest - embedded.shape[1])
        while len(written) < most and not (written and written[-1] in params.stop_token_ids):
            logits = self.model(inputs_embeds=embedded).logits[0, -1].float()
            token = int(logits.argmax())
            if params.temperature >= 1e-5:
                token = _drawn(logits / params.temperature, params.top_p, generator)
            if self.script is not None and params.logprob_token_ids is None:
                token = self.script[len(written)]
            written.append(token)
            embedded = torch.cat([embedded, self._words([token])], 1)
            logarithms = logits.log_softmax(-1)
            logprobs.append({asked: SimpleNamespace(logprob=float(logarithms[asked])) for asked in (token, *(params.logprob_token_ids or ()))})
        if params.logprob_token_ids is None:
            self.answered.append(written)
        finish = "stop" if written[-1] in params.stop_token_ids else "length"
        return SimpleNamespace(token_ids=tuple(written), logprobs=logprobs if params.logprob_token_ids else None, finish_reason=finish)


def _drawn(logits: torch.Tensor, top_p: float, generator: torch.Generator) -> int:
    """A token by the exponential race that vLLM draws by, out of the likeliest that reach `top_p`."""
    ordered, order = logits.softmax(-1).sort(descending=True)
    ordered[ordered.cumsum(-1) - ordered >= top_p] = 0.0
    noise = torch.empty_like(ordered).exponential_(generator=generator)
    return int(order[(ordered / noise).argmax()])


@pytest.fixture
def vllm(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[LLM]]:
    """The stand-in, as an installed package of a build for the CPU; gives its `LLM`."""
    place = tmp_path_factory.mktemp("packages")
    (place / "vllm" / "lora").mkdir(parents=True)
    (place / "vllm" / "__init__.py").write_text("from vllm_stand_in import LLM, SamplingParams\n")
    (place / "vllm" / "lora" / "__init__.py").write_text("")
    (place / "vllm" / "lora" / "request.py").write_text("from vllm_stand_in import LoRARequest\n")
    metadata = place / "vllm-0.32.0+cpu.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm\nVersion: 0.32.0+cpu\n")
    monkeypatch.syspath_prepend(place)
    for name in ("VLLM_NO_USAGE_STATS", "VLLM_LOGGING_LEVEL"):
        monkeypatch.setenv(name, "")  # which the engine sets, back afterwards
        monkeypatch.delenv(name)
    LLM.started, LLM.deaf, LLM.broken = [], False, None
    yield LLM
    for name in [name for name in sys.modules if name == "vllm" or name.startswith("vllm.")]:
        del sys.modules[name]

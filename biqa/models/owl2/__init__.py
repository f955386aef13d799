"""mPLUG-Owl2 (Ye et al., arXiv 2311.04257) on today's transformers: importing this package makes the Auto classes know it."""

from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

from biqa.models.owl2.configuration import Owl2Config
from biqa.models.owl2.modeling import Owl2ForCausalLM, Owl2ForConditionalGeneration
from biqa.models.owl2.processing import register

AutoConfig.register(Owl2Config.model_type, Owl2Config, exist_ok=True)
AutoModelForImageTextToText.register(Owl2Config, Owl2ForConditionalGeneration, exist_ok=True)
AutoModelForCausalLM.register(Owl2Config, Owl2ForCausalLM, exist_ok=True)
register()

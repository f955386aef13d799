"""Checkpoints that are not there, not whole, or not what was asked for: one message, exit code 2, nothing written."""

import re

import pytest

pytest_plugins = ["small_runs"]


@pytest.fixture
def refused(call, synthetic, tmp_path):
    """A run that must be refused: its message."""
    small = [option for option in synthetic if not option.startswith("model.")]

    def message(*options):
        runs = tmp_path / "runs"
        done = call("biqa.run", *small, f"runs={runs}", "tuning=lora", *options)
        assert done.code == 2, done.out + done.err
        assert "Traceback" not in done.out + done.err
        assert not runs.exists()
        return done.err

    return message


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["model=hf"], r"this model needs a checkpoint: model\.id=FOLDER, or its name on the hub such as"),
        (["model=smolvlm"], r"model\.id=HuggingFaceTB/SmolVLM2-2\.2B-Instruct: there is no such folder, it is not in the cache .*hub, and the hub has it not or "
         r"cannot be reached .*hf download HuggingFaceTB/SmolVLM2-2\.2B-Instruct; then copy that cache here \(HF_HOME says where\), or name the downloaded"),
        (["model=hf", "model.id=some/model", "model.revision=v2"], r"hf download some/model --revision v2;"),
        (["model=hf", "model.id=/no/such/folder"], r"model\.id=/no/such/folder: there is no such folder, and it is no name on the hub, such as org/model\."),
        (["model=llava", "model.id={qwen2_5_vl}"],
         r"config\.json: a model of type qwen2_5_vl, not llava\. Choose model=qwen2_5_vl \(or model=hf, which takes any\), with the same model\.id\."),
        (["model=hf", "model.id={smolvlm}", "model.visual_tokens=0"], r"model\.visual_tokens=0: choose 1 or more\."),
        (["model=hf", "model.id={smolvlm}", "model.visual_tokens=3"], r"model\.visual_tokens=3: an image takes at least 4 tokens in this model\. Choose 4 or more\."),
        (["model=hf", "model.id={smolvlm}", "model.image={sizes:3}"], r"model\.image: SmolVLMImageProcessorPil has no setting sizes\. It has .*max_image_size"),
        (["model=hf", "model.id={smolvlm}", "model.image={size:{width:3}}"], r"model\.image=\{'size': \{'width': 3\}\}: SmolVLMImageProcessorPil refuses it: "),
        (["model=hf", "model.id={qwen3_vl}", "model.image={size:big}"], r"model\.image=\{'size': 'big'\}: Qwen2VLImageProcessorPil refuses it: "),
        (["model=hf", "model.id={smolvlm}", "model.image=big"], r"model\.image=big: give settings by name, such as model\.image=\{size:\{longest_edge:1024\}\}\."),
        (["model=hf", "model.id={smolvlm}", "model.dtype=float8"], r"model\.dtype=float8 is not known: choose float32, bfloat16, float16\."),
    ],
)  # fmt: skip
def test_an_option_that_does_not_fit(refused, checkpoint, options, message):
    places = {family: checkpoint(family) for family in ("qwen2_5_vl", "qwen3_vl", "smolvlm")}
    assert re.search(message, refused(*(option.format(**places) if option.startswith("model.id") else option for option in options)))


def test_a_checkpoint_without_weights(refused, checkpoint, tmp_path):
    for name in ("config.json", "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (tmp_path / name).write_bytes((checkpoint("smolvlm") / name).read_bytes())
    error = refused("model=hf", f"model.id={tmp_path}")
    assert error.startswith(f"{tmp_path}: its weights cannot be read: ")
    assert error.endswith("Download the checkpoint again.")

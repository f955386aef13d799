"""What somebody does who has no biqa: torch, transformers and peft alone. A program of its own, and the writer of what it is asked.

python plain_models.py FOLDER    # reads FOLDER/asked.json and FOLDER/inputs.safetensors, writes FOLDER/logits.safetensors
"""

import json
import sys
from pathlib import Path

import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoTokenizer


def main(folder: Path) -> None:
    """Answer with every model of asked.json: {name: {"base": folder or null, "adapter": folder or null, "merged": folder or null, "text": bool}}."""
    asked = json.loads((folder / "asked.json").read_text())
    given = load_file(folder / "inputs.safetensors")
    answers = {}
    for name, one in asked.items():
        kind = AutoModelForCausalLM if one["text"] else AutoModelForImageTextToText
        if one["merged"]:
            model = kind.from_pretrained(one["merged"])
            assert AutoTokenizer.from_pretrained(one["merged"]).chat_template
        else:
            named = json.loads((Path(one["adapter"]) / "adapter_config.json").read_text())
            base = AutoModelForImageTextToText.from_pretrained(named["base_model_name_or_path"], dtype=torch.float32)
            model = PeftModel.from_pretrained(base, one["adapter"])
        inputs = {key.removeprefix(f"{one['inputs']}/"): value for key, value in given.items() if key.startswith(f"{one['inputs']}/")}
        with torch.no_grad():
            answers[name] = model.eval()(**inputs).logits.float()
    assert not any(module == "biqa" or module.startswith("biqa.") for module in sys.modules)
    save_file(answers, folder / "logits.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

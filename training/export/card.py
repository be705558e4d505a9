"""README.md of an export: the model card, with front matter as the Hugging Face hub reads it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from training.contract import ExportAbout
from training.models.licenses import license_of

HUB_NAME: Final = re.compile(r"[\w.-]+/[\w.-]+")
USAGE: Final = {
    "folder": (
        "```python\n"
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        'tokenizer = AutoTokenizer.from_pretrained("FOLDER")\n'
        'model = AutoModelForCausalLM.from_pretrained("FOLDER", dtype="auto")\n'
        'question = [{"role": "user", "content": "What is the capital of France?"}]\n'
        'options = {"add_generation_prompt": True, "return_dict": True, "return_tensors": "pt"}\n'
        "inputs = tokenizer.apply_chat_template(question, **options)\n"
        "print(tokenizer.decode(model.generate(**inputs, max_new_tokens=100)[0]))\n"
        "```\n\n"
        "Or serve it: `vllm serve FOLDER`.\n"
    ),
    "adapter": "Load it over its base: `PeftModel.from_pretrained(base, FOLDER)`.\n",
    "reward": (
        "`AutoModelForSequenceClassification.from_pretrained(FOLDER)` gives one number for a conversation that ends "
        "with the assistant's turn; larger is better. Only differences between replies to one prompt mean something.\n"
    ),
    "gguf": "`ollama create NAME -f Modelfile && ollama run NAME`, or `llama-server -m FILE --jinja`.\n",
}


def write_card(target: Path, about: ExportAbout, form: str, checks: Sequence[str], source: Path, usage: str) -> None:
    """usage: a key of USAGE."""
    license_name = about.license or license_of(source)
    front = ["---"]
    front += [f"license: {license_name}"] if license_name else []
    front += [f"base_model: {about.base}"] if HUB_NAME.fullmatch(about.base) else []
    front += ["library_name: peft"] if usage == "adapter" else ["library_name: gguf"] if usage == "gguf" else []
    front += ["pipeline_tag: text-classification" if usage == "reward" else "pipeline_tag: text-generation", "---"]
    body = about.card or f"# {about.name or 'A model'}\n"
    checked = "\n".join(f"- {check}" for check in checks)
    text = (
        "\n".join(front)
        + f"\n\n{body.strip()}\n\n## Use it\n\n{USAGE[usage]}\n## Checked when it was exported ({form})\n\n{checked}\n"
    )
    (target / "README.md").write_text(text, encoding="utf-8")

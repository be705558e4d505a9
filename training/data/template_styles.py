"""Chat templates for base models that have none, after the published formats of ChatML, Llama 3, Gemma and Zephyr.

Zephyr's role tags are plain text as in its publication, so a base model with an end-of-text token gets no new token.
"""

from __future__ import annotations

from collections.abc import Container
from typing import Final, NamedTuple

from training.contract import InputError


class TemplateStyle(NamedTuple):
    """tokens: the control tokens that the template writes, the tokenizer's own ends of text left out."""

    template: str
    tokens: tuple[str, ...]


STYLES: Final[dict[str, TemplateStyle]] = {
    "chatml": TemplateStyle(
        "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
        "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
        ("<|im_start|>", "<|im_end|>"),
    ),
    "llama3": TemplateStyle(
        "{{ bos_token | default('', true) }}{% for message in messages %}"
        "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' }}"
        "{{ (message['content'] | trim) + '<|eot_id|>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}",
        ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    ),
    "gemma": TemplateStyle(
        "{{ bos_token | default('', true) }}{% for message in messages %}"
        "{% if message['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
        "{{ '<start_of_turn>' + ('model' if message['role'] == 'assistant' else message['role']) + '\n' }}"
        "{{ (message['content'] | trim) + '<end_of_turn>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}",
        ("<start_of_turn>", "<end_of_turn>"),
    ),
    "zephyr": TemplateStyle(
        "{% for message in messages %}{% if message['role'] == 'user' %}{{ '<|user|>\n' }}"
        "{% elif message['role'] == 'system' %}{{ '<|system|>\n' }}{% else %}{{ '<|assistant|>\n' }}{% endif %}"
        "{{ message['content'] + eos_token + '\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}",
        (),
    ),
}
FAMILIES: Final[dict[str, str]] = {  # by transformers' model type, where it alone says how its authors write turns
    "gemma": "gemma", "gemma2": "gemma", "gemma3": "gemma", "gemma3_text": "gemma",
    "qwen2": "chatml", "qwen2_moe": "chatml", "qwen3": "chatml", "qwen3_moe": "chatml", "smollm3": "chatml",
}  # fmt: skip


def family_of(model_type: str, vocabulary: Container[str]) -> str:
    """The style of a base model's own family, by its type or by the control tokens that its tokenizer has already.

    Raises InputError if it is none of STYLES.
    """
    if style := FAMILIES.get(model_type):
        return style
    for name in ("chatml", "llama3", "gemma"):
        if all(token in vocabulary for token in STYLES[name].tokens):
            return name
    raise InputError(
        f"chat_template: how the family of this model ({model_type or 'unknown'}) writes turns is not known here; take "
        f"{', '.join(list(STYLES)[:-1])} or {list(STYLES)[-1]}",
        code="config_invalid",
    )

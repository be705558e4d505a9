"""What else a chat or text completion may name, beside what is implemented: nothing is ignored in silence.

A parameter of OpenAI's, vLLM's or llama.cpp's interface that changes the answer is refused by name, unless its value is
the neutral one. One that changes nothing about the text is accepted. Any other name is refused as unknown, as OpenAI
does it.
"""

from __future__ import annotations

from typing import Any, Final

from training.contract.refusals import RequestRefused

HARMLESS: Final = frozenset(
    {
        "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_retention",
        "prompt_cache_options", "prediction", "parallel_tool_calls", "priority", "request_id", "cache_salt",
        "include_reasoning", "guided_decoding_backend", "cache_prompt", "id_slot", "timings_per_token", "keep_alive",
    }
)  # fmt: skip

NO_TOOLS: Final = "These models call no tools: leave it out, and describe in a message what you want back."
NO_FORMAT: Final = "Replies are plain text: leave it out, ask for JSON in a message, and check what comes."
NO_PENALTY: Final = "Penalties are not implemented: leave it out, or give the neutral value."
NO_CUT: Final = "Leave it out, and sample with temperature, top_p and top_k."
NO_BIAS: Final = "Tokens cannot be favored or forbidden: leave it out."
NO_SOUND: Final = "Replies are text: leave it out."
NO_SEARCH: Final = "The server ranks no replies: leave it out, ask for n replies and choose among them."
NO_PROMPT_SCORES: Final = "Log-probabilities are given for replies only, not for prompts: leave it out."
NO_TEMPLATE: Final = "The model's own chat template is used as it is: leave it out."
NO_REASONING: Final = "These models have no levels of it: leave it out."
NO_SHAPE: Final = "Leave it out."

# name: values that change nothing, and what to do about any other
UNSUPPORTED: Final[dict[str, tuple[tuple[Any, ...], str]]] = {
    "messages": ((), "Send messages to /v1/chat/completions."),
    "prompt": ((), "Send a prompt to /v1/completions."),
    "input": ((), "Send messages to /v1/chat/completions."),
    "tools": (([],), NO_TOOLS),
    "tool_choice": (("none", "auto"), NO_TOOLS),
    "functions": (([],), NO_TOOLS),
    "function_call": (("none", "auto"), NO_TOOLS),
    "web_search_options": ((), NO_TOOLS),
    "response_format": (({"type": "text"},), NO_FORMAT),
    "structured_outputs": (({},), NO_FORMAT),
    "grammar": (("",), NO_FORMAT),
    "json_schema": (({},), NO_FORMAT),
    "frequency_penalty": ((0,), NO_PENALTY),
    "presence_penalty": ((0,), NO_PENALTY),
    "repetition_penalty": ((1,), NO_PENALTY),
    "repeat_penalty": ((1,), NO_PENALTY),
    "length_penalty": ((1,), NO_PENALTY),
    "no_repeat_ngram_size": ((0,), NO_PENALTY),
    "dry_multiplier": ((0,), NO_PENALTY),
    "min_p": ((0,), NO_CUT),
    "top_a": ((0,), NO_CUT),
    "typical_p": ((1,), NO_CUT),
    "tfs_z": ((1,), NO_CUT),
    "mirostat": ((0,), NO_CUT),
    "xtc_probability": ((0,), NO_CUT),
    "logit_bias": (({}, []), NO_BIAS),
    "bad_words": (([],), NO_BIAS),
    "allowed_token_ids": ((), NO_BIAS),
    "logits_processors": (([],), NO_BIAS),
    "stop_token_ids": (([],), "Give the words to end at as `stop`."),
    "min_tokens": ((0,), "Give ignore_eos to have a reply of exactly max_tokens tokens."),
    "include_stop_str_in_output": ((False,), NO_SHAPE),
    "skip_special_tokens": ((True,), NO_SHAPE),
    "spaces_between_special_tokens": ((True, False), NO_SHAPE),
    "return_tokens_as_token_ids": ((False,), NO_SHAPE),
    "return_token_ids": ((False,), NO_SHAPE),
    "best_of": ((1,), NO_SEARCH),
    "use_beam_search": ((False,), NO_SEARCH),
    "echo": ((False,), NO_PROMPT_SCORES),
    "prompt_logprobs": ((), NO_PROMPT_SCORES),
    "suffix": (("",), "Text is only added behind the prompt: leave it out."),
    "truncate_prompt_tokens": ((), "Shorten the prompt before you send it."),
    "continue_final_message": ((False,), "Ask for the text behind a prompt at /v1/completions."),
    "add_generation_prompt": ((True,), NO_TEMPLATE),
    "add_special_tokens": ((), NO_TEMPLATE),
    "chat_template": ((), NO_TEMPLATE),
    "chat_template_kwargs": (({},), NO_TEMPLATE),
    "documents": (([],), "Put the documents into a message."),
    "audio": ((), NO_SOUND),
    "modalities": ((["text"],), NO_SOUND),
    "mm_processor_kwargs": (({},), NO_SOUND),
    "reasoning_effort": (("none",), NO_REASONING),
    "reasoning": (({},), NO_REASONING),
    "verbosity": (("medium",), NO_REASONING),
    "thinking": (({"type": "disabled"},), NO_REASONING),
    "kv_transfer_params": ((), NO_SHAPE),
    "vllm_xargs": (({},), NO_SHAPE),
}
MAX_NAME_SHOWN: Final = 60


def check_parameters(parameters: dict[str, Any], implemented: frozenset[str]) -> dict[str, Any]:
    """The implemented ones of `parameters`. Raises RequestRefused at the first other one that would change the answer."""
    implemented_ones: dict[str, Any] = {}
    for name, value in parameters.items():
        if name in implemented:
            implemented_ones[name] = value
        elif name not in HARMLESS:
            check_unsupported(name, value)
    return implemented_ones


def check_unsupported(name: str, value: Any) -> None:
    neutral, advice = UNSUPPORTED.get(name, ((), ""))
    if name.startswith("guided_"):
        advice = NO_FORMAT
    if not advice:
        short_name = name if len(name) <= MAX_NAME_SHOWN else name[:MAX_NAME_SHOWN] + "…"
        raise RequestRefused(
            f"{short_name}: there is no such parameter here. Leave it out.", param=short_name, code="unknown_parameter"
        )
    if not any(value == harmless and isinstance(value, bool) == isinstance(harmless, bool) for harmless in neutral):
        raise RequestRefused(
            f"{name}: this is not supported, and is refused rather than ignored. {advice}",
            param=name,
            code="unsupported_parameter",
        )

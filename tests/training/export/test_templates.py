"""Chat templates on their way out: for other Jinja engines, and in Go's template language for Ollama."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest
from tokenizers import Regex, pre_tokenizers

from tests.training.export.exported import LLAMA3_TEMPLATE, family_tokenizer
from tests.training.toys import ALTERNATES, CHATML, toy_tokenizer
from training.contract import InputError, Turn
from training.data.chat_templates import render_template
from training.data.template_styles import STYLES
from training.export.answers import Questions
from training.export.gguf_tokenizer import vocabulary_of
from training.export.ollama import go_template, modelfile, pieces_of, turns
from training.export.templates import portable_template

SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}
WITH_DEFAULT_SYSTEM = (
    "{% for m in messages %}{% if loop.first and m['role'] != 'system' %}"
    "{{ '<|im_start|>system\nHelp.<|im_end|>\n' }}{% endif %}"
    "{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
ZEPHYR = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'] + eos_token + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
JOINED = (  # much as Llama 2's and Mistral's
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
    "{% set system = '<<SYS>>\n' + messages[0]['content'] + '\n<</SYS>>\n\n' %}{% set spoken = messages[1:] %}"
    "{% else %}{% set system = '' %}{% set spoken = messages %}{% endif %}"
    "{% for m in spoken %}{% if m['role'] == 'user' %}"
    "{{ '[INST] ' + (system if loop.first else '') + m['content'] + ' [/INST]' }}"
    "{% else %}{{ m['content'] + eos_token }}{% endif %}{% endfor %}"
)
BRACES = CHATML.replace("<|im_end|>", "{{ '{{' }}end}}").replace("'{{ '{{' }}end}}\n'", "'{{end}}\n'")
CONVERSATIONS = (
    turns("Hi."),
    turns("Hi.", "Hello.", "Why?\n\nAnd how?", system="Be brief."),
    turns("1", "2", "3", "4", "5"),
)


def render(template: str, conversation: Sequence[Turn], open_turn: bool = True) -> str:
    messages = [turn.model_dump() for turn in conversation]
    return render_template(template, SPECIAL, messages, open_turn=open_turn)


def fill_in(template: str, conversation: Sequence[Turn]) -> str:
    """What Go's text/template makes of the few actions that are written, as Ollama calls it: with the system turn
    apart, and all turns as messages."""
    system = next((turn.content for turn in conversation if turn.role == "system"), "")
    before, body, after = re.split(
        r"\{\{ range (?:\$i, \$_ := )?\.Messages \}\}|\{\{ end \}\}\{\{ end \}\}(?!\{\{ \.Content)", template
    )
    head = re.fullmatch(r"\{\{ if \.System \}\}(.*?)(?:\{\{ else \}\}(.*?))?\{\{ end \}\}", before, re.DOTALL)
    roles = re.fullmatch(
        r'\{\{ if eq \.Role "user" \}\}(.*?)\{\{ else if eq \.Role "assistant" \}\}(.*)', body, re.DOTALL
    )
    assert head is not None
    assert roles is not None
    text = head[1].replace("{{ .System }}", system) if system else head[2] or ""
    for i, turn in enumerate(conversation):
        if turn.role != "system":
            around = roles[1 if turn.role == "user" else 2]
            with_system = "" if system and i == 1 else r"\1"
            around = re.sub(
                r"\{\{ if not \(and \$\.System \(eq \$i 1\)\) \}\}(.*?)\{\{ end \}\}",
                with_system,
                around,
                flags=re.DOTALL,
            )
            text += around.replace("{{ .Content }}", turn.content)
    return (text + after).replace('{{ "{{" }}', "{{")


@pytest.mark.parametrize(
    "template",
    [CHATML, WITH_DEFAULT_SYSTEM, ZEPHYR, LLAMA3_TEMPLATE, BRACES, JOINED],
    ids=["chatml", "default", "zephyr", "llama3", "braces", "joined"],
)
def test_the_go_template_writes_what_the_jinja_template_writes(template: str) -> None:
    pieces = pieces_of(lambda conversation, open_turn: render(template, conversation, open_turn))
    assert pieces is not None
    for conversation in CONVERSATIONS:
        assert fill_in(go_template(pieces), conversation) == render(template, conversation)


def test_our_own_template_is_written_for_ollama() -> None:
    questions = Questions(toy_tokenizer(), "own")
    file = modelfile("kite.gguf", pieces_of(questions.render), ["<|end|>", "<|endoftext|>"], 64)
    assert file == (
        "FROM ./kite.gguf\n"
        'TEMPLATE """{{ if .System }}<|system|>{{ .System }}<|end|>{{ end }}'
        '{{ range .Messages }}{{ if eq .Role "user" }}'
        '<|user|>{{ .Content }}<|end|>{{ else if eq .Role "assistant" }}'
        "<|assistant|>{{ .Content }}<|end|>{{ end }}{{ end }}"
        '<|assistant|>"""\n'
        'PARAMETER stop "<|end|>"\nPARAMETER stop "<|endoftext|>"\nPARAMETER num_ctx 64\n'
    )


@pytest.mark.parametrize("template", [ALTERNATES, STYLES["gemma"].template], ids=["mistral", "gemma"])
def test_where_a_template_takes_no_system_turn_the_first_question_begins_with_its_text(template: str) -> None:
    pieces = pieces_of(lambda conversation, open_turn: render(template, conversation, open_turn))
    assert pieces is not None
    for system in ("", "Be brief."):
        said = turns("Hi.", "Hello.", "Why?", system=system)
        first = f"{system}\n\nHi." if system else "Hi."
        assert fill_in(go_template(pieces), said) == render(template, turns(first, "Hello.", "Why?"))


def test_a_template_that_does_more_than_that_is_not_guessed() -> None:
    last_only = (
        "{% for m in messages %}{{ m['content'] if loop.last else m['role'] }}{% endfor %}"
        "{% if add_generation_prompt %}>{% endif %}"
    )
    pieces = pieces_of(lambda conversation, open_turn: render(last_only, conversation, open_turn))
    assert pieces is None
    assert "TEMPLATE" not in modelfile("a.gguf", pieces, ["</s>"], 64)


def test_the_beginning_of_text_is_left_to_llama_cpp() -> None:
    pieces = pieces_of(lambda conversation, open_turn: render(LLAMA3_TEMPLATE, conversation, open_turn))
    assert pieces is not None
    assert pieces.before_system.startswith("<s>")
    assert not go_template(pieces.without_bos("<s>")).count("<s>")


def test_templates_leave_without_tags_of_transformers_and_without_a_clock() -> None:
    template = (
        "{% for m in messages -%}\n"
        "  {%- if m['role'] == 'assistant' %}{%- generation -%} {{ m['content'] }} "
        "{%- endgeneration -%} {% endif %}{% endfor %}"
        "{% if strftime_now is defined %}{{ strftime_now('%d %b %Y') }}{% endif %}"
    )
    portable = portable_template(template)
    assert "generation" not in portable
    assert "strftime_now(" not in portable
    for conversation in CONVERSATIONS[1:]:
        assert render(portable, conversation) == render(template, conversation)


def test_families_are_told_by_their_rules_and_others_refused() -> None:
    assert vocabulary_of(family_tokenizer("qwen2"), 500).cut == "qwen2"
    odd = family_tokenizer("qwen2")
    odd.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(r"\d+|\D+"), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
    )
    with pytest.raises(InputError, match="no name for the rule by which it cuts text"):
        vocabulary_of(odd, 500)
    sentences = family_tokenizer("qwen2")
    sentences.backend_tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    with pytest.raises(InputError, match="it cuts text by Metaspace"):
        vocabulary_of(sentences, 500)

"""Fine-tuning on demonstrations.

Over 300 lines: all cases share the run folder and its settings.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from torch.nn import functional
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.training.toys import (
    CHATML,
    FORGETS_THOUGHTS,
    events,
    foreign_policy,
    foreign_tokenizer,
    run_folder,
    run_here,
    tiny_model,
    toy_policy,
    toy_tokenizer,
    turns,
)
from training.contract import DemonstrationRow, TrainingError
from training.data.chat_format import ChatFormat
from training.data.demonstrations import demonstration_examples, encode_demonstrations
from training.models.compute import Compute, adapter_base
from training.models.forward import Forward
from training.models.loading import load_causal
from training.optim.losses import weighted_loss
from training.run.durable import file_sha256

CPU = Compute(torch.device("cpu"), torch.float32)
QUESTIONS = {"is the sky blue": "yes of course", "is the sea 12": "no never"}
DEMONSTRATIONS = [{"id": f"demonstration:{i}", "messages": turns(*list(QUESTIONS.items())[i % 2])} for i in range(12)]
SETTINGS: dict[str, Any] = {
    "stage": "sft", "epochs": 20, "batch_tokens": 128, "micro_tokens": 128, "learning_rate": 0.01, "max_tokens": 64,
    "log_every": 2, "evaluate_every": 20,
}  # fmt: skip


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_policy(tmp_path_factory.mktemp("models") / "base")


def new_run(folder: Path, base: Path, rows: list[dict[str, Any]] | None = None, **changes: Any) -> Path:
    return run_folder(
        folder,
        SETTINGS | {"base": str(base)} | changes,
        demonstrations=rows or DEMONSTRATIONS,
        heldout=DEMONSTRATIONS[:2],
    )


def demonstration(*contents: str, weight: float = 1.0) -> DemonstrationRow:
    return DemonstrationRow.model_validate({"id": "d", "messages": turns(*contents), "weight": weight})


def sentence(folder: Path) -> str:
    with pytest.raises(TrainingError) as caught:
        run_here(folder)
    assert caught.value.code != "internal", caught.value.message
    return caught.value.message


def test_the_model_learns_to_answer_and_to_stop(tmp_path: Path, base: Path) -> None:
    result = run_here(new_run(tmp_path, base, epochs=60, evaluate_every=0))
    assert result["metrics"]["loss"] < 0.2
    assert result["metrics"]["heldout_loss"] < 0.2
    assert result["counts"] | {"tokens": 0, "target_tokens": 0} == {
        "demonstrations": 12, "used": 12, "left_out": 0, "heldout": 2, "tokens": 0, "target_tokens": 0,
        "turn_by_turn": 0,
    }  # fmt: skip
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    for question, answer in QUESTIONS.items():
        known = tokenizer.apply_chat_template(
            [{"role": "user", "content": question}], add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        told = model.generate(**known, max_new_tokens=30, do_sample=False)[0, known["input_ids"].shape[1] :]
        assert tokenizer.decode(told) == f"{answer}<|end|>"
    assert {event["reply"] for event in events(tmp_path, "sample")[-2:]} == set(QUESTIONS.values())


@pytest.mark.fp32
def test_an_adapter_learns_while_its_base_stays_as_it_is(tmp_path: Path, base: Path) -> None:
    before = file_sha256(base / "model.safetensors")
    result = run_here(new_run(tmp_path, base, lora={"rank": 4, "alpha": 16}, epochs=30, learning_rate=0.03))
    assert result["model"]["kind"] == "adapter"
    assert result["model"]["base"] == str(base)
    assert result["model"]["trainable"] < result["model"]["parameters"] / 2
    assert file_sha256(base / "model.safetensors") == before
    assert not (tmp_path / "model" / "model.safetensors").exists()
    assert adapter_base(str(tmp_path / "model")) == str(base)
    targets = json.loads((tmp_path / "model" / "adapter_config.json").read_text())["target_modules"]
    assert targets == sorted(targets)
    losses = [event["values"]["loss"] for event in events(tmp_path, "metric") if "loss" in event["values"]]
    assert losses[-1] < losses[0] - 0.2
    whole = AutoModelForCausalLM.from_pretrained(base)
    adapted = PeftModel.from_pretrained(whole, tmp_path / "model")
    merged = load_causal(str(tmp_path / "model"), CPU)
    ids = torch.tensor([ChatFormat(toy_tokenizer()).text("the cat sat")])
    assert torch.allclose(adapted(ids).logits, merged(ids).logits, atol=1e-4)


def test_an_adapter_goes_on_learning_as_an_adapter_or_is_merged_for_full_training(tmp_path: Path, base: Path) -> None:
    run_here(new_run(tmp_path / "first", base, lora={"rank": 4}, max_steps=3))
    first = tmp_path / "first" / "model"
    second = run_here(new_run(tmp_path / "second", first, lora={"rank": 4}, max_steps=3))
    assert (second["model"]["kind"], second["model"]["base"]) == ("adapter", str(base))
    full = run_here(new_run(tmp_path / "full", first, max_steps=3))
    assert full["model"]["kind"] == "full"
    assert full["model"]["trainable"] == full["model"]["parameters"]


# ---------------------------------------------------------------------------------------------------------------- loss


def test_the_loss_is_on_the_assistants_words_alone_and_weighs_the_rows(base: Path) -> None:
    model, chat = load_causal(str(base), CPU), ChatFormat(toy_tokenizer())
    rows = [demonstration("the cat", "sat on it"), demonstration("is it", "no", "why", "never", weight=0.5)]
    data = demonstration_examples(encode_demonstrations(chat, rows, 64)[1], chat, CPU.device)
    sums = weighted_loss(Forward(model), data.batch(np.arange(2)))
    expected = total = 0.0
    for row in rows:
        encoded = chat.conversation(row.messages)
        logprobs = functional.log_softmax(model(torch.tensor([encoded.ids])).logits[0].double(), dim=-1)
        for i in range(1, len(encoded.ids)):
            if encoded.mask[i]:
                expected -= row.weight * float(logprobs[i - 1, encoded.ids[i]])
                total += row.weight
    assert float(sums["loss"][0]) == pytest.approx(expected, rel=1e-4)
    assert sums["loss"][1] == pytest.approx(total)
    assert data.sizes.weights.sum() == pytest.approx(total)


TALK = turns("ask", "[hm] tell", "more", "[oh] told", "again", "[ah] said")


def test_a_row_learned_turn_by_turn_counts_as_if_its_turns_were_together() -> None:
    """Losses are those of each turn after what the template makes of the talk before it, written out by hand."""
    tokenizer = foreign_tokenizer(FORGETS_THOUGHTS)
    model, chat = tiny_model("llama", vocab_size=len(tokenizer), max_position_embeddings=128), ChatFormat(tokenizer)
    rows = [demonstration(*(turn["content"] for turn in TALK), weight=0.5), demonstration("ask", "tell", weight=2)]
    lessons = encode_demonstrations(chat, rows, 128)
    assert (lessons.rows, lessons.by_turn, len(lessons.examples)) == (rows, 1, 4)
    expected = total = 0.0
    for asked, reply, weight in (
        (["ask"], "[hm] tell", 0.5), (["ask", "tell", "more"], "[oh] told", 0.5),
        (["ask", "tell", "more", "told", "again"], "[ah] said", 0.5), (["ask"], "tell", 2),
    ):  # fmt: skip
        prompt = "".join(f"<|im_start|>{turn['role']}\n{turn['content']}<|im_end|>\n" for turn in turns(*asked))
        ids = tokenizer(f"{prompt}<|im_start|>assistant\n{reply}<|im_end|>")["input_ids"]
        spoken = len(reply) + 1
        logprobs = functional.log_softmax(model(torch.tensor([ids])).logits[0].detach().double(), dim=-1)
        expected -= weight * sum(float(logprobs[i - 1, ids[i]]) for i in range(len(ids) - spoken, len(ids)))
        total += weight * spoken
    data = demonstration_examples(lessons.examples, chat, CPU.device)
    sums = weighted_loss(Forward(model), data.batch(np.arange(4)))
    assert float(torch.as_tensor(sums["loss"][0]).detach()) == pytest.approx(expected, rel=1e-4)
    assert sums["loss"][1] == pytest.approx(total)
    assert data.sizes.weights.sum() == pytest.approx(total)


def test_a_turn_too_long_to_learn_leaves_the_others_of_its_row() -> None:
    chat = ChatFormat(foreign_tokenizer(FORGETS_THOUGHTS))
    row = demonstration("ask", "[hm] " + "tell " * 20, "more", "[oh] told", "again", "[ah] said")
    spoken = [
        chat.decode([token for token, own in zip(one.ids, one.mask, strict=True) if own])
        for one, _ in encode_demonstrations(chat, [row], 60).examples
    ]
    assert spoken == ["[oh] told", "[ah] said"]


def test_rows_that_are_learned_turn_by_turn_are_counted_and_told(tmp_path: Path) -> None:
    base = foreign_policy(tmp_path / "base", foreign_tokenizer(FORGETS_THOUGHTS))
    rows = [{"id": "talk", "messages": TALK}, {"id": "one", "messages": turns("ask", "tell")}]
    folder = new_run(tmp_path / "run", base, rows, max_steps=2, max_tokens=128)
    result = run_here(folder)
    assert (result["counts"]["used"], result["counts"]["turn_by_turn"]) == (2, 1)
    (told,) = (event["message"] for event in events(folder, "warning") if "rewrites" in event["message"])
    assert "1 demonstrations are learned turn by turn" in told


def test_a_long_conversation_loses_its_oldest_turns_and_keeps_its_system_turn() -> None:
    chat = ChatFormat(toy_tokenizer())
    talk = turns("the cat " * 20, "yes", "the sea " * 20, "no", "why?", "yes of course")
    row = DemonstrationRow(id="long", messages=[{"role": "system", "content": "no"}, *talk])
    kept, encoded, _, counts = encode_demonstrations(chat, [row], 40)
    assert kept == [row]
    assert chat.tokenizer.decode(encoded[0][0].ids) == (
        "<|system|>no<|end|><|user|>why?<|end|><|assistant|>yes of course<|end|>"
    )
    assert counts.named() == {"cut/older_turns": 1}
    assert counts.sentences(3) == [
        "1 of 3 demonstrations are shortened to 40 tokens: they lose their oldest turns (the first is long)"
    ]


def test_a_question_that_is_too_long_alone_keeps_its_beginning_and_its_end() -> None:
    chat = ChatFormat(toy_tokenizer())
    row = demonstration("is the sky blue? " + "the cat sat on the mat " * 20 + "say yes or no", "yes")
    _, encoded, _, counts = encode_demonstrations(chat, [row], 60)
    text = chat.tokenizer.decode(encoded[0][0].ids)
    assert text.startswith("<|user|>is the sky blue? the cat")
    assert text.endswith("say yes or no<|end|><|assistant|>yes<|end|>")
    assert " … " in text
    assert len(encoded[0][0].ids) <= 60
    assert counts.named() == {"cut/question": 1}


def test_what_is_too_long_empty_or_without_weight_is_left_out_each_with_its_reason() -> None:
    chat = ChatFormat(toy_tokenizer())
    rows = [demonstration("why", "the cat " * 30), demonstration("a", " "), demonstration("a", "b", weight=0)]
    kept, encoded, _, counts = encode_demonstrations(chat, rows, 20)
    assert (kept, encoded) == ([], [])
    assert counts.named() == {"left_out/too_long": 1, "left_out/empty": 1, "left_out/no_weight": 1}


def test_a_masked_turn_is_context_only_also_in_a_shortened_conversation() -> None:
    chat = ChatFormat(toy_tokenizer())
    row = demonstration("the cat " * 20, "yes", "is it?", "no never", "why?", "of course")
    row = row.model_copy(update={"masked_turns": [3]})
    for limit in (200, 40):
        ((encoded, _),) = encode_demonstrations(chat, [row], limit).examples
        learned = chat.tokenizer.decode([i for i, own in zip(encoded.ids, encoded.mask, strict=True) if own])
        assert learned == ("yes<|end|>of course<|end|>" if limit == 200 else "of course<|end|>")
        assert "no never" in chat.tokenizer.decode(encoded.ids)


REFUSES_ASSISTANT_FIRST = (
    "{% if messages[0].role == 'assistant' %}{{ raise_exception('the user speaks first') }}{% endif %}" + CHATML
)


def test_a_row_that_the_template_refuses_is_left_out_counted_and_named(tmp_path: Path) -> None:
    base = foreign_policy(tmp_path / "base", foreign_tokenizer(REFUSES_ASSISTANT_FIRST))
    greeting = [{"role": "assistant", "content": "How can I help?"}, *turns("hi", "hello")]
    rows = [*DEMONSTRATIONS, {"id": "demonstration:77", "messages": greeting}]
    folder = new_run(tmp_path / "run", base, rows, max_steps=2, max_tokens=128)
    result = run_here(folder)
    assert (result["counts"]["used"], result["counts"]["left_out/refused"]) == (12, 1)
    (told,) = (event["message"] for event in events(folder, "warning") if "refuses" in event["message"])
    assert told == (
        "1 of 13 demonstrations are left out: the model's chat template refuses them (the first is demonstration:77: "
        "the user speaks first)"
    )


def test_a_system_turn_that_the_template_refuses_is_learned_in_front_of_the_question(tmp_path: Path) -> None:
    template = "{% if messages[0].role == 'system' %}{{ raise_exception('no system turns') }}{% endif %}" + CHATML
    base = foreign_policy(tmp_path / "base", foreign_tokenizer(template))
    rows = [{"id": "d:1", "messages": [{"role": "system", "content": "Be brief."}, *turns("ask", "tell")]}] * 2
    folder = new_run(tmp_path / "run", base, rows, max_steps=1, min_rows=1)
    assert run_here(folder)["counts"]["folded/system"] == 2
    assert any("takes no system turn" in event["message"] for event in events(folder, "warning"))


def test_a_model_keeps_all_the_tokens_that_its_base_ends_at(tmp_path: Path) -> None:
    base = foreign_policy(tmp_path / "base", foreign_tokenizer(CHATML))
    settings = json.loads((base / "generation_config.json").read_text())
    (base / "generation_config.json").write_text(json.dumps(settings | {"eos_token_id": [settings["eos_token_id"], 7]}))
    run_here(new_run(tmp_path / "run", base, max_steps=1, max_tokens=128))
    kept = json.loads((tmp_path / "run" / "model" / "generation_config.json").read_text())["eos_token_id"]
    tokenizer = AutoTokenizer.from_pretrained(base)
    assert set(kept) == {tokenizer.convert_tokens_to_ids("<|im_end|>"), tokenizer.eos_token_id, 7}


# ------------------------------------------------------------------------------------------------------------ bad days


def test_demonstrations_left_out_are_told(tmp_path: Path, base: Path) -> None:
    rows = [*DEMONSTRATIONS, {"id": "long", "messages": turns("why", "the cat " * 60)}]
    result = run_here(new_run(tmp_path, base, rows, max_steps=1))
    assert result["counts"]["left_out"] == 1
    assert "1 of 13 demonstrations are left out: longer than 64 tokens (the first is long)" in [
        event["message"] for event in events(tmp_path, "warning")
    ]


def test_too_few_usable_demonstrations_are_told_with_both_numbers(tmp_path: Path, base: Path) -> None:
    rows = [{"id": "long", "messages": turns("why", "the cat " * 60)}, DEMONSTRATIONS[0]]
    told = sentence(new_run(tmp_path, base, rows, min_rows=2))
    assert told == (
        "sft: 1 of 2 demonstrations can be used, at least 2 are needed; 1 of 2 demonstrations are left out: longer "
        "than 64 tokens (the first is long)"
    )


def test_a_base_without_a_chat_template_is_refused(tmp_path: Path) -> None:
    base = toy_policy(tmp_path / "base")
    (base / "chat_template.jinja").unlink()
    assert "its tokenizer has no chat template" in sentence(new_run(tmp_path / "run", base))


def test_an_adapter_whose_base_is_gone_or_whose_weights_are_missing_is_named(tmp_path: Path) -> None:
    base = toy_policy(tmp_path / "base")
    run_here(new_run(tmp_path / "first", base, lora={"rank": 2}, max_steps=1))
    adapter = tmp_path / "first" / "model"
    base.rename(tmp_path / "moved")
    assert f"{base}: there is no such model folder" in sentence(new_run(tmp_path / "second", adapter))
    (adapter / "adapter_model.safetensors").unlink()
    assert "this adapter folder is damaged" in sentence(new_run(tmp_path / "third", adapter))


def test_adapter_targets_that_the_model_does_not_have_are_refused(tmp_path: Path, base: Path) -> None:
    assert "lora.targets" in sentence(new_run(tmp_path, base, lora={"rank": 2, "targets": "nothing_like_it"}))

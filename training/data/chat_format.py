"""How a conversation becomes tokens, and which of them the assistant has to learn.

Our own tokenizers get TEMPLATE: each turn is a role token, the text, and <|end|>, which the assistant learns to say and
at which generation stops. Tokenizers from elsewhere keep their own chat template.

Text is never read as control tokens, whoever wrote it: "<|end|>" typed by a person stays seven ordinary characters.
Markup that a tokenizer has tokens for, such as <think> and </think>, is text like any other and becomes those tokens.

Over 300 lines: encoding, cutting and masking follow one template.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from training.contract import InputError, Turn
from training.data.chat_templates import render_template, special_tokens

DOCUMENT: Final = "<|endoftext|>"
PAD: Final = "<|pad|>"
END: Final = "<|end|>"
ROLES: Final = {"system": "<|system|>", "user": "<|user|>", "assistant": "<|assistant|>"}
SPECIAL: Final = (DOCUMENT, PAD, *ROLES.values(), END)
TEMPLATE: Final = (
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' }}"
    "{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] + '<|end|>' }}{% endgeneration %}"
    "{% else %}{{ message['content'] + '<|end|>' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
ROLE_TAG: Final = re.compile(r"<\|(?:system|user|assistant)\|>")  # plain text to Zephyr's tokenizer, and yet control


def plain_tokenizer(tokenizer: PreTrainedTokenizerBase) -> Tokenizer:
    """A copy of the tokenizer to which nothing is special and no text too long."""
    copy = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    copy.encode_special_tokens = True
    copy.no_truncation()
    copy.no_padding()
    return copy


def fold_system(messages: list[Turn]) -> list[Turn]:
    """The same conversation without system turns, for chat templates that refuse them: their text goes in front of the
    user turn that follows, after an empty line of the one before where none follows."""
    folded: list[Turn] = []
    held: list[str] = []
    for turn in messages:
        if turn.role == "system":
            held.append(turn.content)
        elif turn.role == "user" and held:
            folded.append(turn.model_copy(update={"content": "\n\n".join([*held, turn.content])}))
            held = []
        else:
            folded.append(turn)
    if held and folded and folded[-1].role == "user":
        last_turn = folded.pop()
        folded.append(last_turn.model_copy(update={"content": "\n\n".join([last_turn.content, *held])}))
    elif held:
        folded.append(Turn(role="user", content="\n\n".join(held)))
    return folded


def any_of(tokens: Collection[str]) -> re.Pattern[str]:
    """Matches the longest of these tokens at each place; tokens of white space alone are ordinary text."""
    longest_first = sorted((token for token in tokens if token.strip()), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")


class Rewritten(InputError):
    """The chat template renders earlier turns otherwise once later ones follow them."""


class Refused(InputError):
    """The chat template refuses a conversation: an order of turns that it does not know, a limit of its own. `reason`
    is the template's own sentence."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the model's chat template refuses this conversation: {reason}", code="no_chat_template")
        self.reason = reason


@dataclass(frozen=True)
class Encoded:
    """Token ids of a conversation; `mask` is true on what the assistant says, its stop token included."""

    ids: list[int]
    mask: list[bool]

    @property
    def targets(self) -> int:
        return sum(self.mask[1:])


Render = Callable[[list[dict[str, str]], bool], str]
"""(turns, whether the assistant has to speak next) to text; it raises what the template raises."""


class ChatFormat:
    """Encodes conversations for one tokenizer; `render` stands in for the tokenizer's own rendering of its chat
    template. Raises InputError if the tokenizer has no chat template."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, source: str = "the model", render: Render | None = None
    ) -> None:
        if not tokenizer.chat_template:
            raise InputError(
                f"{source}: its tokenizer has no chat template, so it cannot tell who speaks; "
                "take a chat model, or one pretrained here",
                code="no_chat_template",
            )
        if not tokenizer.is_fast:
            raise InputError(
                f"{source}: its tokenizer has no tokenizer.json; take a model that has one", code="no_model"
            )
        self.tokenizer = tokenizer
        self._render_turns = render or self._render_here
        self._plain = plain_tokenizer(tokenizer)
        self._own = tokenizer.chat_template == TEMPLATE
        self._role = {role: tokenizer.convert_tokens_to_ids(token) for role, token in ROLES.items()}
        role_tags = ROLE_TAG.findall(str(tokenizer.chat_template))
        control = {*tokenizer.all_special_tokens, *tokenizer.get_added_vocab(), *role_tags}
        self._control = any_of(control)
        self.folds_system: bool = not self._own and self._loses_system_turns()
        self.end_id: int = tokenizer.convert_tokens_to_ids(END) if self._own else self._foreign_end(source)
        if not self._own:
            self._control = any_of(control - self._markup())
        document = tokenizer.convert_tokens_to_ids(DOCUMENT) if self._own else tokenizer.eos_token_id
        self.stop_ids: list[int] = list(dict.fromkeys([self.end_id, self.end_id if document is None else document]))
        if tokenizer.pad_token_id is None:  # one without an end-of-text token, too: see load_tokenizer
            tokenizer.pad_token = tokenizer.convert_ids_to_tokens(self.end_id)
        self.pad_id: int = tokenizer.pad_token_id
        self.document_id = self._document_id()

    @cached_property
    def reachable(self) -> set[int]:
        """The tokens that text, a conversation or padding may hold: all but special tokens of no use here."""
        turns = [Turn(role="user", content="a"), Turn(role="assistant", content="b")]
        used = {*self.stop_ids, self.pad_id, self.document_id, *self.prompt(turns[:1]), *self.conversation(turns).ids}
        special = {i for i, token in self.tokenizer.added_tokens_decoder.items() if token.special}
        return used | (set(self.tokenizer.get_vocab().values()) - special)

    # ------------------------------------------------------------------------------------------------------- encoding

    def text(self, text: str) -> list[int]:
        """Ids of plain text; nothing in it is special."""
        ids: list[int] = self._plain.encode(text, add_special_tokens=False).ids
        return ids

    def texts(self, texts: list[str]) -> list[list[int]]:
        """As `text`, for many at once on all cores."""
        return [encoding.ids for encoding in self._plain.encode_batch_fast(texts, add_special_tokens=False)]

    def prompt(self, messages: list[Turn]) -> list[int]:
        """Ids of a conversation that ends where the assistant has to speak."""
        if self._own:
            return [*self._turns(messages).ids, self._role["assistant"]]
        return self._special_ids(self._render(messages, open_turn=True))

    def reply(self, reply: str, messages: list[Turn]) -> list[int]:
        """Ids of the assistant's reply to `messages`, the stop token last: prompt(messages) + these is the exchange."""
        if self._own:
            return [*self.text(reply), self.end_id]
        whole = self._foreign_turns([*messages, Turn(role="assistant", content=reply)], last_only=True)
        return [token for token, spoken in zip(whole.ids, whole.mask, strict=True) if spoken]

    def exchange(self, messages: list[Turn], reply: str, limit: int) -> Encoded:
        """Prompt and reply; only this reply is in the mask. Cut to `limit` tokens: the prompt from the left first,
        then, where the reply alone is longer, the reply from the right."""
        spoken = self.reply(reply, messages)[:limit]
        room = limit - len(spoken)
        before = self.end_of(self.prompt(messages), room)
        return Encoded([*before, *spoken], [False] * len(before) + [True] * len(spoken))

    def last(self, encoded: Encoded, limit: int) -> Encoded:
        """The last `limit` tokens; a token for the beginning of text stays before them."""
        ids, mask = encoded.ids, encoded.mask
        if len(ids) <= limit:
            return encoded
        keeps_start = int(limit > 1 and ids[0] == self.tokenizer.bos_token_id)
        cut = len(ids) - limit + keeps_start
        return Encoded([*ids[:keeps_start], *ids[cut:]], [*mask[:keeps_start], *mask[cut:]])

    def end_of(self, prompt: list[int], limit: int) -> list[int]:
        """The same of a prompt's tokens."""
        return self.last(Encoded(prompt, [False] * len(prompt)), limit).ids

    def conversation(self, messages: list[Turn], unlearned: Collection[int] = ()) -> Encoded:
        """All turns; every assistant turn with its stop token is in the mask, but for those whose indices are in
        `unlearned`. Raises Rewritten if they cannot be rendered together as each was rendered when it was said."""
        return self._turns(messages, unlearned) if self._own else self._foreign_turns(messages, unlearned)

    def lessons(self, messages: list[Turn], unlearned: Collection[int] = ()) -> list[tuple[int, Encoded]]:
        """What the assistant learns from a conversation, each lesson with the number of turns it ends after: all its
        turns in one or, where the template rewrites earlier turns, each in one that ends with it, alone in the mask and
        after what is rendered when it is to be said."""
        try:
            return [(len(messages), self.conversation(messages, unlearned))]
        except Rewritten:
            ends = [i + 1 for i, turn in enumerate(messages) if turn.role == "assistant" and i not in unlearned]
            return [(end, self._foreign_turns(messages[:end], last_only=True)) for end in ends]

    def decode(self, ids: list[int]) -> str:
        """The text of a reply, up to and without its stop token."""
        stop = next((i for i, token in enumerate(ids) if token in self.stop_ids), len(ids))
        text: str = self.tokenizer.decode(ids[:stop], skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text

    # ----------------------------------------------------------------------------------------------------- our format

    def _turns(self, messages: list[Turn], unlearned: Collection[int] = ()) -> Encoded:
        ids: list[int] = []
        mask: list[bool] = []
        for i, turn in enumerate(messages):
            spoken = [*self.text(turn.content), self.end_id]
            ids += [self._role[turn.role], *spoken]
            mask += [False, *[turn.role == "assistant" and i not in unlearned] * len(spoken)]
        return Encoded(ids, mask)

    # ------------------------------------------------------------------------------------------------- foreign formats

    def _foreign_turns(
        self, messages: list[Turn], unlearned: Collection[int] = (), *, last_only: bool = False
    ) -> Encoded:
        """The rendered text is tokenized once, and spans of characters say which tokens the assistant speaks; a token
        that reaches over an end of a span is the assistant's."""
        text = self._render(messages, open_turn=False)
        first_index = len(messages) - 1 if last_only else 0
        spoken = [i for i in range(first_index, len(messages)) if messages[i].role == "assistant"]
        spans = [self._span(text, messages, i) for i in spoken if i not in unlearned]
        encoded = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        ids, offsets = list(encoded["input_ids"]), encoded["offset_mapping"]
        mask = [any(a < end and start < b and a < b for start, end in spans) for a, b in offsets]
        if messages[-1].role == "assistant":
            through = sum(a < spans[-1][1] for a, _ in offsets)
            if not (mask[through - 1] and ids[through - 1] == self.end_id):
                return Encoded([*ids[:through], self.end_id], [*mask[:through], True])
        return Encoded(ids, mask)

    def _span(self, text: str, messages: list[Turn], i: int) -> tuple[int, int]:
        """Where in the rendered text the assistant's turn `i` begins and ends, its end of turn included."""
        before = self._render(messages[:i], open_turn=True)
        through = self._render(messages[: i + 1], open_turn=False)
        ended = through.rstrip()
        if not text.startswith(ended):
            raise Rewritten("the model's chat template rewrites earlier turns", code="no_chat_template")
        if not through.startswith(before):
            raise InputError(
                "the model's chat template does not put a reply behind the prompt that asks for it, so what the "
                "assistant said cannot be told apart; take another base model",
                code="no_chat_template",
            )
        return len(before), max(len(before), len(ended))

    def _render(self, messages: list[Turn], *, open_turn: bool) -> str:
        rendered = fold_system(messages) if self.folds_system else messages
        turns = [{"role": turn.role, "content": self._harmless(turn.content)} for turn in rendered]
        try:
            return self._render_turns(turns, open_turn)
        except InputError:
            raise
        except Exception as error:  # jinja2 errors, and whatever a template raises through raise_exception
            raise Refused(str(error)) from error

    def _render_here(self, turns: list[dict[str, str]], open_turn: bool) -> str:
        special = special_tokens(self.tokenizer.special_tokens_map)
        return render_template(self.tokenizer.get_chat_template(), special, turns, open_turn=open_turn)

    def _loses_system_turns(self) -> bool:
        """Whether the template refuses or leaves out a system turn but takes the same conversation without it."""
        user = [Turn(role="user", content="a")]
        instruction = "Answer in one short line."
        self.folds_system = False
        try:
            return instruction not in self._render([Turn(role="system", content=instruction), *user], open_turn=True)
        except Refused:
            pass
        try:
            self._render(user, open_turn=True)
        except Refused:
            return False
        return True

    def _harmless(self, content: str) -> str:
        """Control tokens inside anybody's text are broken by a word joiner after their first character."""
        return self._control.sub(lambda match: match[0][0] + "\u2060" + match[0][1:], content)

    def _markup(self) -> set[str]:
        """Added tokens that belong to what is said and not to the format: pairs such as <think> and </think> (Qwen3) or
        <table> and </table> (Gemma) that their tokenizer does not call special. Pairs that frame a user's turn or end a
        turn are no such tokens, whatever the tokenizer calls them."""
        added = {token.content for token in self.tokenizer.added_tokens_decoder.values() if not token.special}
        pairs = [(f"<{name[2:-1]}>", name) for name in added if name.startswith("</") and name.endswith(">")]
        framing = self._render([Turn(role="user", content="a")], open_turn=False)
        end: str = self.tokenizer.convert_ids_to_tokens(self.end_id)
        return {
            token
            for opening, closing in pairs
            if opening in added and end not in (opening, closing) and not (opening in framing or closing in framing)
            for token in (opening, closing)
        }

    def _special_ids(self, rendered: str) -> list[int]:
        ids: list[int] = self.tokenizer.encode(rendered, add_special_tokens=False)
        return ids

    def _document_id(self) -> int:
        """The token between documents: the one that begins a text, unless it frames turns, as ChatML's <|im_start|> in
        SmolLM2, or is missing, as in Qwen; these have an <|endoftext|> for it. Else the one that ends a text."""
        begins = self.tokenizer.bos_token_id
        if not self._own:
            exchange = [Turn(role="user", content="a"), Turn(role="assistant", content="b")]
            ids = self._special_ids(self._render(exchange, open_turn=False))
            between = self.tokenizer.get_vocab().get(DOCUMENT)
            if between is not None and (begins is None or ids.count(begins) > 1):
                return int(between)
        return self.stop_ids[-1] if begins is None else int(begins)

    def _foreign_end(self, source: str) -> int:
        """The token the template ends an assistant's turn with; the tokenizer's end of text where it puts none."""
        turns = [Turn(role="user", content="a"), Turn(role="assistant", content="b")]
        ids = self._special_ids(self._render(turns, open_turn=False).rstrip())
        special = {*self.tokenizer.all_special_ids, *self.tokenizer.get_added_vocab().values()}
        if ids and ids[-1] in special:
            return ids[-1]
        if self.tokenizer.eos_token_id is None:
            raise InputError(f"{source}: its tokenizer has no end-of-text token", code="no_chat_template")
        return int(self.tokenizer.eos_token_id)

"""An Ollama Modelfile: the chat template in Go's template language, and the words at which a reply ends.

Ollama does not read the Jinja template that a GGUF file holds. It guesses one that looks alike, and a wrong guess is
the most frequent reason why a model talks nonsense there. So the Go template is written out. It is made of the pieces
that the model's own template puts around turns, and only if these reproduce that template on a set of conversations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from training.contract import Turn

Render = Callable[[Sequence[Turn], bool], str]
"""(turns, whether the assistant has to speak next) to text."""

SYSTEM, USER, REPLY, NEXT = "Sentinel one", "Sentinel two", "Sentinel three", "Sentinel four"
MAX_CONTEXT: Final = 8192  # tokens that Ollama is asked to have room for; its own default is less


class Pieces(NamedTuple):
    """What stands around turns. opening: before the first turn where there is no system turn. joined: whether the
    first question goes on where the system text ends, without what otherwise stands before a question."""

    opening: str
    before_system: str
    after_system: str
    before_user: str
    after_user: str
    before_reply: str
    after_reply: str
    joined: bool

    def text(self, turns: Sequence[Turn]) -> str:
        around = {"user": (self.before_user, self.after_user), "assistant": (self.before_reply, self.after_reply)}
        first_turn = turns[0]
        if first_turn.role == "system":
            text, spoken_turns = self.before_system + first_turn.content + self.after_system, turns[1:]
        else:
            text, spoken_turns = self.opening, turns
        spoken = "".join(around[turn.role][0] + turn.content + around[turn.role][1] for turn in spoken_turns)
        if first_turn.role == "system" and self.joined:
            spoken = spoken.removeprefix(self.before_user)
        return text + spoken + self.before_reply

    def without_bos(self, bos: str) -> Pieces:
        return self._replace(opening=self.opening.removeprefix(bos), before_system=self.before_system.removeprefix(bos))


def turns(*contents: str, system: str = "") -> list[Turn]:
    """A conversation that the user begins, after a system turn where one is given."""
    spoken = [Turn(role="assistant" if i % 2 else "user", content=content) for i, content in enumerate(contents)]
    return [Turn(role="system", content=system), *spoken] if system else spoken


PROBES: Final = (
    turns("Hello."),
    turns("Hello.", system="Be brief."),
    turns("One?", "Two.", "Three?"),
    turns("One?", "Two.\nAnd more.", "Three?", system="Be brief.\n\nBe kind."),
    turns("One?", "Two.", "Three?", "Four.", "Five?"),
)


class AroundSystem(NamedTuple):
    before: str
    after: str
    joined: bool


def around_system(render: Render, before_user: str) -> AroundSystem | None:
    """What stands around the system text, None where the template refuses one or leaves it out."""
    try:
        before, following = render(turns(USER, system=SYSTEM), True).split(SYSTEM)
    except Exception:  # noqa: BLE001 (it appears no time or twice, or whatever a template raises to refuse it)
        return None
    between = following.split(USER)[0]
    return AroundSystem(before, between.removesuffix(before_user), not between.endswith(before_user))


def pieces_of(render: Render) -> Pieces | None:
    """The pieces of a template, or None if it does more than to put pieces around turns. If it takes no system turn,
    the system text becomes the beginning of the first question. What a template does with thoughts in earlier replies
    is not asked: Ollama's clients do not send them back."""
    try:
        asked, ended = render(turns(USER), True), render(turns(USER), False)
        after_user = ended.split(USER)[1]
        before_reply = asked.removeprefix(ended)
        after_reply = render(turns(USER, REPLY), False).split(REPLY)[1]
        head, _, following = render(turns(USER, REPLY, NEXT), True).partition(USER)
        before_user = following.split(REPLY)[1].split(NEXT)[0].removeprefix(after_reply)
        system = around_system(render, before_user)
        before_system, after_system, joined = system or AroundSystem(head, "\n\n", True)
        pieces = Pieces(
            head.removesuffix(before_user), before_system, after_system, before_user, after_user, before_reply,
            after_reply, joined,
        )  # fmt: skip
        probes = [probe for probe in PROBES if system or probe[0].role != "system"]
        return pieces if all(pieces.text(probe) == render(probe, True) for probe in probes) else None
    except Exception:  # noqa: BLE001 (a turn that does not appear once, or whatever a template raises: it is not of this kind)
        return None


def go_template(pieces: Pieces) -> str:
    """The pieces as a template of Go's text/template, as Ollama fills it in."""
    opening, before_system, after_system, before_user, after_user, before_reply, after_reply = map(escaped, pieces[:-1])
    otherwise = f"{{{{ else }}}}{opening}" if opening else ""
    messages = ".Messages"
    if pieces.joined:  # the system turn is the first of the messages
        messages = "$i, $_ := .Messages"
        before_user = f"{{{{ if not (and $.System (eq $i 1)) }}}}{before_user}{{{{ end }}}}"
    return (
        f"{{{{ if .System }}}}{before_system}{{{{ .System }}}}{after_system}{otherwise}{{{{ end }}}}"
        f'{{{{ range {messages} }}}}{{{{ if eq .Role "user" }}}}'
        f"{before_user}{{{{ .Content }}}}{after_user}"
        f'{{{{ else if eq .Role "assistant" }}}}{before_reply}{{{{ .Content }}}}{after_reply}'
        f"{{{{ end }}}}{{{{ end }}}}{before_reply}"
    )


def escaped(text: str) -> str:
    return text.replace("{{", '{{ "{{" }}')


def modelfile(file_name: str, pieces: Pieces | None, stops: Sequence[str], context: int) -> str:
    """The Modelfile for `ollama create NAME -f Modelfile`."""
    lines = [f"FROM ./{file_name}"]
    template = go_template(pieces) if pieces else ""
    if pieces and '"""' not in template:
        lines.append(f'TEMPLATE """{template}"""')
    else:
        lines += [
            "# This model's chat template does more than Ollama's template language can say for certain, so none is",
            "# written here. llama.cpp and LM Studio read the template in the file itself.",
        ]
    quoted = [stop.replace("\\", "\\\\").replace('"', '\\"') for stop in stops]
    lines += [f'PARAMETER stop "{stop}"' for stop in quoted]
    lines.append(f"PARAMETER num_ctx {min(context, MAX_CONTEXT)}")
    return "\n".join(lines) + "\n"

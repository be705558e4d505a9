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
    """What stands around turns. opening: before the first turn where there is no system turn."""

    opening: str
    before_system: str
    after_system: str
    before_user: str
    after_user: str
    before_reply: str
    after_reply: str

    def text(self, turns: Sequence[Turn]) -> str:
        around = {"user": (self.before_user, self.after_user), "assistant": (self.before_reply, self.after_reply)}
        first = turns[0]
        if first.role == "system":
            text, rest = self.before_system + first.content + self.after_system, turns[1:]
        else:
            text, rest = self.opening, turns
        return (
            text
            + "".join(around[turn.role][0] + turn.content + around[turn.role][1] for turn in rest)
            + self.before_reply
        )

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


def pieces_of(render: Render) -> Pieces | None:
    """The pieces of a template, or None if it does more than to put pieces around turns. A template that refuses a
    system turn has none either: what it does with one cannot be said in Go. What a template does with thoughts in
    earlier replies is not asked: Ollama's clients do not send them back."""
    try:
        asked, ended = render(turns(USER), True), render(turns(USER), False)
        after_user = ended.split(USER)[1]
        before_reply = asked.removeprefix(ended)
        after_reply = render(turns(USER, REPLY), False).split(REPLY)[1]
        head, _, rest = render(turns(USER, REPLY, NEXT), True).partition(USER)
        before_user = rest.split(REPLY)[1].split(NEXT)[0].removeprefix(after_reply)
        before_system, rest = render(turns(USER, system=SYSTEM), True).split(SYSTEM)
        after_system = rest.split(USER)[0].removesuffix(before_user)
        pieces = Pieces(
            head.removesuffix(before_user), before_system, after_system, before_user, after_user, before_reply,
            after_reply,
        )  # fmt: skip
        return pieces if all(pieces.text(probe) == render(probe, True) for probe in PROBES) else None
    except Exception:  # noqa: BLE001 (a turn that does not appear once, or whatever a template raises: it is not of this kind)
        return None


def go_template(pieces: Pieces) -> str:
    """The pieces as a template of Go's text/template, as Ollama fills it in."""
    literal = Pieces(*map(escaped, pieces))
    otherwise = f"{{{{ else }}}}{literal.opening}" if literal.opening else ""
    return (
        f"{{{{ if .System }}}}{literal.before_system}{{{{ .System }}}}{literal.after_system}{otherwise}{{{{ end }}}}"
        f'{{{{ range .Messages }}}}{{{{ if eq .Role "user" }}}}'
        f"{literal.before_user}{{{{ .Content }}}}{literal.after_user}"
        f'{{{{ else if eq .Role "assistant" }}}}{literal.before_reply}{{{{ .Content }}}}{literal.after_reply}'
        f"{{{{ end }}}}{{{{ end }}}}{literal.before_reply}"
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

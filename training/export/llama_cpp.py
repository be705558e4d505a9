"""Answers by llama.cpp itself, where its Python binding xllamacpp is installed. The site does not need it.

It runs in a process of its own, which takes its threads and memory along when it ends, and whose end is no end of the
run: `python -m training.export.llama_cpp` reads one line of JSON with a file and requests, and answers each by a line.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from training.contract import InputError, Turn

GREEDY: Final = {"temperature": 0, "top_k": 1, "cache_prompt": False, "verbose": True, "return_tokens": True}


class Reply(NamedTuple):
    """As an Answer; prompt is None if llama.cpp counts another number of tokens in it."""

    prompt: list[int] | None
    reply: list[int]


def available() -> bool:
    return importlib.util.find_spec("xllamacpp") is not None


def chat_request(turns: Sequence[Turn], limit: int) -> dict[str, Any]:
    """Asks for a greedy answer to a conversation, which llama.cpp renders with the template in the file and tokenizes
    itself."""
    messages = [turn.model_dump(include={"role", "content"}) for turn in turns]
    return GREEDY | {"max_tokens": limit, "messages": messages}


def text_request(prompt: Sequence[int], limit: int) -> dict[str, Any]:
    """Asks to go on from tokens: for models without a template."""
    return GREEDY | {"max_tokens": limit, "prompt": list(prompt)}


def ask(path: Path, context: int, threads: int, requests: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """llama.cpp's responses, each as soon as it is there. Raises InputError if it refuses the file or a request."""
    question = json.dumps({"path": str(path), "context": context, "threads": threads, "requests": list(requests)})
    child = subprocess.Popen(
        [sys.executable, "-m", "training.export.llama_cpp"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    try:
        assert child.stdin is not None  # noqa: S101 (both are pipes)
        assert child.stdout is not None  # noqa: S101
        child.stdin.write(question + "\n")
        child.stdin.close()
        for number in range(1, len(requests) + 1):
            line = child.stdout.readline()
            response: dict[str, Any] = json.loads(line) if line else {"error": "its process ended"}
            if "error" in response:
                raise InputError(
                    f"{path.name} is not offered: llama.cpp refuses prompt {number} ({str(response['error'])[:300]})",
                    code="export_differs",
                )
            yield response
    finally:
        child.kill()
        child.wait()
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                pipe.close()


def reply_of(response: dict[str, Any], prompt: list[int]) -> Reply:
    same = response["usage"]["prompt_tokens"] == len(prompt)
    return Reply(prompt if same else None, list(response["__verbose"]["tokens"]))


def tokens_of(server: Any, request: dict[str, Any]) -> Any:
    """How llama.cpp cuts a text, which its binding gives by HTTP only."""
    body = json.dumps(request["tokenize"]).encode()
    headers = {"Content-Type": "application/json"}
    address = urllib.request.Request(  # noqa: S310 (the server's own address)
        f"{server.listening_address}/tokenize", body, headers
    )
    with urllib.request.urlopen(address, timeout=30) as answer:  # noqa: S310
        return json.load(answer)


def main() -> None:
    import xllamacpp  # noqa: PLC0415 (an optional library)

    question = json.loads(sys.stdin.readline())
    params = xllamacpp.CommonParams()
    params.model.path = question["path"]
    params.n_ctx = question["context"]
    params.n_parallel = 1
    params.n_gpu_layers = 0
    params.cpuparams.n_threads = question["threads"]
    params.warmup = False
    params.verbosity = 0
    params.use_jinja = True
    params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    server = xllamacpp.Server(params)
    for request in question["requests"]:
        handle = server.handle_chat_completions if "messages" in request else server.handle_completions
        response = tokens_of(server, request) if "tokenize" in request else handle(request)
        sys.stdout.write(json.dumps(response) + "\n")
        sys.stdout.flush()
    os._exit(0)  # the server's own end waits for threads that wait for it


if __name__ == "__main__":
    main()

"""Text generation: static slots, continuous batching, log-probabilities of what was sampled.

    engine = Engine(model, tokenizer, slots=32)
    completions = engine.generate([Request(ids, SamplingParams(temperature=0.7, seed=seed_of(0, "prompt:1", 0)))])

engine.py schedules, cache.py holds keys and values, llama.py and general.py compute, text.py turns tokens into text.
"""

from training.engine.engine import Engine, context_limit
from training.engine.requests import Completion, Delta, PromptTooLong, Request, SamplingParams, seed_of

__all__ = ["Completion", "Delta", "Engine", "PromptTooLong", "Request", "SamplingParams", "context_limit", "seed_of"]

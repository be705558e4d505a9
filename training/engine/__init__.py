"""Text generation: paged keys and values, continuous batching, log-probabilities of the sampled tokens.

    engine = Engine(model, tokenizer, slots=32)
    params = SamplingParams(temperature=0.7, seed=derive_seed(0, "prompt:1", 0))
    completions = engine.generate([EngineRequest(ids, params)])

engine.py schedules, batch.py hands out memory, kv_cache.py holds keys and values, kv_budget.py says how much they may
take, llama_inference.py and transformers_forward.py compute, and detokenizer.py turns tokens into text.
"""

from training.engine.engine import Engine, context_limit
from training.engine.engine_request import (
    Completion,
    Delta,
    EngineRequest,
    PromptTooLong,
    SamplingParams,
    derive_seed,
)  # fmt: skip

__all__ = [
    "Completion", "Delta", "Engine", "EngineRequest", "PromptTooLong", "SamplingParams", "context_limit", "derive_seed",
]  # fmt: skip

"""The OpenAI-compatible face: an OpenAI client talks to what a project has deployed.

`model` is a project's short name (the deployed model, canary share included) or a model's served name, e.g. `kite-7`.
The key is an API token. middleware.py takes every request under /v1/, past the middleware of pages, so that each answer
is JSON; views.py are the endpoints, targets.py finds the model, limits.py says how much one person may ask for at once,
answers.py writes answers and errors.
"""

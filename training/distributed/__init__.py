"""Several processes that compute one run: launch, collectives, FSDP."""

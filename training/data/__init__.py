"""Chat templates, tokenized rows, batching, packing, cleaning, deduplication."""

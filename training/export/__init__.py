"""Models on their way out: Hugging Face folders and GGUF files, written one tensor at a time, and checked."""

"""Text and image tokenizers: text to token ids, pictures to codes, and back."""

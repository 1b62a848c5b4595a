"""Between text and tokens: tokenizers, chat templates, windows, spans."""

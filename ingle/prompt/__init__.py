"""Messages to tokens and back: tokenizer, one encoder file per generation, streaming parser."""

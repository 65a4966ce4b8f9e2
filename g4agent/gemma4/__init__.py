"""Gemma 4's native wire format: control tokens, rendering, parsing on token ids, and repair of malformed calls."""

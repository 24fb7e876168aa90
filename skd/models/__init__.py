"""Models and tokenizers: loading, making small ones, checking that a pair fits, text to ids.

Refuses to know tasks, methods and losses.
"""

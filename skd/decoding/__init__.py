"""What a trained student is worth: agreement with its teacher, and speculative decoding.

Knows ids and models; trains nothing and refuses to know text and files.
"""

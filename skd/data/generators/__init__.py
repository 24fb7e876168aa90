"""The three procedural tasks: every latent state with all its valid outputs, drawn from a seed.

Refuses to know files, splits and tokens.
"""

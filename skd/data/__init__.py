"""Examples: from generators, files or the Hub to checked splits in a folder.

Refuses to know tokens and models.
"""

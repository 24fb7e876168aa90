"""Sampling: ids in, ids and states out.

Here stand the interleaved sampler (Algorithm 1 of the paper) and what it is made of: the slot
cache, acceptance rules, block sizes, random numbers. It refuses to know text, losses and files.
"""

"""Side-by-side measurements of the sampler, the loss and whole steps, against peers.

`make bench` runs them. Never a test: a ratio of CPU times on a busy machine proves nothing.
"""

"""Training: the table of methods, a step's responses, the losses and the loop.

Knows ids and models; it refuses to know text, tasks, metrics by name and the experiment's graph.
"""

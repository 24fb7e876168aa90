"""A training run as a value: its inputs, its scratch folder, and the workers that train several.

Refuses to know the graph of stages.
"""

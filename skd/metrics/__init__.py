"""Scores of outputs: BLEU, chrF, ROUGE, COMET, exact answers.

Knows rows and outputs; refuses to know models and statistics.
"""

"""Metrics of labels, and of texts that a language model writes."""

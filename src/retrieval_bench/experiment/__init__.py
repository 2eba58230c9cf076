"""The run, top to bottom: prepare, extract, quality, latency, robustness, sanity checks, recording, repeat.

What works without a dataset and a plan belongs further down.
"""

"""Metrics: arrays in, numbers out; no files. Each states what it returns when there is nothing to measure."""

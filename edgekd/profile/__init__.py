"""Measuring: warm-up, certified percentiles, memory in a fresh process."""

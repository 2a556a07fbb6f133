"""Conformance suites that a plugin author runs too."""

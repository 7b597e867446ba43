"""Measurements: each module answers one question with a ratio taken inside one run."""

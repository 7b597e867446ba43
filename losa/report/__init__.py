"""Runs and sweeps as one page that people look at; :mod:`losa.report.run` makes it."""

"""Adaptation: a small side network trained over cached planes; knows no pixels.

Nothing is imported here, because decode workers and ``losa --help`` must stay without torch.
"""

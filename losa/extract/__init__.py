"""Images in, tap features out: data sets, decoding, frozen backbones. Knows no training.

Nothing is imported here: decode workers import ``losa.extract.decode`` in processes of their own,
and must start in a blink.
"""

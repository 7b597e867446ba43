"""Backbones that look at clips: image transformers frame by frame, and ViViT."""

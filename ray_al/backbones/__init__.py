"""Backbones: networks that turn images into embeddings, and what is done to an image before it enters one."""

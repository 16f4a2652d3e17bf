"""Bytes on disk <-> tensors: safetensors files and the names inside them."""

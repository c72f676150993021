"""Denoising sequential recommendation: frames and tensors in, frames and tensors out."""

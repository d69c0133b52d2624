"""Checkpoints of latent diffusion in one file, the form of CompVis' code, AUTOMATIC1111 and ComfyUI."""

"""Small logits and labels for losses."""

import torch


def one(*values):
    """A 1 x 1 x 1 x n tensor."""
    return torch.tensor(values, dtype=torch.float32)[None, None, None]


def random_case(structures=2, images=3, size=(6, 5), activation="sigmoid", seed=0):
    """Random logits that want a gradient, and a label in which structures do not overlap."""
    generator = torch.Generator().manual_seed(seed)
    channels = structures + (activation == "softmax")
    logits = torch.randn(images, channels, *size, generator=generator).requires_grad_()
    picked = torch.randint(structures + 1, (images, *size), generator=generator)
    label = torch.stack([picked == s + 1 for s in range(structures)], dim=1).to(torch.uint8)
    return logits, label

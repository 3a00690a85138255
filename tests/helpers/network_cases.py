"""What the tests of several networks share."""

import torch
from torch import nn


def parameters(module) -> int:
    """How many weights and biases there are."""
    return sum(parameter.numel() for parameter in module.parameters())


def on_meta(kind, *channels, **options):
    """A network that takes neither memory nor time."""
    with torch.device("meta"):
        return kind(*channels, **options)


def settled(network, image):
    """The network in evaluation mode, normalised by the statistics of ``image``.

    Each channel then has values on both sides of zero, so that no ReLU cuts off a whole channel, and a bias in front of
    a normalisation counts, which batch normalisation in training takes out again.
    """
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
            module.momentum = 1.0
    with torch.no_grad():
        network.train()(image)
    return network.eval()


def without_gradient(network, image) -> list[str]:
    """Names of the parameters that the logits of ``image`` do not depend on."""
    settled(network, image)(image).square().mean().backward()
    return [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()]


def learn(network, image, loss, updates, rate=0.01):
    """The network after so many updates by Adam; ``loss`` is a function of the logits."""
    optimiser = torch.optim.Adam(network.parameters(), lr=rate)
    for _ in range(updates):
        optimiser.zero_grad()
        loss(network(image)).backward()
        optimiser.step()
    return network


def dice(found, label) -> torch.Tensor:
    """DSC of two masks ``(B, S, ...)`` for each structure, over the whole batch."""
    dims = (0, *range(2, label.ndim))
    return 2 * (found * label).sum(dim=dims) / (found + label).sum(dim=dims)


def mirrored_half_discs(size):
    """A noisy image ``(1, 1, size, size)`` of two half discs back to back, and a label ``(1, 2, size, size)`` of
    both."""
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    left = ((y - size / 2) ** 2 + (x - size / 4) ** 2 <= (size / 4) ** 2) & (x <= size / 4)
    label = torch.stack([left, left.flip(1)]).float()[None]
    image = label.sum(dim=1, keepdim=True)
    return image + 0.1 * torch.randn(image.shape), label


def with_background(label):
    """Class numbers ``(B, ...)`` for a cross-entropy, 0 for background, from a label ``(B, S, ...)``."""
    return torch.cat([1 - label.sum(dim=1, keepdim=True), label], dim=1).argmax(dim=1)


def structures_of(logits):
    """Masks ``(B, S, ...)`` of the most probable class, without background."""
    most = logits.argmax(dim=1, keepdim=True)
    return torch.cat([most == number for number in range(1, logits.shape[1])], dim=1).float()

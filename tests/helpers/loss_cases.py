"""Small logits and labels for losses."""

import torch


def one(*values):
    """A 1 x 1 x 1 x n tensor."""
    return torch.tensor(values, dtype=torch.float32)[None, None, None]


def random_case(structures=2, size=(6, 5), activation="sigmoid", seed=0):
    """Random logits of three images that want a gradient, and a label in which structures do not overlap."""
    generator = torch.Generator().manual_seed(seed)
    channels = structures + (activation == "softmax")
    logits = torch.randn(3, channels, *size, generator=generator).requires_grad_()
    picked = torch.randint(structures + 1, (3, *size), generator=generator)
    label = torch.stack([picked == s + 1 for s in range(structures)], dim=1).to(torch.uint8)
    return logits, label


def require_no_say_of_what_was_not_contoured(loss, activation):
    """One structure of one image was not contoured: no gradient there, one elsewhere, and no part in the value."""
    logits, label = random_case(3, activation=activation)
    channel = 1 + (activation == "softmax")
    label[0, 1] = 255
    value = loss(logits, label)
    (gradient,) = torch.autograd.grad(value, logits)
    assert gradient.isfinite().all()
    assert not gradient[0, channel].any()
    assert gradient[1:, channel].any()
    assert gradient[0, channel - 1].any()
    other = logits.detach().clone()
    other[0, channel] = 3.0
    torch.testing.assert_close(loss(other, label), value.detach(), rtol=1e-6, atol=0)

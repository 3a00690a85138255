import torch

from npcrepro.base.labels import NOT_CONTOURED
from npcrepro.papers.chen2020.losses import ChenDiceLoss


def printed(p, g, smoothing):
    return 1 - 2 * ((p * g).sum() + smoothing) / (p.sum() + g.sum() + smoothing)


def test_the_printed_equation_for_each_image():
    torch.manual_seed(0)
    logits = torch.randn(3, 1, 2, 4, 4)
    label = (torch.rand(3, 1, 2, 4, 4) > torch.tensor([0.9, 0.5, 0.1]).reshape(3, 1, 1, 1, 1)).to(torch.uint8)
    for smoothing in (1.0, 0.25):
        each = torch.stack([printed(p, g, smoothing) for p, g in zip(logits.sigmoid(), label, strict=True)])
        torch.testing.assert_close(ChenDiceLoss(smoothing)(logits, label), each.mean())
    pooled = printed(logits.sigmoid(), label, 1.0)
    torch.testing.assert_close(ChenDiceLoss(pooled="batch")(logits, label), pooled)
    # A structure that was not contoured takes no part.
    label[0] = NOT_CONTOURED
    torch.testing.assert_close(ChenDiceLoss()(logits, label), ChenDiceLoss()(logits[1:], label[1:]))

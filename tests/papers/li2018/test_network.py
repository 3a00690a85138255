import numpy as np
import pytest
import torch
import torch.nn.functional as F
from network_cases import dice, learn, on_meta, parameters, without_gradient
from scipy import ndimage

from npcrepro.models.layers import layer_table
from npcrepro.papers.li2018.losses import HingeLoss
from npcrepro.papers.li2018.network import Li2018Network, SupportVectors

PAPER = (1, 144, 144)

# Table 1 of the paper: kernel, stride, padding, output h x w x d; then parameters and millions of multiply-accumulates
# by hand from them.
TABLE_1 = {
    "conv1": (5, 1, 2, (144, 144, 80), 2_080, 41.47),
    "relu1": (None, None, None, (144, 144, 80), 0, 0),
    "pool1": (2, 2, 0, (72, 72, 80), 0, 0),
    "conv2": (5, 1, 2, (72, 72, 120), 240_120, 1244.16),
    "relu2": (None, None, None, (72, 72, 120), 0, 0),
    "pool2": (2, 2, 0, (36, 36, 120), 0, 0),
    "conv3": (9, 1, 4, (36, 36, 500), 4_860_500, 6298.56),
    "relu3": (None, None, None, (36, 36, 500), 0, 0),
    "conv4": (1, 1, 0, (36, 36, 300), 150_300, 194.40),
    "relu4": (None, None, None, (36, 36, 300), 0, 0),
    "conv5": (3, 1, 1, (36, 36, 100), 270_100, 349.92),
    "relu5": (None, None, None, (36, 36, 100), 0, 0),
    "conv6": (3, 1, 1, (36, 36, 1), 901, 1.17),
    "relu6": (None, None, None, (36, 36, 1), 0, 0),
    "deconv1": (4, 2, 1, (72, 72, 1), 17, 0.02),
    "concat1": (None, None, None, (72, 72, 121), 0, 0),
    "conv7": (1, 1, 0, (72, 72, 1), 122, 0.63),
    "relu7": (None, None, None, (72, 72, 1), 0, 0),
    "deconv2": (4, 2, 1, (144, 144, 1), 17, 0.08),
    "concat2": (None, None, None, (144, 144, 81), 0, 0),
    "conv8": (1, 1, 0, (144, 144, 1), 82, 1.68),
}


def test_every_row_of_table_1():
    network = on_meta(Li2018Network)
    rows, found = layer_table(network, PAPER), {}
    for row in rows:
        one = [side[0] if side and len(set(side)) == 1 else None for side in (row.kernel, row.stride, row.padding)]
        channels, height, width = row.output
        found[row.name] = (*one, (height, width, channels), row.parameters, round(row.macs / 1e6, 2))
    assert list(found.items()) == list(TABLE_1.items())
    assert (parameters(network), sum(row.macs for row in rows)) == (5_524_239, 8_132_088_960)
    assert round(parameters(network.conv3) / parameters(network), 2) == 0.88


def test_other_sizes_and_outputs_are_errors():
    network = Li2018Network(width=0.05)
    with pytest.raises(ValueError, match=r"divisible by 4, got \(16, 18\)"):
        network(torch.zeros(1, 1, 16, 18))
    with pytest.raises(ValueError, match="score_quater"):
        network(torch.zeros(1, 1, 8, 8), output="score_quater")


@pytest.mark.parametrize("fused", [True, False])
def test_gradients_reach_every_parameter_with_linear_scores(fused):
    torch.manual_seed(0)
    network = Li2018Network(width=0.1, relu_on_scores=False, fused=fused)
    assert without_gradient(network, torch.randn(2, 1, 32, 32)) == []


def test_a_negative_score_blocks_the_gradient_where_the_score_has_a_relu():
    torch.manual_seed(0)
    network = Li2018Network(width=0.1)
    with torch.no_grad():
        network.conv6.weight.zero_()
        network.conv6.bias.fill_(-1.0)
    network(torch.randn(2, 1, 32, 32)).square().mean().backward()
    assert not network.conv6.bias.grad.any()
    assert not network.conv3.weight.grad.any()
    assert network.conv1.weight.grad.any()  # by way of Concat2


def test_unfused_has_no_weights_for_fine_features():
    network = on_meta(Li2018Network, fused=False)
    assert (network.conv7.in_channels, network.conv8.in_channels) == (1, 1)
    assert parameters(network) == 5_524_239 - 120 - 80
    assert "concat1" not in [layer.name for layer in layer_table(network, PAPER)]


def test_deconvolutions_start_as_bilinear_interpolation():
    torch.manual_seed(0)
    score, network = torch.randn(1, 1, 6, 7), Li2018Network(width=0.05)
    expected = F.interpolate(score, scale_factor=2, mode="bilinear", align_corners=False)[..., 1:-1, 1:-1]
    for layer in (network.deconv1, network.deconv2):
        torch.testing.assert_close(layer(score)[..., 1:-1, 1:-1], expected)


def test_the_printed_initialisation():
    torch.manual_seed(0)
    network = Li2018Network(initialisation=1.0)
    for layer in (network.conv2, network.conv3, network.conv5):
        assert layer.weight.std().item() == pytest.approx(1, rel=0.02)
    # Also of the score layers, which the default starts otherwise.
    assert network.conv7.weight.std().item() == pytest.approx(1, rel=0.3)
    with torch.no_grad():
        size = network(torch.randn(1, 1, 32, 32), output="score_quarter").abs().mean().item()
    assert 1e7 < size < 1e10
    assert Li2018Network(initialisation=0.01).conv3.weight.std().item() == pytest.approx(0.01, rel=0.02)


def test_one_case_can_be_learnt_by_heart():
    torch.manual_seed(0)
    y, x = torch.meshgrid(torch.arange(16), torch.arange(16), indexing="ij")
    label = (((y - 6) ** 2 + (x - 9) ** 2) <= 16).float()[None, None]
    image = label + 0.1 * torch.randn(label.shape)
    network = Li2018Network(width=0.05, relu_on_scores=False)
    learn(network, image, lambda logits: F.binary_cross_entropy_with_logits(logits, label), 60)
    assert dice((network(image) >= 0).float(), label) > 0.95


def test_support_vectors_train_one_layer_on_fixed_features():
    torch.manual_seed(0)
    machine = SupportVectors(in_channels=2, out_channels=3, width=0.25)
    # Two intensities as they are; two under three Gaussians each, with their slopes; two coordinates; 128 cosines.
    features = 2 * (1 + 2 * 3) + 2
    assert {name: tuple(part.shape) for name, part in machine.named_parameters()} == {
        "classifier.weight": (3, features + 128, 1, 1),
        "classifier.bias": (3,),
    }
    fixed = {name: buffer.clone() for name, buffer in machine.named_buffers()}
    image = torch.randn(2, 2, 12, 20)
    distance = machine(image)
    assert distance.shape == (2, 3, 12, 20)
    HingeLoss()(distance, torch.rand(2, 3, 12, 20).round()).backward()
    assert machine.classifier.weight.grad.abs().flatten(1).sum(dim=1).all()
    assert fixed.keys() == {"bank", "frequencies", "phases"}
    assert all(torch.equal(fixed[name], buffer) for name, buffer in machine.named_buffers())


def test_features_are_gaussians_and_slopes_of_the_image():
    image = np.random.default_rng(0).normal(size=(24, 28)).astype(np.float32)
    found = SupportVectors(width=0.01).features(torch.from_numpy(image)[None, None])[0].numpy()
    assert len(found) == 9
    np.testing.assert_array_equal(found[0], image)
    for number, scale in enumerate((1.0, 2.0, 4.0)):
        smooth = ndimage.gaussian_filter(image, scale, mode="nearest", radius=12)
        slope = scale * ndimage.gaussian_gradient_magnitude(image, scale, mode="nearest", radius=12)
        np.testing.assert_allclose(found[1 + number], smooth, atol=1e-4)
        np.testing.assert_allclose(found[4 + number], slope, atol=1e-4)
    assert (found[7, 0, 0], found[7, -1, 0], found[8, 0, -1]) == pytest.approx((-6, 6, 6))


def test_cosines_make_a_gaussian_kernel():
    torch.manual_seed(0)
    machine = SupportVectors(width=40, length=2.0)
    features = torch.randn(9, 6)
    phases = machine.frequencies[:, :, 0, 0] @ features + machine.phases[:, None]
    cosines = phases.cos() * (2 / len(phases)) ** 0.5
    kernel = torch.exp(-torch.cdist(features.T, features.T).square() / (2 * 2.0**2))
    torch.testing.assert_close(cosines.T @ cosines, kernel, atol=0.05, rtol=0)


@pytest.mark.parametrize("field", [0.0, 0.5])
def test_support_vectors_learn_what_no_threshold_finds_and_a_field_takes_away_specks(field):
    """A structure of middle intensity, with brighter and darker tissue around it."""
    torch.manual_seed(0)
    label = torch.zeros(1, 1, 24, 24)
    label[..., 8:16, 8:16] = 1
    around = torch.where(torch.arange(24) < 12, 2.0, -2.0).expand(1, 1, 24, 24)
    image = torch.where(label > 0, 0.0, around) + 0.1 * torch.randn(1, 1, 24, 24)
    machine = SupportVectors(width=0.25, field=field)
    learn(machine, image, lambda distance: HingeLoss()(distance, label), 60, rate=0.05).eval()
    assert dice((machine(image) > 0).float(), label) > 0.95
    speck = -torch.ones(1, 1, 5, 5)
    speck[..., 2, 2] = 0.5
    assert (machine._smoothed(speck) > 0).any() == (field == 0)

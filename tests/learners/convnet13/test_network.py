"""The 13-layer network: shapes layer by layer, sizes, weight normalization, gradients, and a naive float64 forward."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from ray_al.learners.convnet13.network import (
    ConvNet13,
    body_of,
    make_network,
    network_of,
    put_body,
    reset_head,
    tensors_of,
)


def network(classes: int = 10, width: int = 4, seed: int = 0) -> ConvNet13:
    return make_network(classes, width, torch.float32, np.random.default_rng(seed))


def images(count: int = 3, seed: int = 0) -> torch.Tensor:
    values = np.random.default_rng(seed).standard_normal((count, 3, 32, 32)).astype(np.float32)
    return torch.from_numpy(values).contiguous(memory_format=torch.channels_last)


def test_layers_have_the_shapes_and_the_parameters_of_the_paper():
    net = network(width=128).eval()
    shapes = []
    for layer in net.layers:
        layer.register_forward_hook(lambda module, given, out: shapes.append(tuple(out.shape[1:])))
    with torch.inference_mode():
        embedding = net.embed(images(2))
        logits = net(images(2))
    assert shapes[:9] == [
        (128, 32, 32), (128, 32, 32), (128, 32, 32),
        (256, 16, 16), (256, 16, 16), (256, 16, 16),
        (512, 6, 6), (256, 6, 6), (128, 6, 6),
    ]  # fmt: skip
    assert embedding.shape == (2, 128)
    assert logits.shape == (2, 10)
    weights = sum(layer.direction.numel() for layer in [*net.layers, net.head])
    gains = 128 * 3 + 256 * 3 + 512 + 256 + 128  # and as many scales and shifts of BatchNorm
    assert weights == 27 * 128 + 9 * (128**2 * 2 + 128 * 256 + 256**2 * 2 + 256 * 512) + 512 * 256 + 256 * 128 + 1280
    assert sum(p.numel() for p in net.parameters()) == weights + 3 * gains + 10 + 10
    assert round(weights / 1e6, 1) == 3.1


def test_forward_is_the_naive_one():
    net = network(classes=3)
    rng = np.random.default_rng(1)
    with torch.no_grad():
        for layer in net.layers:  # moments and scales other than those it begins with
            for part in (layer.norm.running_mean, layer.norm.weight, layer.norm.bias, layer.norm.running_var):
                part.copy_(torch.from_numpy(rng.uniform(0.5, 1.5, part.shape).astype(np.float32)))
            layer.gain.copy_(torch.from_numpy(rng.uniform(0.5, 2, layer.gain.shape).astype(np.float32)))
    x = images().double()
    for place, layer in enumerate(net.eval().layers):
        v, norm = layer.direction.double(), layer.norm
        weight = v / v.flatten(1).norm(dim=1)[:, None, None, None] * layer.gain.double()
        x = functional.conv2d(x, weight, padding=0 if place >= 6 else 1)
        x = (x - norm.running_mean.double()[:, None, None]) / (norm.running_var.double()[:, None, None] + 1e-5).sqrt()
        x = x * norm.weight.double()[:, None, None] + norm.bias.double()[:, None, None]
        x = torch.where(x > 0, x, 0.1 * x)
        if place in (2, 5):
            x = torch.stack([x[:, :, i::2, j::2] for i in (0, 1) for j in (0, 1)]).amax(0)
    feature = x.flatten(2).sum(2) / 36
    feature = feature / feature.norm(dim=1, keepdim=True)
    v = net.head.direction.double()
    logits = feature @ (v / v.norm(dim=1, keepdim=True) * net.head.gain.double()).T + net.head.bias.double()
    with torch.inference_mode():
        torch.testing.assert_close(net.embed(images()).double(), feature, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(net(images()).double(), logits, atol=1e-5, rtol=1e-4)


def test_gradients_are_those_of_differences():
    net = network(classes=3).double().train()
    net.precision = torch.float64
    inputs, targets = images(4).double(), torch.tensor([0, 1, 2, 1])

    def loss() -> torch.Tensor:
        net.noise = torch.Generator().manual_seed(0)
        return functional.cross_entropy(net(inputs), targets)

    loss().backward()
    rng = np.random.default_rng(0)
    for parameter in (net.layers[0].direction, net.layers[4].gain, net.layers[6].norm.weight, net.head.direction):
        way = torch.from_numpy(rng.standard_normal(parameter.shape))
        slope = float((parameter.grad * way).sum())
        step = 1e-8  # few activations cross the kink of the LeakyReLU
        with torch.no_grad():
            parameter += step * way
            above = float(loss())
            parameter -= 2 * step * way
            below = float(loss())
            parameter += step * way
        assert (above - below) / (2 * step) == pytest.approx(slope, rel=1e-4, abs=1e-7)


def test_dropout_draws_from_its_own_generator_and_keeps_the_mean():
    net = network().train()
    ones = torch.ones(64, 8, 16, 16)
    global_state = torch.get_rng_state()
    net.noise = torch.Generator().manual_seed(3)
    first = net._dropout(ones)
    assert torch.equal(torch.get_rng_state(), global_state)
    assert set(first.unique().tolist()) == {0.0, 2.0}
    assert abs(float(first.mean()) - 1) < 0.02
    net.noise = torch.Generator().manual_seed(3)
    assert torch.equal(net._dropout(ones), first)
    assert torch.equal(net.eval()._dropout(ones), ones)


def test_weights_begin_at_their_own_length_and_equal_streams_draw_equal_ones():
    net = network(seed=5)
    for layer in [*net.layers, net.head]:
        torch.testing.assert_close(layer.weight, layer.direction)
        bound = layer.direction[0].numel() ** -0.5
        assert float(layer.direction.detach().abs().max()) <= bound
        assert float(layer.direction.detach().abs().max()) > 0.7 * bound
    again, other = network(seed=5), network(seed=6)
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), again.parameters(), strict=True))
    assert not torch.equal(net.head.direction, other.head.direction)


def test_a_body_moves_without_the_head():
    source, target = network(classes=50, seed=1), network(classes=10, seed=2)
    source.layers[3].norm.running_mean += 1
    head = target.head.direction.detach().clone()
    put_body(target, body_of(source))
    with torch.inference_mode():
        assert torch.equal(target.eval().embed(images()), source.eval().embed(images()))
    assert torch.equal(target.head.direction, head)
    reset_head(target, np.random.default_rng(9))
    assert not torch.equal(target.head.direction, head)
    with pytest.raises(ValueError, match="13-layer network of this width"):
        put_body(network(width=2), body_of(source))


def test_a_network_is_made_again_from_its_tensors():
    net = network()
    same = network_of(tensors_of(net), torch.float32)
    with torch.inference_mode():
        assert torch.equal(same.eval()(images()), net.eval()(images()))
    broken = tensors_of(net)
    broken.pop("layers.2.gain")
    with pytest.raises(ValueError, match=r"not the weights.*layers.2.gain"):
        network_of(broken, torch.float32)


def test_bfloat16_is_close_to_float32():
    net = network().eval()
    with torch.inference_mode():
        exact = net.embed(images())
        net.precision = torch.bfloat16
        rough = net.embed(images())
    assert rough.dtype == torch.float32
    assert float((exact * rough).sum(1).min()) > 0.99

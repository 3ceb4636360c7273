"""What the learner does once torch is loaded: fit, pre-train, save and load."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load as read_tensors
from safetensors.torch import save as tensor_bytes

from ray_al.core.labeled_set import LabeledSet
from ray_al.core.pool import Pool
from ray_al.core.query import PseudoLabels
from ray_al.core.seeds import stream, subseed
from ray_al.learners.convnet13.deepcluster import Clustering, deepcluster
from ray_al.learners.convnet13.images import Images, Moments, check_images, moments_of
from ray_al.learners.convnet13.model import ConvNet13Model
from ray_al.learners.convnet13.network import make_network, network_of, put_body, tensors_of
from ray_al.learners.convnet13.propagation import Propagation
from ray_al.learners.convnet13.training import Fit, History, Schedule, Semi, semi_supervised, supervised
from ray_al.learners.networks import pick_device, repeatable

if TYPE_CHECKING:
    from ray_al.learners.convnet13.learner import Convnet13

_MOMENTS = "moments."  # what the moments' names begin with, beside those of the network's tensors


def fit(
    options: Convnet13,
    labeled: LabeledSet,
    assume: PseudoLabels,
    pool: Pool,
    rng: np.random.Generator,
    body: np.ndarray | None,
) -> tuple[ConvNet13Model, History]:
    """A network trained on what is labeled, and the record of its epochs; `body` are pre-trained weights."""
    whole = pool.inputs(options.space)
    check_images(whole)
    targets = np.concatenate([labeled.labels, assume.labels, labeled.image_labels])
    if not len(targets):
        raise ValueError("convnet13 cannot be fitted without labels")
    if options.semi and len(assume):
        raise ValueError("convnet13 with semi makes its own pseudo-labels; a strategy's (CEAL) cannot be added to them")
    ids = np.concatenate([labeled.ids, assume.ids])
    synthetic = len(labeled.image_labels)
    if synthetic and labeled.images is not None and labeled.images.shape[1:] != whole.shape[1:]:
        raise ValueError(f"synthetic images have shape {labeled.images.shape[1:]}, the pool's {whole.shape[1:]}")
    semi = options.semi and len(ids) < pool.size  # without unlabeled images there is nothing to propagate to
    images = whole if semi else whole[ids]
    if synthetic and labeled.images is not None:
        images = np.concatenate([images, labeled.images])
    rows = np.concatenate([ids if semi else np.arange(len(ids)), len(images) - synthetic + np.arange(synthetic)])
    init, order, shifts, noise = (np.random.default_rng(subseed(rng)) for _ in range(4))
    device = pick_device(options.device)
    moments = moments_of(whole)
    with repeatable(options.threads):
        net = make_network(pool.classes, options.width, _precision(options.precision, device), init)
        if body is not None:
            put_body(net, _tensors(body.tobytes()))
        net.to(device)
        net.noise = torch.Generator(device).manual_seed(subseed(noise))
        state = Fit(net, Images(images, moments, device), rows, targets, order, shifts)
        first = options.sup_epochs if options.semi else options.epochs
        supervised(state, Schedule(first, options.lr, options.zero_at), options.batch)
        if semi:
            how = Propagation(options.k, options.alpha, options.graph, options.class_balanced)
            settings = Semi(
                options.semi_batch, options.labeled_batch, options.pseudo_sampling,
                options.loss_weight == "w", options.clean_features, how,
            )  # fmt: skip
            later = Schedule(options.epochs, options.lr, options.zero_at)
            semi_supervised(state, later, settings, pool.size, pool.classes, options.audit)
    net.noise = None
    net.eval()
    return ConvNet13Model(net, moments, pool, options.space, device, options.threads), state.history


def pretrain(images: np.ndarray, config: dict[str, Any], device: str) -> np.ndarray:
    """The bytes of a safetensors file (uint8) with the weights that DeepCluster gives all layers but the last."""
    where = pick_device(device)
    names = ("clusters", "width", "epochs", "lr", "schedule", "batch")
    how = Clustering(**{name: config[name] for name in names}, precision=_precision(config["precision"], where))
    with repeatable(config["threads"]):
        held = Images(images, moments_of(images), where)
        body = deepcluster(held, how, stream(config["seed"], "init-weights", -1))
    return np.frombuffer(tensor_bytes(body), np.uint8)


def save(model: ConvNet13Model) -> bytes:
    """A model as a safetensors file."""
    moments = {_MOMENTS + name: torch.from_numpy(part) for name, part in vars(model.moments).items()}
    return tensor_bytes({**tensors_of(model.net), **moments})


def load(options: Convnet13, saved: bytes, pool: Pool) -> ConvNet13Model:
    """The model of a safetensors file. Raises ValueError for another file, or another network's."""
    tensors = _tensors(saved)
    parts = [tensors.pop(_MOMENTS + name, None) for name in ("mean", "deviation")]
    if parts[0] is None or parts[1] is None:
        raise ValueError("these are not the weights of a convnet13: the moments of its images are missing")
    device = pick_device(options.device)
    net = network_of(tensors, _precision(options.precision, device)).to(device).eval()
    if (len(net.head.bias), net.head.direction.shape[1]) != (pool.classes, options.width):
        raise ValueError("these weights are those of a network for other classes, or of another width")
    moments = Moments(parts[0].numpy(), parts[1].numpy())
    return ConvNet13Model(net, moments, pool, options.space, device, options.threads)


def _tensors(data: bytes) -> dict[str, torch.Tensor]:
    try:
        return read_tensors(data)
    except SafetensorError as error:
        raise ValueError(f"this is no safetensors file: {error}") from error


def _precision(name: str, device: torch.device) -> torch.dtype:
    """The type called `name`; "auto" is bfloat16 where a GPU computes in it, and float32 elsewhere."""
    if name == "auto":
        name = "bfloat16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "float32"
    return torch.bfloat16 if name == "bfloat16" else torch.float32

"""What a family's supernet and its subnets must hold. Each check fails by AssertionError."""

from __future__ import annotations

import copy
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from spaces.config import Config
from spaces.cost import cost, tensor_layout
from spaces.quant_scheme import FP32
from spaces.space import SearchSpace
from supernet.data import resize
from supernet.extract import Subnet
from supernet.families import build_supernet
from supernet.importance import reorder_channels
from supernet.recalibration import recalibrate
from supernet.supernet import ChannelGroup, Supernet
from supernet.testing.geometry import in_float

FLOAT_TOLERANCE, ROUNDING = 1e-4, 8.0
"""Largest difference of float32 logits, relative to the largest; where that is exceeded, relative
to the logits' own rounding error, which is large behind channels that hardly vary."""

INTEGER_MEAN, INTEGER_LARGEST = 0.04, 0.3
"""Mean and largest difference of the logits of an integer subnet and of the fake-quantised supernet
over the standard deviation of the logits. A value on the edge between two integers may round to
either, and such steps multiply from layer to layer: in a deep network to about what quantisation
itself changes, which is allowed too."""

_SMALL_IMAGE = 8
_INTEGER_LAYERS = (
    "qconv2d", "qlinear", "qconv2d_grouped", "qlinear_grouped", "weight_only_linear"
)  # fmt: skip


def sample_images(space: SearchSpace, count: int, seed: int = 0) -> Tensor:
    """Random smooth images float32 [count, C, R, R], 0 to 1, of the largest resolution."""
    generator = torch.Generator().manual_seed(seed)
    shape = (count, space.family.input_channels, _SMALL_IMAGE, _SMALL_IMAGE)
    images = torch.rand(shape, generator=generator)
    return resize(images, int(space.max_config()["resolution"]))


def sample_supernet(space: SearchSpace, count: int = 32, seed: int = 0) -> Supernet:
    """A supernet in which nothing is special, in evaluation mode.

    Its weights are random, gammas of both signs, nothing that was initialised to zero or to an
    identity is left so, and its quantisers are calibrated on `count` images.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        supernet = build_supernet(space)
        with torch.no_grad():
            for norm in supernet.norms():
                norm.weight.uniform_(0.5, 1.5).mul_(torch.randn_like(norm.weight).sign())
            for name, parameter in supernet.named_parameters():
                is_zero = not parameter.any()
                if "kernel_transforms" in name or is_zero:
                    parameter.add_(0.1 * torch.randn_like(parameter))
    largest = space.max_config()
    supernet.calibrate([(largest, sample_images(space, count, seed))])
    return supernet.eval()


def check_views(supernet: Supernet, config: Config) -> None:
    """Activating copies nothing: parameters stay where they are, views lie in their storage, and
    the active subnet computes with what the store holds now."""
    places = {name: tensor.data_ptr() for name, tensor in supernet.state_dict().items()}
    supernet.activate(config)
    now = {name: tensor.data_ptr() for name, tensor in supernet.state_dict().items()}
    assert now == places, f"activating {config!r} moved parameters"
    storages = {p.untyped_storage().data_ptr() for p in supernet.parameters()}
    for name, module in supernet.named_modules():
        for method in (one for one in dir(type(module)) if one.endswith("_view")):
            if not method.startswith("_"):
                view = getattr(module, method)()
                inside = view.untyped_storage().data_ptr() in storages
                assert inside, f"{method} of {name or 'the supernet'} is no view of the store"
    changed = copy.deepcopy(supernet)
    images = sample_images(supernet.space, 2)
    x = resize(images, supernet.resolution)
    with torch.no_grad():
        for parameter in changed.weight_parameters():
            parameter.mul_(1.01)
        found = changed(x)
        changed.activate(config)
        assert torch.equal(found, changed(x)), "an activated config does not follow the store"


def check_extraction(supernet: Supernet, config: Config, images: Tensor) -> None:
    """The extracted subnet computes what the active supernet computes.

    Args:
        supernet: In any mode.
        config: Its BatchNorm statistics are recalibrated on the images.
        images: float32 [n, C, h, w].
    """
    supernet.activate(config)
    recalibrate(supernet, images, len(images))
    x = resize(images, supernet.resolution)
    with torch.no_grad():
        expected = supernet(x)
        subnet = supernet.extract(config)
        found = subnet(x)
    classes = supernet.space.family.classes
    assert found.shape == expected.shape == (len(images), classes), f"logits {found.shape}"
    difference = (found - expected).abs()
    message = f"the extracted and the active {config!r} differ by {float(difference.max()):.1e}"
    if all(spec.precision == FP32 for spec in subnet.specs):
        assert _are_close(supernet, x, expected, found), message
        return
    supernet.activate(in_float(config))
    recalibrate(supernet, images, len(images))
    with torch.no_grad():
        exact = supernet(x)
    spread, quantisation = expected.std(), (expected - exact).abs()
    mean = torch.maximum(INTEGER_MEAN * spread, quantisation.mean())
    assert bool(difference.mean() <= mean), message
    largest = torch.maximum(INTEGER_LARGEST * spread, 2 * quantisation.max())
    assert bool(difference.max() <= largest), message


@torch.no_grad()
def _are_close(supernet: Supernet, x: Tensor, expected: Tensor, found: Tensor) -> bool:
    """Whether logits are those that the active float32 supernet computed for `x`."""
    difference, largest = (found - expected).abs().max(), expected.abs().max()
    if bool(difference <= FLOAT_TOLERANCE * largest):
        return True
    rounding = (copy.deepcopy(supernet).double()(x.double()) - expected).abs().max()
    return bool(difference <= ROUNDING * rounding)


def check_cost(subnet: Subnet) -> None:
    """The analytic cost is what the module holds, and what it multiplies in one inference."""
    analytic, state = cost(subnet.specs), subnet.state_dict()
    layout = {name: want for spec in subnet.specs for name, want in tensor_layout(spec).items()}
    found = {n: (str(t.dtype).removeprefix("torch."), tuple(t.shape)) for n, t in state.items()}
    wrong = sorted(name for name in {*found, *layout} if found.get(name) != layout.get(name))
    assert not wrong, f"tensors {wrong} are not those of the layout"
    size = sum(t.numel() * t.element_size() for t in state.values())
    assert size == analytic.bytes, f"{size} bytes, not {analytic.bytes}"
    held = _held_elements(subnet)
    assert held == analytic.params, f"{held} parameters, not {analytic.params}"
    macs = counted_macs(subnet)
    assert macs == analytic.macs, f"{macs} multiply-accumulates, not {analytic.macs}"


def _held_elements(subnet: Subnet) -> int:
    """Elements of weights and biases; of packed ones those that they stand for."""
    packed = {f"{s.site}.weight": prod(s.weight_shape) for s in subnet.specs if s.precision.weight}
    return sum(
        packed.get(name, tensor.numel())
        for name, tensor in subnet.state_dict().items()
        if name.endswith((".weight", ".bias"))
    )


def counted_macs(subnet: Subnet) -> int:
    """Multiply-accumulates of the operators that one inference calls."""
    mapping: dict[Any, Any] = {
        getattr(torch.ops.netcarve, name): _layer_operations for name in _INTEGER_LAYERS
    }
    channels, size = subnet.specs[0].in_channels, subnet.resolution
    counter = FlopCounterMode(display=False, custom_mapping=mapping)
    # The fused attention of CPUs is not counted.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        subnet(torch.zeros(1, channels, size, size))
    # It counts multiplications and additions.
    return int(counter.get_total_flops()) // 2


def _layer_operations(*shapes: Any, out_shape: Any, **_: Any) -> int:
    """Multiplications and additions of an integer layer: each weight of an output channel once for
    every value that it writes."""
    weight = next(s for s in shapes[1:] if isinstance(s, torch.Size | tuple | list) and len(s) > 1)
    return int(2 * prod(weight[1:]) * prod(out_shape))


def check_integers(supernet: Supernet, config: Config) -> int:
    """`export_int` then dequantise equals every fake-quantised tensor of an inference bit for bit.

    Returns:
        The number of tensors compared.
    """
    supernet.activate(config)
    supernet.eval()
    compared = []

    def compare(name: str) -> Any:
        def hook(quantizer: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
            x, scheme = inputs
            integers = quantizer.export_int(x.detach(), scheme)
            assert torch.equal(integers.dequantize(), output), f"{name} in {scheme.key}"
            compared.append(name)

        return hook

    hooks = [
        module.register_forward_hook(compare(name))
        for name, module in supernet.named_modules()
        if _is_quantizer(module)
    ]
    try:
        with torch.no_grad():
            supernet(resize(sample_images(supernet.space, 2), supernet.resolution))
    finally:
        for one in hooks:
            one.remove()
    return len(compared)


def _is_quantizer(module: nn.Module) -> bool:
    return hasattr(module, "export_int") and hasattr(module, "calibrate")


def check_export(subnet: Subnet) -> None:
    """`torch.export` takes the subnet and changes nothing."""
    x = torch.rand(1, subnet.specs[0].in_channels, subnet.resolution, subnet.resolution)
    with torch.no_grad():
        program = torch.export.export(subnet, (x,))
        assert torch.equal(program.module()(x), subnet(x)), "the exported program differs"


def check_channel_groups(supernet: Supernet, seed: int = 0) -> None:
    """Reordering the channels of every group leaves what the largest network computes.

    The supernet's largest config must be float32: scales belong to channels in their old order.
    """
    original = copy.deepcopy(supernet)
    original.activate(supernet.space.max_config())
    images = sample_images(supernet.space, 4)
    recalibrate(original, images, len(images))
    changed = copy.deepcopy(original)
    generator = torch.Generator().manual_seed(seed)

    def shuffled(group: ChannelGroup) -> Tensor:
        return torch.randperm(len(group.writers[0].conv.weight), generator=generator)

    reorder_channels(changed, shuffled)
    with torch.no_grad():
        expected, found = original(images), changed(images)
    assert _are_close(original, images, expected, found), (
        "reordered channels change the largest network's logits by up to "
        f"{float((found - expected).abs().max()):.1e}"
    )

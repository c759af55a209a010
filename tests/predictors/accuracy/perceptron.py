"""A weight-sharing perceptron on digits: its subnets are quantised after training, for real."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from spaces import SearchSpace
from spaces.dimension import Dimension, DimensionKind
from spaces.families import Family, Slot
from spaces.families.quantisation import (
    FORM_READS,
    QuantSettings,
    form_dimensions,
    layer_dimensions,
)
from spaces.layer_spec import LayerSpec, Operator
from spaces.quant_scheme import FLOAT_BITS, Symmetry, site_precision
from supernet import DataConfig, load_data

BITS = tuple(range(2, 9))
WIDTHS, HIDDEN, BLOCKS = (6, 9, 12, 16), (6, 12, 24), 3


class PerceptronSettings(QuantSettings):
    pass


class Perceptron(Family):
    """Residual blocks of two layers, elastic in width, depth and hidden width; the bits of each
    block, and one form for all."""

    name = "perceptron"
    settings_type = PerceptronSettings
    input_channels, classes = 1, 10

    def dimensions(self):
        found = [
            *form_dimensions(self.settings),
            Dimension("width", DimensionKind.WIDTH, WIDTHS),
            Dimension("depth", DimensionKind.DEPTH, tuple(range(1, BLOCKS + 1))),
        ]
        for i in range(BLOCKS):
            found += [
                Dimension(f"block{i}.hidden", DimensionKind.EXPANSION, HIDDEN),
                *layer_dimensions(self.settings, f"block{i}"),
            ]
        return *found, *layer_dimensions(self.settings, "classifier")

    def slots(self):
        def stem(values):
            return (LayerSpec("stem", Operator.LINEAR, 64, int(values["width"])),)

        def block(i):
            site = f"block{i}"

            def layers(values):
                width, hidden = int(values["width"]), int(values[f"{site}.hidden"])
                about = {"precision": site_precision(values, site)}
                return (
                    LayerSpec(f"{site}.up", Operator.LINEAR, width, hidden, **about),
                    LayerSpec(f"{site}.down", Operator.LINEAR, hidden, width, **about),
                )

            own = [f"{site}.{name}" for name in ("hidden", "w_bits", "a_bits")]
            return Slot(site, ("width", *own, *FORM_READS), layers, depth=("depth", i + 1))

        def tail(values):
            precision = site_precision(values, "classifier")
            width = int(values["width"])
            return (LayerSpec("classifier", Operator.LINEAR, width, 10, precision=precision),)

        reads = ("width", "classifier.w_bits", "classifier.a_bits", *FORM_READS)
        blocks = [block(i) for i in range(BLOCKS)]
        return Slot("stem", ("width",), stem), *blocks, Slot("tail", reads, tail)


def perceptron_space(w_bits=BITS):
    """All forms; activations have the bits of weights, but those of float32."""
    settings = PerceptronSettings(
        w_bits=w_bits,
        a_bits=tuple(bits for bits in w_bits if bits != FLOAT_BITS),
        granularity=("per_tensor", "per_channel"),
        weight_symmetry=tuple(Symmetry),
        activation_symmetry=tuple(Symmetry),
    )
    return SearchSpace("perceptron", Perceptron(settings))


class TrainedPerceptron:
    """The supernet, trained with random widths and depths; evaluated on images of its own."""

    def __init__(self, seed=0, steps=300):
        data = load_data(DataConfig(selection_share=0.49, report_share=0.1, seed=seed))
        self.images, self.labels = data.selection.images.flatten(1), data.selection.labels
        images, labels = data.train.images.flatten(1), data.train.labels
        generator = torch.Generator().manual_seed(seed)
        rng = np.random.default_rng(seed)
        shapes = {"stem": (WIDTHS[-1], 64), "classifier": (10, WIDTHS[-1])}
        for i in range(BLOCKS):
            shapes |= {f"block{i}.up": (HIDDEN[-1], WIDTHS[-1])}
            shapes |= {f"block{i}.down": (WIDTHS[-1], HIDDEN[-1])}
        self.weights = {
            name: (torch.randn(shape, generator=generator) * shape[1] ** -0.5).requires_grad_()
            for name, shape in shapes.items()
        }
        optimizer = torch.optim.Adam(self.weights.values(), lr=5e-3)
        largest = {"width": WIDTHS[-1], "depth": BLOCKS}
        largest |= {f"block{i}.hidden": HIDDEN[-1] for i in range(BLOCKS)}
        for _ in range(steps):
            which = torch.randint(len(images), (128,), generator=generator)
            drawn = {"width": rng.choice(WIDTHS), "depth": rng.integers(1, BLOCKS + 1)}
            drawn |= {f"block{i}.hidden": rng.choice(HIDDEN) for i in range(BLOCKS)}
            optimizer.zero_grad()
            with torch.enable_grad():
                for values in (largest, drawn):
                    F.cross_entropy(self(values, images[which], False), labels[which]).backward()
            optimizer.step()

    def __call__(self, values, x, quantised):
        """Logits [n, 10] of images [n, 64]."""

        def layer(name, site, x, outputs):
            weight = self.weights[name][:outputs, : x.shape[1]]
            if quantised:
                per_channel = values["weight.granularity"] == "per_channel"
                bits, symmetry = values[f"{site}.w_bits"], values["weight.symmetry"]
                weight = rounded(weight, bits, symmetry, per_channel)
                bits, symmetry = values[f"{site}.a_bits"], values["activation.symmetry"]
                x = rounded(x, bits, symmetry, False)
            return x @ weight.T

        width = int(values["width"])
        x = (x @ self.weights["stem"][:width].T).relu()
        for i in range(int(values["depth"])):
            site = f"block{i}"
            hidden = layer(f"{site}.up", site, x, int(values[f"{site}.hidden"])).relu()
            x = x + layer(f"{site}.down", site, hidden, width)
        return layer("classifier", "classifier", x, 10)

    @torch.no_grad()
    def accuracies(self, space, population, quantised=True):
        """Of every config, fractions (n,); its architecture's in float32 where not quantised."""
        found = []
        for row in population:
            logits = self(space.from_indices(row), self.images, quantised)
            found.append((logits.argmax(1) == self.labels).double().mean().item())
        return np.array(found)


def rounded(values, bits, symmetry, by_rows):
    """Values [n, i] on a grid of 2**bits values for each row, or one for all."""
    dims = (1,) if by_rows else (0, 1)
    low, high = values.amin(dims, keepdim=True), values.amax(dims, keepdim=True)
    if symmetry == "symmetric":
        step = torch.maximum(-low, high).clamp(min=1e-9) / (2 ** (bits - 1) - 1)
        return (values / step).round() * step
    low, high = low.clamp(max=0), high.clamp(min=0)
    step = (high - low).clamp(min=1e-9) / (2**bits - 1)
    zero = (-low / step).round()
    return ((values / step).round().clamp(-zero, 2**bits - 1 - zero)) * step

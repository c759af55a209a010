"""A family of perceptrons, the supernet of which takes a step in a few milliseconds."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from spaces import SearchSpace
from spaces.dimension import Dimension, DimensionKind
from spaces.families import ImageFamily, ImageSettings, Slot
from spaces.families.quantisation import form_dimensions, layer_dimensions
from spaces.layer_spec import Activation, LayerSpec, Operator
from spaces.quant_scheme import site_precision
from supernet.data import DataConfig, DataSplits, ImageSet, load_data
from supernet.elastic.layer import ElasticLinearLayer
from supernet.evaluate import evaluate_module
from supernet.families import SUPERNETS
from supernet.supernet import Supernet, layer_options

SITES = ("first", "second", "third", "classifier")


class PerceptronSettings(ImageSettings):
    width: int


class Perceptron(ImageFamily):
    """Four layers of one width; the bits of each but the first."""

    name = "test_perceptron"
    settings_type = PerceptronSettings
    settings: PerceptronSettings

    def dimensions(self):
        bits = [d for site in SITES[1:] for d in layer_dimensions(self.settings, site)]
        resolution = Dimension("resolution", DimensionKind.RESOLUTION, self.settings.resolution)
        return (resolution, *bits, *form_dimensions(self.settings))

    def slots(self):
        s = self.settings
        (pixels,) = {s.input_channels * side**2 for side in s.resolution}
        widths = {
            "first": (pixels, s.width),
            "second": (s.width, s.width),
            "third": (s.width, s.width),
            "classifier": (s.width, s.classes),
        }

        def slot(site):
            def layers(values):
                precision = site_precision(values, site, nonnegative=True)
                activation = Activation.NONE if site == SITES[-1] else Activation.RELU
                about = {"activation": activation, "precision": precision}
                return (LayerSpec(site, Operator.LINEAR, *widths[site], **about),)

            reads = () if site == SITES[0] else self._precision_reads(site)
            return Slot(site, ("resolution", *reads), layers)

        return tuple(map(slot, SITES))


class PerceptronSupernet(Supernet):
    def __init__(self, space):
        super().__init__(space)
        options = layer_options(space)
        self.stack = nn.ModuleDict({site: ElasticLinearLayer(options[site]) for site in SITES})
        self.activate(self.active)

    def layers(self):
        return dict(self.stack.items())

    def channel_groups(self):
        return []

    def activate_specs(self, specs):
        for site, layer in self.stack.items():
            layer.activate(specs[site])

    def forward(self, x):
        x = x.flatten(1)
        for layer in self.stack.values():
            x = layer(x)
        return x


@pytest.fixture(scope="module", autouse=True)
def perceptron_supernets():
    """Import it where perceptrons are trained: other tests list what netcarve has."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SUPERNETS._own, Perceptron.name, PerceptronSupernet)
        yield


def perceptron_space(width, **bits):
    """Perceptrons for digits, in the precisions of `schemes` or of `w_bits` and the rest."""
    settings = {"input_channels": 1, "classes": 10, "resolution": (8,), "width": width} | bits
    return SearchSpace("perceptron", Perceptron(PerceptronSettings.model_validate(settings)))


def few_digits(seed, count=640):
    """Splits whose training images are few, and all other images."""
    data = load_data(DataConfig(seed=seed))
    train = data.train
    few = DataSplits(
        ImageSet(train.images[:count], train.labels[:count]),
        data.selection, data.report, data.classes,
    )  # fmt: skip
    rest = [(train.images[count:], train.labels[count:])]
    rest += [(split.images, split.labels) for split in (data.selection, data.report)]
    images, labels = zip(*rest, strict=True)
    return few, ImageSet(torch.cat(images), torch.cat(labels))


def accuracy(supernet, config, split):
    """Of a config as it is trained: fake-quantised, which its integers equal."""
    supernet.activate(config)
    return evaluate_module(supernet, split.images, split.labels).accuracy

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from supernet.errors import SupernetConfigError
from supernet.post_training import quantize_post_training


class SmallCnn(nn.Module):
    """BatchNorm, an activation in place, pooling, a depthwise layer, squeeze-and-excite, a
    residual."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8))
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.dense = nn.Sequential(
            nn.Conv2d(8, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(inplace=True)
        )
        self.depthwise = nn.Sequential(nn.Conv2d(16, 16, 5, padding=2, groups=16), nn.Hardswish())
        self.reduce, self.expand = nn.Conv2d(16, 8, 1), nn.Conv2d(8, 16, 1)
        self.project = nn.Conv2d(16, 8, 1)
        self.classifier = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(F.relu(self.stem(x)))
        y = self.depthwise(self.dense(x))
        factor = F.hardsigmoid(self.expand(F.relu(self.reduce(F.adaptive_avg_pool2d(y, 1)))))
        return self.classifier((x + self.project(y * factor)).mean((2, 3)))


class SmallTransformer(nn.Module):
    """Linear layers on [N, T, C] that share an input; the classifier shares a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 16)
        self.norm = nn.LayerNorm(16)
        self.q, self.k, self.v = (nn.Linear(16, 16, bias=False) for _ in range(3))
        self.mlp = nn.Sequential(nn.Linear(16, 64), nn.GELU(), nn.Linear(64, 16))
        self.head = nn.Linear(16, 20)
        self.head.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens)
        y = self.norm(x)
        q, k, v = (layer(y)[:, None] for layer in (self.q, self.k, self.v))
        x = x + F.scaled_dot_product_attention(q, k, v)[:, 0]
        return self.head(x + self.mlp(x))


def _images(seed: int) -> Tensor:
    return torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def cnn() -> nn.Module:
    torch.manual_seed(0)
    module = SmallCnn()
    with torch.no_grad():
        for norm in module.modules():
            if isinstance(norm, nn.BatchNorm2d):
                norm.weight.copy_(torch.linspace(-1.5, 1.5, norm.num_features))
                norm.bias.normal_()
        for seed in range(8):
            module(_images(seed))
    return module.eval()


@pytest.fixture(scope="module")
def quantized(cnn: nn.Module) -> fx.GraphModule:
    return quantize_post_training(cnn, [_images(seed) for seed in range(8)])


def _sqnr(expected: Tensor, found: Tensor) -> float:
    return float(10 * torch.log10(expected.pow(2).sum() / (expected - found).pow(2).sum()))


def _operators(module: nn.Module, sample: Tensor) -> Counter[str]:
    program = torch.export.export(module, (sample,))
    calls = [node for node in program.graph.nodes if node.op == "call_function"]
    return Counter(str(node.target).removesuffix(".default") for node in calls)


def test_the_outputs_are_close_to_the_float_modules(
    cnn: nn.Module, quantized: fx.GraphModule
) -> None:
    x = _images(100)
    with torch.no_grad():
        assert _sqnr(cnn(x), quantized(x)) > 30


def test_layers_are_integer_except_squeeze_and_excite(
    quantized: fx.GraphModule,
) -> None:
    operators = _operators(quantized, _images(0))
    assert operators["netcarve.qconv2d"] == 4
    assert operators["netcarve.qlinear"] == 1
    assert operators["aten.conv2d"] == 2
    assert operators["aten.batch_norm"] == operators["aten.relu_"] == 0
    layers = dict(quantized.named_buffers())
    assert layers["dense.0.weight"].dtype is torch.int8
    assert layers["depthwise.0.weight"].shape == (16, 1, 5, 5)
    assert layers["stem.0.weight"].dtype is torch.int8


def test_all_readers_of_a_tensor_share_its_quantisation(quantized: fx.GraphModule) -> None:
    assert _operators(quantized, _images(0))["netcarve.quantize"] == 8
    constants = dict(quantized.named_buffers())
    scales = [value for name, value in constants.items() if name.endswith("quantizer.scale")]
    assert len(scales) == 8
    # The map before the maximum and the one after it; nothing else agrees.
    assert len({float(scale) for scale in scales}) == 7
    graph = quantized.graph
    (add,) = graph.find_nodes(op="call_function", target=torch.ops.aten.add.Tensor)
    read = {node.target for node in add.all_input_nodes}
    assert read == {torch.ops.netcarve.dequantize.default, torch.ops.netcarve.qconv2d.default}


def test_integer_layers_compute_exact_integers(quantized: fx.GraphModule) -> None:
    graph, constants = quantized.graph, dict(quantized.named_buffers())
    seen: dict[str, Tensor] = {}

    class Spy(fx.Interpreter):
        def run_node(self, n: fx.Node) -> object:
            seen[n.name] = super().run_node(n)
            return seen[n.name]

    Spy(quantized).run(_images(5))
    (linear,) = graph.find_nodes(op="call_function", target=torch.ops.netcarve.qlinear.default)
    x, zero = (seen[node.name].numpy().astype(np.int64) for node in linear.args[:2])
    weight, bias, scale = (constants[f"classifier.{role}"] for role in ("weight", "bias", "scale"))
    total = (x - zero) @ weight.numpy().astype(np.int64).T + bias.numpy()
    expected = total.astype(np.float32) * scale.numpy()
    assert np.array_equal(seen[linear.name].numpy(), expected)


def test_the_module_that_was_given_is_left_alone(cnn: nn.Module) -> None:
    before = {name: value.clone() for name, value in cnn.state_dict().items()}
    quantize_post_training(cnn, [_images(0)])
    after = cnn.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_linear_layers_on_tokens_and_a_weight_that_is_also_an_embedding() -> None:
    torch.manual_seed(1)
    module = SmallTransformer().eval()
    tokens = [torch.randint(0, 20, (1, 12)) for _ in range(9)]
    quantized = quantize_post_training(module, tokens[:8])
    operators = _operators(quantized, tokens[0])
    assert operators["netcarve.qlinear"] == 6
    assert operators["netcarve.quantize"] == 4
    with torch.no_grad():
        assert _sqnr(module(tokens[8]), quantized(tokens[8])) > 30
    table = [p for p in quantized.parameters() if p.shape == module.embedding.weight.shape]
    assert len(table) == 1
    assert torch.equal(table[0], module.embedding.weight)


def test_named_layers_stay_float(cnn: nn.Module) -> None:
    kept = quantize_post_training(cnn, [_images(0)], keep_float=["classifier", "depthwise.0"])
    operators = _operators(kept, _images(0))
    assert (operators["netcarve.qlinear"], operators["netcarve.qconv2d"]) == (0, 3)
    with pytest.raises(
        SupernetConfigError, match=r"'depthwise' is no layer; known: .*depthwise\.0"
    ):
        quantize_post_training(cnn, [_images(0)], keep_float=["depthwise"])


def test_what_cannot_be_quantised_is_refused(cnn: nn.Module) -> None:
    with pytest.raises(SupernetConfigError, match="at least one sample"):
        quantize_post_training(cnn, [])
    with pytest.raises(SupernetConfigError, match="no layer"):
        quantize_post_training(nn.ReLU(), [_images(0)])

    class ChangesView(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            y = x + 1
            y[:, 0].mul_(2)
            return y

    with pytest.raises(SupernetConfigError, match="in place"):
        quantize_post_training(ChangesView(), [_images(0)])

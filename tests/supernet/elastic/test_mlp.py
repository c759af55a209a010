from __future__ import annotations

import torch
import torch.nn.functional as F

from spaces.families.transformer import mlp_layers
from supernet.elastic import ElasticMlp, LayerOptions

LARGEST = {spec.site: spec for spec in mlp_layers("m", 32, 128, 5, {})}


def mlp() -> ElasticMlp:
    torch.manual_seed(0)
    return ElasticMlp("m", {site: LayerOptions(spec, (1,)) for site, spec in LARGEST.items()})


def test_the_block_is_two_layers_over_prefixes_and_its_shortcut():
    found = mlp().eval()
    torch.nn.init.ones_(found.project.norm.weight)
    found.activate({spec.site: spec for spec in mlp_layers("m", 16, 48, 3, {})})
    x = torch.randn(2, 16, 3, 3)
    hidden = F.hardswish(F.conv2d(x, found.expand.conv.weight[:48, :16]))
    expected = x + F.conv2d(hidden, found.project.conv.weight[:16, :48])
    torch.testing.assert_close(found(x), expected, rtol=1e-4, atol=1e-4)


def test_a_fresh_block_is_its_shortcut_and_an_absent_one_is_not_there():
    found = mlp().train()
    x = torch.randn(4, 32, 5, 5)
    assert torch.equal(found(x), x)
    found.activate({})
    assert found(x) is x

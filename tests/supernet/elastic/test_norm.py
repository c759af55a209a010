from __future__ import annotations

import torch

from supernet.elastic import ElasticBatchNorm2d


def test_recalibration_is_the_plain_mean_over_batches_of_the_active_channels():
    norm = ElasticBatchNorm2d(6)
    norm.activate(4)
    batches = [torch.randn(16, 4, 3, 3) * (i + 1) + i for i in range(3)]
    norm.running_mean.fill_(99)
    norm.start_recalibration()
    norm.train()
    for batch in batches:
        norm(batch)
    norm.stop_recalibration()
    mean = torch.stack([b.mean((0, 2, 3)) for b in batches]).mean(0)
    var = torch.stack([b.var((0, 2, 3)) for b in batches]).mean(0)
    torch.testing.assert_close(norm.running_mean[:4], mean)
    torch.testing.assert_close(norm.running_var[:4], var)
    assert norm.running_mean[4:].tolist() == [99, 99]


def test_training_leaves_no_trace_in_the_statistics():
    norm = ElasticBatchNorm2d(4)
    norm.train()
    norm(torch.randn(8, 4, 3, 3) + 5)
    assert not norm.running_mean.any()


def test_affine_is_the_evaluation_mode_normalisation():
    norm = ElasticBatchNorm2d(4)
    with torch.no_grad():
        norm.weight.normal_()
        norm.bias.normal_()
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
    norm.eval()
    x = torch.randn(2, 4, 3, 3)
    multiplier, offset = norm.affine()
    expected = x * multiplier[:, None, None] + offset[:, None, None]
    torch.testing.assert_close(norm(x), expected)
    order = torch.tensor([2, 0, 3, 1])
    norm.permute(order)
    torch.testing.assert_close(norm(x[:, order]), expected[:, order])

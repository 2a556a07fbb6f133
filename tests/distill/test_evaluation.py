from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from edgekd.distill.evaluation import evaluate
from edgekd.tasks._contract import Data
from edgekd.tasks.classification import Classification


def _net() -> nn.Sequential:
    return nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Dropout(0.5), nn.Linear(36, 4))


def test_it_scores_the_whole_split_whatever_the_batch(data: Data) -> None:
    net = _net().train()
    net[0].running_mean.fill_(0.3)  # type: ignore[union-attr, operator]
    inputs = torch.from_numpy(data.test.batch(np.arange(40)))
    labels = torch.from_numpy(data.test.labels)
    found = evaluate(net, data.test, Classification(), batch_size=7)
    logits = net.eval()(inputs).detach()
    np.testing.assert_allclose(found.logits, logits.numpy(), rtol=1e-5, atol=1e-6)
    assert found.loss == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-5)
    assert found.score == (logits.argmax(1) == labels).double().mean().item()
    assert found.logits.dtype == np.float32


def test_modes_and_statistics_are_left_alone(data: Data) -> None:
    net = _net().train()
    net[0].eval()
    before = {name: t.clone() for name, t in net.state_dict().items()}
    evaluate(net, data.test, Classification())
    assert [layer.training for layer in net] == [False, True, True, True]
    assert all(torch.equal(t, before[name]) for name, t in net.state_dict().items())

"""Whichever accuracy predictor a job names, the search predicts every metric with it."""

from __future__ import annotations

import numpy as np
import pytest

from predictors import ACCURACY_PREDICTORS
from search.models import Purpose
from search.stored_job import device_results
from search.study import DeviceStudy
from search.surrogate import fit_surrogate
from tests.search.stand_in import make_stand


@pytest.mark.parametrize("name", ACCURACY_PREDICTORS.names())
def test_the_predictor_that_the_job_names_predicts_accuracy_and_loss(tmp_path, tiny_job, name):
    search = {**tiny_job["search"], "accuracy_predictor": name}
    stand = make_stand(tmp_path, tiny_job, "a", search=search)
    configs = stand.configs(10)
    stand.executor.losses = {c.key: 0.1 * (i + 1) for i, c in enumerate(configs)}
    stand.verifier.evaluate(configs, "test")
    extra = {config.key: {"generation": 0} for config in configs}
    stand.verifier.measure("a", configs, Purpose.REFERENCE, "test", extra)
    found = device_results(stand.store, stand.job, "a").verified
    latency = DeviceStudy(stand.session, "a", stand.space).latency
    settings = stand.session.settings.search
    assert fit_surrogate(settings, stand.space, found, found[:7], latency) is None
    surrogate = fit_surrogate(settings, stand.space, found, found, latency)
    assert {surrogate.accuracy.name, surrogate.likelihood.name} == {name}
    predicted = surrogate.predict(np.stack([config.indices for config in configs]))
    for metric in ("accuracy", "loss"):
        mean, std = predicted[metric]
        assert (np.isfinite(mean) & np.isfinite(std) & (std > 0)).all()
    stand.store.close()

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from predictors import CqapAccuracyPredictor, PredictorFileError, TransferAccuracyPredictor
from predictors.accuracy import NetworkSettings
from spaces.population import sample
from tests.predictors.accuracy.perceptron import perceptron_space

QUICK = NetworkSettings(hidden=(12, 8), steps=30, epochs=1, members=3)


@pytest.fixture(scope="module")
def samples(quantised_space):
    rng = np.random.default_rng(0)
    return sample(quantised_space, 30, rng), rng.uniform(0.2, 0.9, 30)


def fitted(kind, space, samples, settings=QUICK):
    return kind(space, settings).fit(*samples)


@pytest.mark.parametrize("kind", [CqapAccuracyPredictor, TransferAccuracyPredictor])
def test_a_stored_predictor_predicts_alike(kind, quantised_space, samples, tmp_path):
    predictor = fitted(kind, quantised_space, samples)
    predictor.save(tmp_path / "predictor")
    again = kind.load(tmp_path / "predictor", quantised_space)
    assert again.settings == QUICK
    for first, second in zip(predictor.predict(samples[0]), again.predict(samples[0]), strict=True):
        assert np.array_equal(first, second)


def test_other_files_and_other_spaces_are_refused(quantised_space, samples, tmp_path):
    file = tmp_path / "predictor"
    fitted(CqapAccuracyPredictor, quantised_space, samples).save(file)
    with pytest.raises(PredictorFileError, match="expected 'transfer'"):
        TransferAccuracyPredictor.load(file, quantised_space)
    with pytest.raises(PredictorFileError, match="of the space with key"):
        CqapAccuracyPredictor.load(file, perceptron_space((4, 8)))
    with pytest.raises(PredictorFileError, match="missing"):
        CqapAccuracyPredictor.load(tmp_path / "missing", quantised_space)
    with safe_open(file, framework="numpy") as opened:
        described = json.loads(opened.metadata()["netcarve"])
        arrays = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    # As another release may have read a config.
    narrow = arrays | {"fitted.layer0.weight": arrays["fitted.layer0.weight"][:, 1:].copy()}
    save_file(narrow, file, metadata={"netcarve": json.dumps(described)})
    with pytest.raises(PredictorFileError, match="inputs, a config"):
        CqapAccuracyPredictor.load(file, quantised_space)
    for damage in ({"settings": {"hidden": [8]}, "ensembles": {"fitted": {}}}, {"settings": 1}):
        text = json.dumps(described | damage)
        save_file(arrays, file, metadata={"netcarve": text})
        with pytest.raises(PredictorFileError, match="damaged"):
            CqapAccuracyPredictor.load(file, quantised_space)


@pytest.mark.parametrize("kind", [CqapAccuracyPredictor, TransferAccuracyPredictor])
def test_a_fit_is_a_function_of_samples_and_seed(kind, quantised_space, samples):
    population, accuracy = samples
    predictor = kind(quantised_space, QUICK)
    first = predictor.fit(population, accuracy).predict(population)[0]
    predictor.fit(population[:10], accuracy[:10])
    again = predictor.fit(population, accuracy).predict(population)[0]
    assert np.array_equal(first, again)
    other = NetworkSettings(**{**vars(QUICK), "seed": 1})
    assert not np.array_equal(
        fitted(kind, quantised_space, samples, other).predict(population)[0], first
    )

"""Temperature scaling and the calibration error."""

import numpy as np
import pytest

from search.calibration import calibration_error, confidences, fit_temperature


def sample(images: int, sharpness: float) -> tuple[np.ndarray, np.ndarray]:
    """Logits that are ``sharpness`` times what the labels were drawn from."""
    chance = np.random.default_rng(0)
    logits = chance.normal(size=(images, 4)) * 2
    odds = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = (odds.cumsum(1) < chance.random((images, 1))).sum(1)
    return (logits * sharpness).astype(np.float32), labels


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 3.0])
def test_the_temperature_undoes_what_was_done_to_the_logits(sharpness) -> None:
    logits, labels = sample(20_000, sharpness)
    temperature = fit_temperature(logits, labels)
    assert temperature == pytest.approx(sharpness, rel=0.05)
    before, after = (calibration_error(*confidences(logits, labels, t)) for t in (1, temperature))
    assert after < 0.015
    assert sharpness == 1 or before > 0.05


def test_a_model_without_a_mistake_keeps_its_temperature() -> None:
    logits = np.eye(3, dtype=np.float32)
    assert fit_temperature(logits, np.arange(3)) == 1


def test_the_calibration_error_is_the_mean_gap_over_images() -> None:
    confidence = np.array([0.95, 0.95, 0.95, 0.55, 1.0], np.float32)
    correct = np.array([True, True, False, False, True])
    # the last bin holds 0.95 three times and 1.0: 3.85 / 4 sure, 3 / 4 right; the other 0.55 sure, 0 right
    assert calibration_error(confidence, correct) == pytest.approx((0.85 + 0.55) / 5, abs=1e-6)

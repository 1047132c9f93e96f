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


@pytest.mark.parametrize(
    ("images", "error"),
    [
        ([(0.9, True), (0.8, False), (0.65, True), (0.65, False)], (0.1 + 0.8 + 2 * 0.15) / 4),
        ([(1.0, True), (0.0, False)], 0),
        ([(0.95, True), (0.95, True), (0.95, False), (1.0, True)], 3.85 / 4 - 3 / 4),  # one bin
    ],
)
def test_the_calibration_error_is_the_gap_of_each_bin_weighted_by_its_images(images, error) -> None:
    confidence, correct = (np.array(column) for column in zip(*images, strict=True))
    assert calibration_error(confidence, correct) == pytest.approx(error)

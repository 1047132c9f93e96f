"""Batches, one epoch, and the scores of a split, against values worked out by hand."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from trainable.epoch import NonFiniteLossError, confusion_matrix, predict, rebatch, score, train_epoch

pytestmark = pytest.mark.usefixtures("one_thread")


# --- rebatch ---


@settings(deadline=None, max_examples=200)
@given(sizes=st.lists(st.integers(1, 9), max_size=8), batch_size=st.integers(1, 20))
def test_rebatching_keeps_all_in_order_in_batches_of_the_size(sizes: list[int], batch_size: int) -> None:
    total = sum(sizes)
    rows = torch.arange(2 * total).view(total, 2)
    batches = list(rebatch(rows.split(sizes), batch_size))
    assert [len(batch) for batch in batches[:-1]] == [batch_size] * (len(batches) - 1)
    assert len(batches) == math.ceil(total / batch_size)
    if batches:
        assert 1 <= len(batches[-1]) <= batch_size
        assert torch.equal(torch.cat(batches), rows)


def test_rebatching_takes_no_block_before_it_is_needed() -> None:
    taken = []

    def blocks():
        for number in range(4):
            taken.append(number)
            yield torch.full((4, 1), number)

    batches = rebatch(blocks(), 2)
    next(batches)
    assert taken == [0]
    next(batches)
    next(batches)
    assert taken == [0, 1]


def test_rebatching_leaves_the_blocks_alone() -> None:
    blocks = [torch.zeros(3, 2), torch.zeros(3, 2)]
    list(rebatch(blocks, 2))
    assert all(not block.any() for block in blocks)


# --- score ---


def logits_for(predictions: list[int], classes: int) -> torch.Tensor:
    return 3 * functional.one_hot(torch.tensor(predictions), classes).float()


def test_scores_are_those_worked_out_by_hand() -> None:
    labels = torch.tensor([0, 0, 0, 0, 1, 1])
    scores = score(logits_for([0, 0, 0, 1, 1, 0], 2), labels)
    # Class 0: 3 of 4 found, 3 of 4 right, F1 3/4. Class 1: 1 of 2 found, 1 of 2 right, F1 1/2.
    assert scores == {
        "loss": pytest.approx((4 * math.log(1 + math.exp(-3)) + 2 * math.log(1 + math.exp(3))) / 6),
        "accuracy": pytest.approx(4 / 6),
        "balanced_accuracy": pytest.approx((3 / 4 + 1 / 2) / 2),
        "macro_f1": pytest.approx((3 / 4 + 1 / 2) / 2),
    }


def test_f1_is_not_recall() -> None:
    scores = score(logits_for([0, 1, 1, 1], 2), torch.tensor([0, 0, 0, 1]))
    # Class 0: found 1 of 3, precision 1, F1 1/2. Class 1: found 1 of 1, precision 1/3, F1 1/2.
    assert scores["balanced_accuracy"] == pytest.approx((1 / 3 + 1) / 2)
    assert scores["macro_f1"] == pytest.approx(1 / 2)


def test_a_class_that_no_label_names_does_not_count_but_choosing_it_is_wrong() -> None:
    scores = score(logits_for([0, 0, 2, 1], 3), torch.tensor([0, 0, 0, 1]))
    assert scores["accuracy"] == pytest.approx(3 / 4)
    assert scores["balanced_accuracy"] == pytest.approx((2 / 3 + 1) / 2)
    assert scores["macro_f1"] == pytest.approx((4 / 5 + 1) / 2)


def test_a_class_that_is_never_chosen_counts_as_zero() -> None:
    scores = score(logits_for([0, 0, 0, 0], 2), torch.tensor([0, 0, 0, 1]))
    assert scores["balanced_accuracy"] == pytest.approx(1 / 2)
    assert scores["macro_f1"] == pytest.approx((6 / 7) / 2)


@settings(deadline=None, max_examples=100)
@given(
    data=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=30),
)
def test_the_confusion_matrix_counts_every_image_once(data: list[tuple[int, int]]) -> None:
    labels, predictions = (np.array(column) for column in zip(*data, strict=True))
    matrix = confusion_matrix(labels, predictions, 4)
    assert matrix.shape == (4, 4)
    for label in range(4):
        for prediction in range(4):
            assert matrix[label, prediction] == data.count((label, prediction))


def test_the_confusion_matrix_has_a_row_a_true_class() -> None:
    matrix = confusion_matrix(np.array([0, 0, 1, 2, 2, 2]), np.array([0, 1, 1, 0, 2, 2]), 3)
    assert matrix.tolist() == [[1, 1, 0], [0, 1, 0], [1, 0, 2]]


# --- train and predict ---


def linear(classes: int = 2, features: int = 3) -> nn.Linear:
    layer = nn.Linear(features, classes)
    with torch.no_grad():
        layer.weight.copy_(torch.linspace(-1, 1, classes * features).view(classes, features))
        layer.bias.zero_()
    return layer


def rows(count: int = 10) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    return torch.randn(count, 3, generator=random), torch.randint(2, (count,), generator=random)


def test_an_epoch_is_one_step_a_batch_and_reports_the_mean_over_images() -> None:
    x, y = rows(10)
    layer, reference = linear(), linear()
    loss, accuracy = train_epoch([layer], x.split(4), y, torch.optim.SGD(layer.parameters(), lr=0.5), 0.1)
    optimizer = torch.optim.SGD(reference.parameters(), lr=0.5)
    losses, hits = [], 0
    for begin in (0, 4, 8):
        some, labels = x[begin : begin + 4], y[begin : begin + 4]
        logits = reference(some)
        step = functional.cross_entropy(logits, labels, label_smoothing=0.1)
        optimizer.zero_grad()
        step.backward()
        optimizer.step()
        losses += [step.item()] * len(some)
        hits += int((logits.argmax(1) == labels).sum())
    assert loss == pytest.approx(np.mean(losses))
    assert accuracy == hits / 10
    assert torch.equal(layer.weight, reference.weight)


def test_a_gradient_left_over_does_not_count() -> None:
    x, y = rows()
    first, second = linear(), linear()
    second(x).sum().backward()
    for layer in (first, second):
        train_epoch([layer], x.split(5), y, torch.optim.SGD(layer.parameters(), lr=0.5), 0.0)
    assert torch.equal(first.weight, second.weight)


@pytest.mark.parametrize(("value", "shown"), [(math.nan, "nan"), (math.inf, "(nan|inf)")])
def test_a_loss_that_is_no_number_ends_training_with_the_reason(value: float, shown: str) -> None:
    x, y = rows()
    layer = linear()
    x[7, 0] = value
    with pytest.raises(NonFiniteLossError, match=rf"^the training loss became {shown}: the learning rate is too high$"):
        train_epoch([layer], x.split(5), y, torch.optim.SGD(layer.parameters(), lr=0.5), 0.0)


def test_a_learning_rate_that_is_far_too_high_ends_in_that_error() -> None:
    x, y = rows()
    layer = linear()
    with pytest.raises(NonFiniteLossError):
        for _ in range(50):
            train_epoch([layer], (1e20 * x).split(5), y, torch.optim.SGD(layer.parameters(), lr=1e30), 0.0)


def test_predictions_are_all_batches_in_order_without_a_gradient() -> None:
    x, _ = rows(7)
    layer = linear()
    logits = predict([layer, nn.Identity()], x.split(3))
    assert logits.shape == (7, 2)
    assert logits.dtype == torch.float32
    assert not logits.requires_grad
    assert torch.allclose(logits, layer(x))


def test_predictions_are_float32_whatever_the_network_gives() -> None:
    x, _ = rows(4)
    assert predict([lambda x: x.double()], [x]).dtype == torch.float32

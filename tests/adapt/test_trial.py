"""One trial: what a step does, and that it is a function of its position."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from losa.adapt.metrics import SplitMetrics
from losa.adapt.optim import cosine_lr
from losa.adapt.trial import MANY_SKIPPED, Position, Trial, moved, step_seed
from losa.config import AdaptConfig
from losa.device import Compute
from losa.errors import InputError

CPU = Compute(torch.device("cpu"))
HALF = Compute(torch.device("cpu"), torch.float16)
STEPS = 4


class Probe(nn.Module):
    """A linear probe with dropout, which makes every step random."""

    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(6, 3)

    def forward(self, planes: Tensor) -> Tensor:
        found: Tensor = self.head(self.drop(planes[-1].mean(1)))
        return found


def trial_of(compute: Compute = CPU, **changes: Any) -> Trial:
    torch.manual_seed(0)
    config = AdaptConfig(epochs=5, **{"warmup_epochs": 1.0, **changes})
    return Trial(Probe(), config, STEPS, compute)


def batch(seed: int, size: int = 8) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    planes = torch.randn(2, size, 5, 6, generator=random)
    return planes, torch.randint(0, 3, (size,), generator=random)


def weights(trial: Trial) -> Tensor:
    return torch.cat([p.detach().flatten().clone() for p in trial.module.parameters()])


def test_every_position_has_its_own_seed() -> None:
    seeds = {
        step_seed(seed, Position(epoch, step))
        for seed in range(4)
        for epoch in range(11)
        for step in range(11)
    }
    assert len(seeds) == 4 * 11 * 11
    assert all(0 <= seed < 2**63 for seed in seeds)


@pytest.mark.parametrize("mixup", [0.0, 0.4])
def test_a_step_is_a_function_of_weights_batch_and_position(mixup: float) -> None:
    trials = [trial_of(mixup=mixup) for _ in range(3)]
    for number, trial in enumerate(trials):
        torch.manual_seed(number)
        trial.step(*batch(1), Position(0, 2 if number == 2 else 1))
    assert torch.equal(weights(trials[0]), weights(trials[1]))
    assert not torch.equal(weights(trials[0]), weights(trials[2]))


def test_a_batch_is_left_as_it_was() -> None:
    planes, labels = batch(1)
    before = planes.clone()
    trial_of(mixup=1.0).step(planes, labels, Position())
    assert torch.equal(planes, before)


def test_the_rate_follows_the_schedule_over_all_epochs() -> None:
    trial = trial_of(lr=0.5)
    want = [cosine_lr(step, lr=0.5, warmup_steps=4, steps=20) for step in range(20)]
    assert [trial.lr(Position(e, s)) for e in range(5) for s in range(STEPS)] == want


def test_the_train_loss_is_the_mean_over_samples_of_the_steps_losses() -> None:
    trial = trial_of(label_smoothing=0.0)
    sums, sizes = 0.0, [8, 8, 8, 3]
    for step, size in enumerate(sizes):
        planes, labels = batch(step, size)
        position = Position(0, step)
        torch.manual_seed(step_seed(0, position))
        logits = trial.module.train()(planes).detach()
        sums += float(nn.functional.cross_entropy(logits, labels, reduction="sum"))
        trial.step(planes, labels, position)
    assert trial.train_loss(torch.tensor(sizes)) == pytest.approx(sums / sum(sizes), rel=1e-6)


def test_mixing_mixes_features_and_labels_by_the_same_share() -> None:
    planes, labels = batch(1, 4)
    trial = trial_of(mixup=1.0, label_smoothing=0.0)
    trial.module.drop.p = 0.0  # type: ignore[union-attr]  # a Dropout
    found = _first_loss(trial, planes, labels)
    shares = torch.linspace(0, 1, 2001)
    one_hot = nn.functional.one_hot(labels, 3).float()
    module = trial_of().module.eval().requires_grad_(requires_grad=False)
    for partner in map(list, permutations(range(4))):
        mixed = shares[:, None, None] * one_hot + (1 - shares[:, None, None]) * one_hot[partner]
        logits = torch.stack(
            [module(share * planes + (1 - share) * planes[:, partner]) for share in shares]
        )
        losses = -(mixed * logits.log_softmax(2)).sum(2).mean(1)
        if (losses - found).abs().min() < 1e-3:
            return
    pytest.fail("no share and partner explain the loss")


def _first_loss(trial: Trial, planes: Tensor, labels: Tensor) -> float:
    trial.step(planes, labels, Position())
    return float(trial.snapshot(Position(0, 1)).tensors["running/losses"][0])


def test_gradients_are_clipped_to_the_norm() -> None:
    trial = trial_of(clip=1e-3)
    trial.step(*batch(1), Position())
    norms = [p.grad.norm() for p in trial.module.parameters() if p.grad is not None]
    assert torch.stack(norms).norm() <= 1.001e-3


def test_a_loss_that_is_not_finite_is_found_at_its_step() -> None:
    trial = trial_of()
    trial.step(*batch(1), Position(1, 0))
    trial.check(Position(1, 1))
    planes, labels = batch(2)
    trial.step(planes * torch.inf, labels, Position(1, 1))
    with pytest.raises(InputError, match="epoch 2, step 2: loss or weights are not finite") as lost:
        trial.check(Position(1, 2))
    for word in ("--lr", "`clip` of --config", "--overwrite", "--out", "nothing was saved yet"):
        assert word in str(lost.value)
    with pytest.raises(InputError, match="the last finite state is kept"):
        trial.check(Position(1, 2), is_saved=True)


def test_a_step_that_loss_scaling_skips_is_survived() -> None:
    whole, halved = trial_of(HALF), trial_of(HALF)
    planes, labels = batch(2)
    for trial in (whole, halved):
        trial.step(*batch(1), Position(0, 0))
        before = weights(trial)
        trial.step(planes * torch.inf, labels, Position(0, 1))
        trial.check(Position(0, 2))
        assert torch.equal(weights(trial), before)
    for trial in (whole, resumed(halved, Position(0, 2))):
        for step in (2, 3):
            trial.step(*batch(step), Position(0, step))
        assert 0 < trial.train_loss(torch.tensor([8] * 4)) < 10
    assert torch.equal(weights(whole), weights(trial))
    assert not torch.equal(weights(whole), before)


def test_many_steps_skipped_in_a_row_are_a_divergence() -> None:
    trial = trial_of(HALF)
    planes, labels = batch(2)
    for number in range(MANY_SKIPPED):
        epoch, step = divmod(number, STEPS)
        if number % 2:
            trial = resumed(trial, Position(epoch, step))
        trial.step(planes * torch.inf, labels, Position(epoch, step))
        if number < MANY_SKIPPED - 1:
            trial.check(Position(epoch, step + 1))
    with pytest.raises(InputError, match="not finite"):
        trial.check(Position(epoch, step + 1))


def resumed(trial: Trial, position: Position) -> Trial:
    fresh = trial_of(HALF)
    fresh.restore(trial.snapshot(position))
    return fresh


def test_weights_that_are_not_finite_are_a_divergence_under_loss_scaling_too() -> None:
    trial = trial_of(HALF)
    with torch.no_grad():
        next(trial.module.parameters())[0] = torch.nan
    with pytest.raises(InputError, match="not finite"):
        trial.check(Position(0, 1))


@pytest.mark.gpu
def test_indices_move_to_a_device_without_waiting_for_it() -> None:
    device = torch.device("cuda", 0)
    torch.zeros(1, device=device)
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = moved(torch.arange(32), device)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(found.cpu(), torch.arange(32))


def test_a_restored_trial_goes_on_to_the_same_bits() -> None:
    whole, halved = trial_of(mixup=0.2), trial_of(mixup=0.2)
    for step in range(4):
        whole.step(*batch(step), Position(0, step))
        if step < 2:
            halved.step(*batch(step), Position(0, step))
    scores = SplitMetrics(0.5, 1.0, 0.5, 1.0, 0.5, 4, 0)
    assert halved.keep_if_best(0, scores)
    fresh = trial_of(mixup=0.2, seed=0)
    position = fresh.restore(halved.snapshot(Position(0, 2)))
    assert position == Position(0, 2)
    for step in (2, 3):
        fresh.step(*batch(step), Position(0, step))
    assert torch.equal(weights(fresh), weights(whole))
    sizes = torch.tensor([8] * 4)
    assert fresh.train_loss(sizes) == whole.train_loss(sizes)
    assert fresh.best is not None
    assert fresh.best.metrics == scores


def test_the_best_weights_are_a_copy() -> None:
    trial = trial_of()
    assert trial.keep_if_best(0, SplitMetrics(0.5, 1.0, 0.5, 1.0, 0.5, 4, 0))
    assert trial.best is not None
    before = trial.best.weights["head.weight"].clone()
    trial.step(*batch(1), Position())
    assert torch.equal(trial.best.weights["head.weight"], before)
    assert not trial.keep_if_best(1, SplitMetrics(0.4, 1.0, 0.4, 0.1, 0.4, 4, 0))
    assert trial.best.epoch == 0


def test_the_best_remembers_the_epoch_that_first_reached_its_top1() -> None:
    trial = trial_of()
    for epoch, (top1, loss) in enumerate([(0.5, 1.0), (0.7, 1.0), (0.7, 0.9), (0.6, 0.1)]):
        trial.keep_if_best(epoch, SplitMetrics(top1, 1.0, top1, loss, top1, 4, 0))
    fresh = trial_of()
    fresh.restore(trial.snapshot(Position(4, 0)))
    for one in (trial, fresh):
        assert one.best is not None
        assert (one.best.epoch, one.best.first_epoch) == (2, 1)


def test_without_scores_the_last_weights_are_kept_through_a_snapshot() -> None:
    trial = trial_of()
    for epoch in range(2):
        trial.step(*batch(epoch), Position(epoch))
        assert trial.keep_if_best(epoch, None)
    fresh = trial_of(seed=0)
    fresh.restore(trial.snapshot(Position(2, 0)))
    assert fresh.best is not None
    assert (fresh.best.epoch, fresh.best.metrics) == (1, None)
    assert torch.equal(fresh.best.weights["head.weight"], trial.module.state_dict()["head.weight"])

"""Claims of losa.live.predict."""

from __future__ import annotations

from pathlib import Path

import pytest

from losa.errors import InputError
from losa.features import StoreDtype
from losa.live.predict import PredictRequest, predict
from tests.live.trained import Trained, train_small


@pytest.fixture(scope="module", params=["float16", "float32", "bfloat16"])
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    dtype: StoreDtype = request.param
    return train_small(tmp_path_factory.mktemp(dtype), dtype)


def test_live_logits_equal_cached_logits_and_name_the_same_classes(trained: Trained) -> None:
    request = PredictRequest(
        trained.run, (trained.pictures,), "random", store=trained.store, batch_size=5
    )
    result = predict(request)
    assert result["cache_check"]["compared"] == len(result["predictions"]) == 42
    tolerance = 1e-4 if "float32" in str(trained.run) else 1e-2
    assert result["cache_check"]["max_abs_difference"] <= tolerance
    assert result["cache_check"]["same_classes"] is True


def test_top_classes_are_sorted_and_no_more_than_there_are(trained: Trained) -> None:
    picture = trained.pictures / "test/red/000.png"
    (item,) = predict(PredictRequest(trained.run, (picture,), "random", top=9))["predictions"]
    shares = [best["probability"] for best in item["top"]]
    assert len(shares) == 3
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) == pytest.approx(1.0, abs=1e-5)


def test_an_unreadable_image_costs_only_itself(trained: Trained, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_text("<html>")
    good = trained.pictures / "test/red/000.png"
    result = predict(PredictRequest(trained.run, (tmp_path / "bad.png", good), "random"))
    assert "error" in result["predictions"][0]
    assert "top" in result["predictions"][1]


@pytest.mark.parametrize("name", ["none.png", "empty"])
def test_nothing_to_classify_is_an_error_by_name(
    trained: Trained, tmp_path: Path, name: str
) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=name):
        predict(PredictRequest(trained.run, (tmp_path / name,), "random"))

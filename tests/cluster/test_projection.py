"""What a described cluster would take: the model's own laws, published measurements, and refusals with numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.forecast.published import FITTED, ROWS, forecast_tokens_per_second
from cluster.cluster_file import load_cluster
from cluster.projection import Choice, Training, check_asked, choices, project, recommended
from flows.projected import fact_rows
from foundation_core.errors import ConfigError, SetupError
from foundation_core.specs import PretrainSpec
from foundation_core.specs.cluster import ClusterSpec

CLUSTERS = Path(__file__).parents[2] / "infra" / "clusters"
NODE = load_cluster(CLUSTERS / "h100_node.yaml")


def _training(width: int = 1024, depth: int = 8, rows: int = 2048, micro: int = 4, **fields: Any) -> Training:
    trunk = {"width": width, "depth": depth, "heads": width // 64}
    body = {"model": {"context_tokens": 2048, "trunk": trunk}, "batch_rows": rows, "micro_batch_rows": micro}
    return Training.of(PretrainSpec.model_validate({**body, "precision": "bf16", **fields}), 32_000)


def _way(training: Training, cluster: ClusterSpec, stage: int = 1, recomputed: bool = False) -> Choice:
    return project(training, cluster, engine="deepspeed", zero_stage=stage, recomputed=recomputed)


def _nodes(count: int) -> ClusterSpec:
    return NODE.model_copy(update={"nodes": count})


@pytest.mark.parametrize("path", sorted(CLUSTERS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_example_is_a_cluster(path: Path) -> None:
    assert load_cluster(path).ranks > 0


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.model} on {row.cards}")
def test_the_forecast_is_near_what_others_measured(row: Any) -> None:
    parameters, said = forecast_tokens_per_second(row, NODE)
    assert parameters == pytest.approx(row.parameters, rel=0.005)
    assert said == pytest.approx(row.tokens_per_second, rel=0.01 if row is FITTED else 0.22)
    _, ideal = forecast_tokens_per_second(row, NODE.model_copy(update={"card": NODE.card.model_copy(
        update={"achievable_fraction": {"bf16": 1.0, "float32": 1.0}})}))  # fmt: skip
    assert ideal > 1.3 * row.tokens_per_second  # negative control: peaks alone say too much


@given(stage=st.integers(0, 3), more=st.integers(2, 16), recomputed=st.booleans())
def test_more_work_takes_longer_and_more_cards_do_not(stage: int, more: int, recomputed: bool) -> None:
    one, many = _training(), _training(rows=2048 * more)
    base = _way(one, NODE, stage, recomputed)
    assert _way(many, NODE, stage, recomputed).step.products == pytest.approx(more * base.step.products)
    assert _way(one, _nodes(more), stage, recomputed).step.products <= base.step.products * 1.0001
    assert _way(one, NODE, stage, True).step.products == pytest.approx(4 / 3 * _way(one, NODE, stage).step.products)


def test_one_card_exchanges_nothing_and_only_zero_3_hides_what_it_exchanges() -> None:
    single = NODE.model_copy(update={"cards_per_node": 1})
    assert _way(_training(), single).step.exchange == 0
    waits = [_way(_training(), _nodes(4), stage).step for stage in range(4)]
    assert all(step.waiting == step.exchange > 0 for step in waits[:3])
    assert waits[3].waiting < waits[3].exchange
    alone = _nodes(4).model_copy(update={"exchange_overlaps": False})
    assert _way(_training(), alone, 3).step.waiting == _way(_training(), alone, 3).step.exchange


def test_a_ring_over_nodes_uses_all_of_their_links() -> None:
    assert NODE.ring.bytes_per_second == NODE.inside.bytes_per_second
    assert _nodes(2).ring.bytes_per_second == 8 * NODE.between.bytes_per_second < NODE.inside.bytes_per_second


def test_the_fastest_way_that_fits_is_recommended_and_the_asked_one_is_refused_if_it_does_not() -> None:
    training = _training(width=4096, depth=32, zero_stage=1)
    found = choices(training, NODE)
    best = recommended(found, training, NODE)
    assert best.fits
    assert best.zero_stage == 3
    assert not best.recomputed  # it fits without, and computing again takes longer
    with pytest.raises(SetupError, match=r"ZeRO 1, which needs \d+\.\d GB of each card, and a H100.* has 77\.0 GB"):
        check_asked(found, best, training, NODE)
    asking = _training(width=4096, depth=32, zero_stage=3)
    assert check_asked(choices(asking, NODE), best, asking, NODE).zero_stage == 3


def test_no_way_is_offered_that_a_plan_refuses() -> None:
    muon = _training(optimizer={"kind": "muon"}, engine="torch")
    assert {choice.name for choice in choices(muon, NODE)} == {
        "torch", "ZeRO 0", "torch, recomputed", "ZeRO 0, recomputed"
    }  # fmt: skip
    offloaded = _training(offload_optimizer=True)
    assert {choice.name for choice in choices(offloaded, NODE) if not choice.recomputed} == {
        "ZeRO 1",
        "ZeRO 2",
        "ZeRO 3",
    }
    assert len(choices(_training(), NODE)) == 10


def test_what_is_offloaded_is_in_the_memory_of_the_host_and_not_on_the_card() -> None:
    on_card, off = _way(_training(), NODE), _way(_training(offload_optimizer=True), NODE)
    assert (off.memory.optimizer, off.host_bytes) == (0, on_card.memory.optimizer)
    assert on_card.host_bytes == 0 < off.free_bytes - on_card.free_bytes == on_card.memory.optimizer
    assert "offloaded" in dict(fact_rows(_training(offload_optimizer=True), NODE, off))
    assert "offloaded" not in dict(fact_rows(_training(), NODE, on_card))


def test_a_budget_ends_the_training_that_is_shown_behind_the_step_that_uses_it_up() -> None:
    step_tokens = 2048 * 2048
    whole = _way(_training(steps=100), NODE)
    for budget, steps in ({"max_tokens": 10 * step_tokens}, 10), ({"max_tokens": 10 * step_tokens + 1}, 11):
        training = _training(steps=100, **budget)
        best = _way(training, NODE)
        said = dict(fact_rows(training, NODE, best))["trained on"]
        assert said.startswith(f"{steps * step_tokens:,} tokens: {steps} steps of 100, until a budget is used up,")
        assert (best.steps, best.days) == (steps, pytest.approx(whole.days * steps / 100))
    timed = _way(_training(steps=100, max_seconds=2.5 * whole.step.total), NODE)
    assert timed.steps == 3
    enough = _training(steps=100, max_tokens=101 * step_tokens, max_seconds=1e9)
    rows = dict(fact_rows(enough, NODE, _way(enough, NODE)))
    assert rows["trained on"].startswith(f"{100 * step_tokens:,} tokens: 100 steps of 2,048 rows")
    assert rows == dict(fact_rows(_training(steps=100), NODE, whole))  # negative control: nothing is used up


def test_a_notice_is_enough_for_the_step_that_runs_and_the_save_or_it_is_too_short() -> None:
    training = _training(width=4096, depth=32)
    best = _way(training, NODE, 3)
    step, save = best.step.total, best.checkpoint_seconds
    assert step > save + 1

    def verdict(notice: float) -> str:
        cluster = NODE.model_copy(update={"preemption_notice_seconds": notice})
        return dict(fact_rows(training, cluster, _way(training, cluster, 3)))["checkpoint"]

    for notice in (save - 0.1, save + 1, step, step + save - 0.1):
        assert "TOO SHORT for the rest of a step and the save" in verdict(notice)
        assert "since the last save is lost" in verdict(notice)
    assert "enough for the rest of a step and the save" in verdict(step + save + 0.1)
    assert "no notice" in verdict(0)


def test_what_fits_nowhere_is_refused_with_the_least_that_it_needs() -> None:
    training = _training(width=16384, depth=120)
    found = choices(training, NODE)
    least = min(choice.memory.total for choice in found)
    with pytest.raises(SetupError, match=rf"need {least / 1e9:.1f} GB of each card"):
        recommended(found, training, NODE)


def test_recipes_that_do_not_go_with_the_cluster_are_refused() -> None:
    with pytest.raises(ConfigError, match="batch_rows=4 gives 8 cards less than a row each"):
        choices(_training(rows=4), NODE)
    card = NODE.card.model_copy(update={"peak_flops_per_second": {"float32": 1e12}})
    with pytest.raises(ConfigError, match="precision is bf16"):
        choices(_training(), NODE.model_copy(update={"card": card}))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"nodes": 0}, "nodes: Input should be greater than 0"),
        ({"colour": "red"}, "colour: Extra inputs"),
        ({"card": {"reserved_bytes": 10**12}}, "leave nothing of memory_bytes"),
        ({"card": {"peak_flops_per_second": {"fp8": 1e15}}}, r"names \['fp8'\]; allowed: bf16, float32"),
        ({"card": {"achievable_fraction": {"bf16": 2.0, "float32": 0.5}}}, r"must lie in \(0, 1\]"),
        ({"card": {"achievable_fraction": {"bf16": 0.5}}}, "must name the same number formats"),
    ],
)
def test_a_wrong_cluster_file_is_refused_by_field(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    body = NODE.model_dump()
    for name, value in change.items():
        body[name] = {**body[name], **value} if isinstance(value, dict) else value
    path = tmp_path / "cluster.yaml"
    path.write_text(yaml.safe_dump(body))
    with pytest.raises(ConfigError, match=said):
        load_cluster(path)


def test_a_cluster_file_that_is_not_there_or_not_yaml_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_cluster(tmp_path / "none.yaml")
    (tmp_path / "broken.yaml").write_text("a: [")
    with pytest.raises(ConfigError, match="is not YAML"):
        load_cluster(tmp_path / "broken.yaml")

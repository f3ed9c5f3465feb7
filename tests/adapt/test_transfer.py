"""From a pretrained trunk to a task model."""

import json

import pytest
import torch

from foundation_core.adapt.classify import Classification
from foundation_core.adapt.transfer import Pretrained, freeze, load_trunk, task_model
from foundation_core.data.tokens.byte_level import load_tokenizer
from foundation_core.errors import CheckpointError, DataError
from foundation_core.files import read_json, sha256_file, write_json
from foundation_core.model.families import build
from foundation_core.model.initialize import initialize
from foundation_core.shape import SampleShape
from foundation_core.specs import ModelSpec, OptimizerSpec, TrunkSpec
from foundation_core.stages.finetune import finetune
from foundation_core.tracking.pyfunc import read_model
from foundation_core.train.engine import EngineRequest, TorchEngine
from foundation_core.train.step import train_step
from tests.support.tasks import MODEL, SHAPE, TASK, VOCABULARY, ingested, pretrained

CLASSES = 3


@pytest.fixture
def weights():
    return initialize(build(MODEL, SHAPE), seed=7).state_dict()


def model(seed=0, pool="mean"):
    return task_model(MODEL, SHAPE, CLASSES, pool, seed)


def trunk_of(weights):
    return {name: value for name, value in weights.items() if not name.startswith("head.")}


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_a_task_model_from_pretrained_weights_has_their_trunk_and_one_from_scratch_has_not(weights):
    scratch, adapted = model(), model()
    load_trunk(adapted, weights)
    assert equal(trunk_of(adapted.state_dict()), trunk_of(weights))
    assert not equal(trunk_of(scratch.state_dict()), trunk_of(weights))


def test_pretraining_leaves_the_head_as_the_seed_made_it(weights):
    scratch, adapted = model(), model()
    load_trunk(adapted, weights)
    assert equal(scratch.head.state_dict(), adapted.head.state_dict())
    assert not equal(model(seed=1).head.state_dict(), adapted.head.state_dict())


def test_a_task_model_gives_a_logit_for_each_class(weights):
    tokens = torch.randint(VOCABULARY, (5, 16), generator=torch.Generator().manual_seed(0))
    mean, last = model(pool="mean")(tokens), model(pool="last")(tokens)
    assert mean.shape == last.shape == (5, CLASSES)
    assert not torch.equal(mean, last)


@pytest.mark.parametrize("damage", ["name", "shape"])
def test_weights_of_another_model_are_refused_by_name(weights, damage):
    value = weights.pop("trunk.norm.weight")
    weights["trunk.norm.other" if damage == "name" else "trunk.norm.weight"] = value[:4]
    with pytest.raises(CheckpointError, match=r"trunk\.norm"):
        load_trunk(model(), weights)


def moved(adapt):
    """Names of the parameters that a step moves."""
    adapted = model()
    freeze(adapted, adapt)
    before = {name: value.clone() for name, value in adapted.state_dict().items()}
    batch = {
        "inputs": torch.randint(VOCABULARY, (6, 16), generator=torch.Generator().manual_seed(1)),
        "labels": torch.tensor([0, 1, 2, 0, 1, 2]),
    }
    engine = TorchEngine(adapted, EngineRequest(OptimizerSpec(weight_decay=0.5)))
    train_step(engine, Classification(), [batch], lr=1e-2, seed=0)
    return {name for name, value in adapted.state_dict().items() if not torch.equal(value, before[name])}


def test_a_probe_moves_the_head_alone_and_full_adaptation_all():
    assert moved("probe") == {"head.out.weight", "head.out.bias"}
    assert moved("full") == set(model().state_dict())


FAMILIES = ["decoder", "encoder", "mixture", "encoder_decoder", "captioner", "masked_autoencoder", "dual_encoder"]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_reading_side_of_every_family_becomes_a_task_model(family):
    both = SampleShape(vocabulary=VOCABULARY, channels=1, height=4, width=8)
    trunk = TrunkSpec(width=32, depth=2, heads=4, experts=3 if family == "mixture" else 0)
    spec = ModelSpec(family=family, trunk=trunk, context_tokens=16)
    adapted, weights = task_model(spec, both, CLASSES, "mean", seed=0), build(spec, both).state_dict()
    load_trunk(adapted, weights)
    own = {name: value for name, value in adapted.state_dict().items() if not name.startswith("head.")}
    assert equal(own, {name: weights[name] for name in own})
    tokens = torch.randint(VOCABULARY, (5, 16), generator=torch.Generator().manual_seed(0))
    grid = torch.randn(5, 1, 4, 8)
    read = grid if family in ("captioner", "masked_autoencoder", "dual_encoder") else tokens
    assert adapted(read).shape == (5, CLASSES)


def test_a_pretrained_model_is_found_in_its_folder(tmp_path):
    result = pretrained(tmp_path)
    found = Pretrained.find(result.folder, result.outputs["weights.safetensors"])
    assert (found.spec, found.shape) == (MODEL, SHAPE)
    assert equal(found.language_model().state_dict(), found.weights())
    assert not found.language_model().training


def test_a_model_of_version_1_which_knew_text_alone_still_loads(tmp_path):
    result = pretrained(tmp_path)
    old = {"version": 1, "model": MODEL.model_dump(mode="json"), "vocabulary": VOCABULARY}
    write_json(result.folder / "model.json", old)
    found = Pretrained.find(result.folder, result.outputs["weights.safetensors"])
    assert found.shape == SHAPE
    assert equal(found.language_model().state_dict(), found.weights())


def test_edited_weights_are_refused(tmp_path):
    result = pretrained(tmp_path)
    found = Pretrained.find(result.folder, result.outputs["weights.safetensors"])
    data = bytearray(found.path.read_bytes())
    data[-1] ^= 1
    found.path.write_bytes(data)
    with pytest.raises(CheckpointError, match="sha256"):
        found.weights()


def test_a_model_of_a_newer_version_is_refused(tmp_path):
    result = pretrained(tmp_path)
    write_json(result.folder / "model.json", {**read_json(result.folder / "model.json"), "version": 4})
    with pytest.raises(CheckpointError, match="version 4"):
        Pretrained.find(result.folder, "")


def test_a_foreign_tokenizer_of_equal_size_is_refused_by_fine_tuning_and_by_a_package(tmp_path, serial_context):
    corpus, trunk = ingested(tmp_path / "corpus"), pretrained(tmp_path)
    own, file = corpus.folder / "tokenizer.json", trunk.folder / "model.json"
    write_json(file, {**read_json(file), "version": 3, "tokenizer": sha256_file(own)})
    model = Pretrained.find(trunk.folder, trunk.outputs["weights.safetensors"])
    read_model(corpus.folder, model, "next_token", None)
    finetune(TASK, {"corpus": corpus, "trunk": trunk}, serial_context(tmp_path / "finetune"))

    foreign = json.loads(own.read_text())
    (one, first), (two, second) = list(foreign["model"]["vocab"].items())[-2:]
    foreign["model"]["vocab"] |= {one: second, two: first}  # as many entries, and two ids mean other texts
    own.write_text(json.dumps(foreign))
    assert load_tokenizer(own).get_vocab_size() == VOCABULARY
    with pytest.raises(CheckpointError, match="the tokenizer is not the one the model was trained with"):
        read_model(corpus.folder, model, "next_token", None)
    with pytest.raises(CheckpointError, match="the tokenizer is not the one the model was trained with"):
        finetune(TASK, {"corpus": corpus, "trunk": trunk}, serial_context(tmp_path / "again"))

    write_json(file, {**read_json(file), "version": 2, "tokenizer": None})  # one of version 2 knows none
    read_model(corpus.folder, Pretrained.find(trunk.folder, model.sha256), "next_token", None)


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"model\.json is not there"):
        Pretrained.find(tmp_path, "")

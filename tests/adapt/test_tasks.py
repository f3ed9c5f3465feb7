"""The task: what its rows are, and where they come from."""

from dataclasses import replace

import pytest
import torch

from foundation_core.adapt.fragments import PackageOfFragment
from foundation_core.adapt.tasks import balanced, load_task, save_task
from foundation_core.errors import CheckpointError, ConfigError, DataError
from foundation_core.specs import FinetuneSpec
from tests.support.tasks import write_tokens

SPEC = FinetuneSpec(
    classes=3, least_files=2, fragment_tokens=8, few_labels=3, all_labels=10, evaluation_labels=4, seeds=(0,)
)
TRAIN = {
    "a/1": 50, "a/2": 90, "a/3": 41, "b/1": 60, "b/2": 70, "b/3": 65, "b/4": 30,
    "c/1": 100, "c/2": 48, "d/1": 300, "e/1": 20, "e/2": 20, "top": 500, "other_top": 400,
}  # fmt: skip
EVALUATION = {"a/8": 40, "b/8": 64, "b/9": 33, "c/8": 90, "d/8": 90, "top_8": 90, "e/8": 90}


@pytest.fixture
def corpus(tmp_path):
    write_tokens(tmp_path, "train", TRAIN)
    write_tokens(tmp_path, "validation", EVALUATION)
    write_tokens(tmp_path, "test", {f"{name}0": length for name, length in EVALUATION.items()})
    return tmp_path


@pytest.fixture
def task(corpus):
    return PackageOfFragment().data(corpus, SPEC)


def splits(task):
    return [task.train, task.validation, task.test]


def test_classes_are_the_packages_with_enough_files_and_fragments(task):
    assert task.classes == ["a", "b", "c"]  # d has one training file, e too few fragments, and "top" is in no package


def test_the_packages_with_the_most_training_files_come_first(corpus):
    two = PackageOfFragment().data(corpus, SPEC.model_copy(update={"classes": 2}))
    assert two.classes == ["a", "b"]


def test_packages_with_one_file_to_evaluate_on_come_last(corpus, tmp_path):
    more = tmp_path / "more"
    write_tokens(more, "train", TRAIN)
    for split in ("validation", "test"):
        write_tokens(more, split, {**{f"{name}{split}": length for name, length in EVALUATION.items()}, "c/9": 16})
    two = PackageOfFragment().data(more, SPEC.model_copy(update={"classes": 2}))
    assert two.classes == ["b", "c"]


def test_no_file_is_on_two_sides(task):
    train, validation, test = (set(rows.documents) for rows in splits(task))
    assert all([train, validation, test])
    assert train.isdisjoint(validation | test)
    assert validation.isdisjoint(test)


def test_every_class_has_as_many_rows(task):
    for rows, expected in zip(splits(task), (10, 4, 4), strict=True):
        assert torch.bincount(rows.labels).tolist() == [expected] * 3
        assert rows.tensors["inputs"].shape == (3 * expected, 8)


def test_a_row_is_a_piece_of_its_document_and_pieces_do_not_overlap(task):
    begins, begin = {}, 0
    for name, length in TRAIN.items():
        begins[name], begin = begin, begin + length
    for row, label, document in zip(task.train.tensors["inputs"], task.train.labels, task.train.documents, strict=True):
        assert torch.equal(row, torch.arange(row[0], row[0] + 8))
        assert begins[document] <= row[0] <= begins[document] + TRAIN[document] - 8
        assert document.split("/")[0] == task.classes[label]
    assert len(task.train.tensors["inputs"].unique()) == task.train.tensors["inputs"].numel()


def test_rows_are_spread_over_the_documents_in_turn(task):
    of_c = [document for document in task.train.documents if document.startswith("c/")]
    assert of_c[:4] in (["c/1", "c/2"] * 2, ["c/2", "c/1"] * 2)
    assert sorted(map(of_c.count, ("c/1", "c/2"))) == [5, 5]


def test_the_task_is_a_function_of_the_seed(corpus, task):
    again, other = PackageOfFragment().data(corpus, SPEC), PackageOfFragment().data(corpus, SPEC, seed=1)
    for rows, same, different in zip(splits(task), splits(again), splits(other), strict=True):
        assert torch.equal(rows.tensors["inputs"], same.tensors["inputs"])
        assert rows.documents == same.documents
        assert not torch.equal(rows.tensors["inputs"], different.tensors["inputs"])


def test_how_the_shards_are_cut_does_not_matter(corpus, task, tmp_path):
    whole = tmp_path / "whole"
    write_tokens(whole, "train", TRAIN, shard_tokens=10**6)
    write_tokens(whole, "validation", EVALUATION, shard_tokens=10**6)
    write_tokens(whole, "test", {f"{name}0": length for name, length in EVALUATION.items()}, shard_tokens=10**6)
    for rows, same in zip(splits(task), splits(PackageOfFragment().data(whole, SPEC)), strict=True):
        assert torch.equal(rows.tensors["inputs"], same.tensors["inputs"])


def test_too_few_classes_are_refused_with_the_counts(corpus):
    with pytest.raises(ConfigError, match="3 packages can be classes") as error:
        PackageOfFragment().data(corpus, SPEC.model_copy(update={"classes": 5, "least_classes": 5}))
    assert "a 3 files, 22/5/5" in str(error.value)
    assert "d 1 files, 37/11/11" in str(error.value)
    assert "5 classes or more" in error.value.allowed
    assert "least_classes" in error.value.fix


def test_the_few_rows_are_balanced_and_follow_the_seed(task):
    few = balanced(task.train.labels, 3, classes=3, seed=0)
    assert torch.bincount(task.train.labels[few]).tolist() == [3, 3, 3]
    assert torch.equal(few, balanced(task.train.labels, 3, classes=3, seed=0))
    assert not torch.equal(few, balanced(task.train.labels, 3, classes=3, seed=1))


def test_a_saved_task_comes_back(task, tmp_path):
    save_task(tmp_path / "task", task)
    back = load_task(tmp_path / "task")
    assert back.classes == task.classes
    for rows, same in zip(splits(task), splits(back), strict=True):
        assert torch.equal(rows.tensors["inputs"], same.tensors["inputs"])
        assert torch.equal(rows.labels, same.labels)
        assert rows.documents == same.documents


def test_an_edited_task_is_refused(task, tmp_path):
    save_task(tmp_path / "task", task)
    other = replace(task, train=task.train.select(torch.tensor([0, 1])))
    save_task(tmp_path / "other", other)
    (tmp_path / "other" / "rows.safetensors").replace(tmp_path / "task" / "rows.safetensors")
    with pytest.raises(CheckpointError, match=r"rows\.safetensors"):
        load_task(tmp_path / "task")


def test_a_task_without_its_last_file_is_none(task, tmp_path):
    save_task(tmp_path / "task", task)
    (tmp_path / "task" / "task.json").unlink()
    with pytest.raises(DataError, match=r"task\.json is not there"):
        load_task(tmp_path / "task")

"""The Kubernetes manifest fits the schema of JobSet and of all that is inside one, and its parts fit each other."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from kubeflow_trainer_api.models import JobsetV1alpha2JobSet
from small_run import ROOT

from largede.training.trainer import EXIT_SAVED_ON_SIGNAL

MANIFEST: Path = ROOT / "launch" / "kubernetes.yaml"


@pytest.fixture
def manifest() -> dict[str, Any]:
    tree: dict[str, Any] = yaml.safe_load(MANIFEST.read_text(encoding="utf-8"))
    return tree


def demand_valid(tree: dict[str, Any]) -> None:
    """Models made of the OpenAPI schema of JobSet v1alpha2 and batch/v1; they drop what they do not know."""
    assert JobsetV1alpha2JobSet.from_dict(tree).to_dict() == tree


def job(tree: dict[str, Any]) -> dict[str, Any]:
    [replicated] = tree["spec"]["replicatedJobs"]
    found: dict[str, Any] = replicated["template"]["spec"]
    return found


def pod(tree: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = job(tree)["template"]["spec"]
    return found


def test_the_manifest_is_valid(manifest: dict[str, Any]) -> None:
    demand_valid(manifest)


def test_a_misspelt_or_mistyped_field_is_noticed(manifest: dict[str, Any]) -> None:
    pod(manifest)["terminationGracePeriodSecond"] = 600
    with pytest.raises(AssertionError):
        demand_valid(manifest)
    del pod(manifest)["terminationGracePeriodSecond"]
    job(manifest)["completions"] = "two"
    with pytest.raises(ValueError, match="completions"):
        demand_valid(manifest)


def test_the_numbers_that_stand_in_several_places_agree(manifest: dict[str, Any]) -> None:
    [container] = pod(manifest)["containers"]
    environment = {variable["name"]: variable["value"] for variable in container["env"]}
    assert int(environment["NODES"]) == job(manifest)["parallelism"] == job(manifest)["completions"]
    assert int(environment["RANKS_PER_NODE"]) == container["resources"]["limits"]["nvidia.com/gpu"]
    name, [replicated] = manifest["metadata"]["name"], manifest["spec"]["replicatedJobs"]
    assert environment["MASTER_ADDR"] == f"{name}-{replicated['name']}-0-0.{name}"
    assert {mount["name"] for mount in container["volumeMounts"]} == {v["name"] for v in pod(manifest)["volumes"]}


def test_a_saved_run_is_started_again_without_being_counted(manifest: dict[str, Any]) -> None:
    [rule] = manifest["spec"]["failurePolicy"]["rules"]
    assert rule["action"] == "RestartJobSetAndIgnoreMaxRestarts" and rule["onJobFailureReasons"] == ["PodFailurePolicy"]
    saved, evicted = job(manifest)["podFailurePolicy"]["rules"]
    assert saved["action"] == evicted["action"] == "FailJob"
    assert saved["onExitCodes"]["values"] == [EXIT_SAVED_ON_SIGNAL]
    assert saved["onExitCodes"]["containerName"] == pod(manifest)["containers"][0]["name"]
    assert pod(manifest)["restartPolicy"] == "Never", "podFailurePolicy asks for it"

"""The Helm chart, rendered by Helm where it is installed (`tests/install-helm` puts one into .cache/bin)."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from typing import Any

import pytest
import yaml

from config.settings import LAST_WORDS_SECONDS, Config
from config.version import VERSION
from tests.support.gateway import ROOT
from tests.test_deploy import image_environment

CHART = ROOT / "deploy/helm/openrouter-proxy"
NEEDED = ("database.host=db", "settings.DEPLOYMENT_ID=a1b2c3")
EVERYTHING = (*NEEDED, "autoscaling.enabled=true", "ingress.enabled=true", "serviceMonitor.enabled=true")
SETTINGS = {name.upper() for name in Config.model_fields}


def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = shutil.which("helm", path=f"{ROOT / '.cache/bin'}{os.pathsep}{os.environ['PATH']}")
    if not program:
        pytest.skip("no Helm here; tests/install-helm makes one where Go is")
    return subprocess.run([program, *arguments], check=False, capture_output=True, text=True, timeout=60)


def render(*values: str) -> dict[str, dict[str, Any]]:
    """What the chart makes, by kind and name."""
    done = helm("template", "gw", str(CHART), "--kube-version", "1.31.0", "--set", ",".join(values))
    assert done.returncode == 0, done.stderr
    return {f"{one['kind']}/{one['metadata']['name']}": one for one in yaml.safe_load_all(done.stdout) if one}


def pods(objects: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {name: one["spec"]["template"]["spec"] for name, one in objects.items() if "template" in one["spec"]}


def test_helm_finds_no_fault():
    done = helm("lint", "--strict", str(CHART), "--set", ",".join(NEEDED))
    assert done.returncode == 0, done.stdout


def test_what_is_needed_is_asked_for():
    for given, missing in zip(NEEDED, ("DEPLOYMENT_ID", "database.host"), strict=True):
        done = helm("template", "gw", str(CHART), "--kube-version", "1.31.0", "--set", given)
        assert done.returncode != 0
        assert f"{missing} is needed" in done.stderr


def test_what_it_makes():
    assert set(render(*NEEDED)) == {
        *("StatefulSet/gw", "Deployment/gw-rotation", "Job/gw-migration"),
        *("Service/gw", "Service/gw-replicas", "PodDisruptionBudget/gw"),
    }
    assert set(render(*EVERYTHING)) - set(render(*NEEDED)) == {
        *("HorizontalPodAutoscaler/gw", "Ingress/gw", "ServiceMonitor/gw"),
    }


def test_selectors_find_the_pods_that_they_mean():
    objects = render(*EVERYTHING)
    labels = {
        name: one["spec"]["template"]["metadata"]["labels"]
        for name, one in objects.items()
        if "template" in one["spec"]
    }

    def found(selector: dict[str, str]) -> set[str]:
        return {name for name, has in labels.items() if selector.items() <= has.items()}

    for name in ("StatefulSet/gw", "PodDisruptionBudget/gw"):
        assert found(objects[name]["spec"]["selector"]["matchLabels"]) == {"StatefulSet/gw"}, name
    assert found(objects["Deployment/gw-rotation"]["spec"]["selector"]["matchLabels"]) == {"Deployment/gw-rotation"}
    for name in ("Service/gw", "Service/gw-replicas"):
        assert found(objects[name]["spec"]["selector"]) == {"StatefulSet/gw"}
    monitored = objects["ServiceMonitor/gw"]["spec"]["selector"]["matchLabels"]
    services = [name for name, one in objects.items() if monitored.items() <= one["metadata"]["labels"].items()]
    assert services == ["Service/gw"], "each pod is read once"


def test_pods_are_locked_down():
    for name, pod in pods(render(*EVERYTHING)).items():
        assert pod["automountServiceAccountToken"] is False, name
        security = pod["securityContext"]
        assert (security["runAsNonRoot"], security["runAsUser"]) == (True, 10001), name
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        [container] = pod["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        volumes = {volume["name"] for volume in pod["volumes"]} | (
            {"journal"} if name.startswith("Stateful") else set()
        )
        assert set(mounts) == volumes
        paths = {mount["mountPath"] for mount in container["volumeMounts"]}
        assert {image_environment()["DATA_DIR"], image_environment()["TMPDIR"]} <= paths, "where it has to write"


def test_settings_are_ours_and_secrets_are_files():
    for name, pod in pods(render(*EVERYTHING)).items():
        [container] = pod["containers"]
        environment = {one["name"]: one["value"] for one in container["env"]}
        assert all(isinstance(value, str) for value in environment.values())
        assert {one.removesuffix("_FILE") for one in environment} <= SETTINGS
        folders = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        files = {
            f"{folders[volume['name']]}/{item['path']}"
            for volume in pod["volumes"]
            for item in volume.get("secret", {}).get("items", [])
        }
        assert {value for one, value in environment.items() if one.endswith("_FILE")} == files
        assert any("provision" in file for file in files) == (name == "Deployment/gw-rotation")


def test_probes_ask_what_they_are_for_and_a_stop_leaves_running_answers_their_time():
    pod = pods(render(*NEEDED, "settings.DRAIN_DELAY_SECONDS=20", "settings.DRAIN_SECONDS=300"))["StatefulSet/gw"]
    [container] = pod["containers"]
    asked = {name: container[f"{name}Probe"]["httpGet"]["path"] for name in ("startup", "liveness", "readiness")}
    assert asked == {"startup": "/livez", "liveness": "/livez", "readiness": "/readyz"}
    assert pod["terminationGracePeriodSeconds"] > 20 + 300 + LAST_WORDS_SECONDS
    assert "Job/gw-migration" in render(*NEEDED)


def test_the_chart_has_the_programs_version():
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == VERSION
    assert chart["version"] == re.sub(r"\.dev(\d+)$", r"-dev.\1", VERSION)

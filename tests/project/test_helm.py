"""The chart in `deploy/helm/`: rendered by Helm, valid to Kubernetes, hardened, rightly configured."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tests.support.proxy import ROOT

CHART = ROOT / "deploy" / "helm" / "litellm-collections"
VALUES: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
SCHEMA = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
KUBERNETES = "1.33.0"
CACHED = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "litellm-collections" / "helm"
MISSING = (
    "Helm is not installed (https://helm.sh/docs/intro/install, or "
    f"`GOBIN={CACHED.parent} go install helm.sh/helm/v3/cmd/helm@latest`)"
)
WORKLOADS = {"Deployment", "Job"}


def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Skips where there is none."""
    program = shutil.which("helm") or (str(CACHED) if CACHED.exists() else None)
    if program is None:
        pytest.skip(MISSING)
    return subprocess.run(
        [program, *arguments], capture_output=True, text=True, timeout=120, check=False, cwd=ROOT
    )


def render(*options: str) -> list[dict[str, Any]]:
    done = helm("template", "demo", str(CHART), "--kube-version", KUBERNETES, *options)
    assert done.returncode == 0, done.stderr
    return [one for one in yaml.safe_load_all(done.stdout) if one]


@pytest.fixture(scope="module")
def rendered() -> list[dict[str, Any]]:
    return render()


def pods(rendered: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [one["spec"]["template"]["spec"] for one in rendered if one["kind"] in WORKLOADS]


def one(rendered: list[dict[str, Any]], kind: str, name: str) -> dict[str, Any]:
    [found] = [one for one in rendered if (one["kind"], one["metadata"]["name"]) == (kind, name)]
    return found


def test_helm_finds_nothing_to_mend() -> None:
    done = helm("lint", "--strict", str(CHART))
    assert done.returncode == 0, done.stdout
    assert "[WARNING]" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    "options", [[], ["--set", "worker.queueMetric="], ["--set", "networkPolicy.enabled=false"]]
)
def test_each_object_is_valid_to_kubernetes(options: list[str], tmp_path: Path) -> None:
    (tmp_path / "all.yaml").write_text(yaml.safe_dump_all(render(*options)), encoding="utf-8")
    program = Path(sys.executable).parent / "kubernetes-validate"
    command = [str(program), "--strict", str(tmp_path / "all.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_kubernetes_does_not_know_is_refused(rendered: list[dict[str, Any]], tmp_path: Path) -> None:
    wrong = one(rendered, "Deployment", "demo-proxy")
    wrong = {**wrong, "spec": {**wrong["spec"], "replicaz": 2}}
    (tmp_path / "wrong.yaml").write_text(yaml.safe_dump(wrong), encoding="utf-8")
    program = Path(sys.executable).parent / "kubernetes-validate"
    command = [str(program), "--strict", str(tmp_path / "wrong.yaml")]
    assert subprocess.run(command, capture_output=True, timeout=120, check=False).returncode != 0


def test_the_values_follow_their_schema_and_a_misspelt_one_does_not() -> None:
    jsonschema.validate(VALUES, SCHEMA)
    for wrong in (
        {"proxy": {**VALUES["proxy"], "replicas": 3}},
        {"image": {**VALUES["image"], "tag": "latest"}},
        {"config": {**VALUES["config"], "worker": {"worker": {"embedded": True, "metrics_port": 1}}}},
        {
            "config": {
                **VALUES["config"],
                "storage": {"storage": {"database": "x", "store": {"use": "milvus"}}},
            }
        },
    ):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**VALUES, **wrong}, SCHEMA)


def test_no_container_has_more_rights_than_it_needs(rendered: list[dict[str, Any]]) -> None:
    found = pods(rendered)
    assert len(found) == 3
    for pod in found:
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in [*pod["containers"], *pod.get("initContainers", ())]:
            assert "command" not in container, "it would take the place of the image's init process"
            context = container["securityContext"]
            assert context["readOnlyRootFilesystem"] is True
            assert context["allowPrivilegeEscalation"] is context["privileged"] is False
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"]["limits"]["memory"]
            mounts = {mount["mountPath"]: mount.get("readOnly", False) for mount in container["volumeMounts"]}
            assert [path for path, read_only in mounts.items() if not read_only] == ["/data"]


def test_each_deployment_is_probed_scaled_and_kept_from_disruption(rendered: list[dict[str, Any]]) -> None:
    deployments = [one for one in rendered if one["kind"] == "Deployment"]
    assert len(deployments) == 2
    for deployment in deployments:
        name, labels = deployment["metadata"]["name"], deployment["spec"]["template"]["metadata"]["labels"]
        pod = deployment["spec"]["template"]["spec"]
        assert {"startupProbe", "readinessProbe", "livenessProbe"} <= set(pod["containers"][0])
        own = VALUES["config"]["shutdown"]["shutdown"]
        assert pod["terminationGracePeriodSeconds"] > own["drain_s"] + own["grace_s"]
        assert one(rendered, "HorizontalPodAutoscaler", name)["spec"]["scaleTargetRef"]["name"] == name
        for kind in ("PodDisruptionBudget", "NetworkPolicy"):
            spec = one(rendered, kind, name)["spec"]
            selector = spec.get("selector") or spec["podSelector"]
            assert selector["matchLabels"].items() <= labels.items()
        assert "replicas" not in deployment["spec"], "the autoscaler says how many"


@pytest.mark.parametrize("name", ["demo-proxy", "demo-worker"])
def test_only_served_ports_are_open_and_the_clouds_metadata_is_out_of_reach(
    rendered: list[dict[str, Any]], name: str
) -> None:
    policy = one(rendered, "NetworkPolicy", name)["spec"]
    [container] = one(rendered, "Deployment", name)["spec"]["template"]["spec"]["containers"]
    opened = {port["port"] for rule in policy["ingress"] for port in rule["ports"]}
    assert opened == {port["name"] for port in container["ports"]}
    peers = [peer for rule in policy["egress"] for peer in rule.get("to", ())]
    [everywhere] = [peer["ipBlock"] for peer in peers if peer.get("ipBlock", {}).get("cidr") == "0.0.0.0/0"]
    assert everywhere["except"] == ["169.254.0.0/16"]


def test_prometheus_finds_the_figures_of_proxies_at_the_port_that_is_open(
    rendered: list[dict[str, Any]],
) -> None:
    assert "prometheus" in VALUES["litellm"]["litellm_settings"]["callbacks"]
    [proxy] = one(rendered, "Deployment", "demo-proxy")["spec"]["template"]["spec"]["containers"]
    [port] = [str(port["containerPort"]) for port in proxy["ports"] if port["name"] == "metrics"]
    assert proxy["args"][-2:] == ["--prometheus_metrics_port", port]


def test_the_values_that_the_page_shows_are_right(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")
    [shown] = re.findall(r"^```yaml\n(image: .*?)^```", page, re.MULTILINE | re.DOTALL)
    values = tmp_path / "my-values.yaml"
    values.write_text(shown.replace("sha256:...", f"sha256:{'0' * 64}"), encoding="utf-8")
    rendered = render("--values", str(values))
    config = yaml.safe_load(one(rendered, "ConfigMap", "demo")["data"]["storage.yaml"])
    assert config["storage"]["store"]["use"] == "milvus", "maps are merged with the chart's"
    assert config["storage"]["originals"]["bucket"] == "rag"


def test_workers_are_scaled_by_the_queue(rendered: list[dict[str, Any]]) -> None:
    [metric] = one(rendered, "HorizontalPodAutoscaler", "demo-worker")["spec"]["metrics"]
    assert metric["external"]["metric"]["name"] == "collections_queue_documents"
    without = render("--set", "worker.queueMetric=", "--set", "worker.minReplicas=3")
    assert one(without, "Deployment", "demo-worker")["spec"]["replicas"] == 3


def test_a_worker_can_do_without_the_secrets_of_the_proxy() -> None:
    found = render("--set", "worker.secretName=of-the-worker")
    for name, secret in (("proxy", VALUES["secretName"]), ("worker", "of-the-worker")):
        [container] = one(found, "Deployment", f"demo-{name}")["spec"]["template"]["spec"]["containers"]
        assert container["envFrom"] == [{"secretRef": {"name": secret}}]


def test_the_migration_runs_before_an_upgrade_with_the_new_configuration(
    rendered: list[dict[str, Any]],
) -> None:
    for kind in ("ConfigMap", "Job"):
        hook = one(rendered, kind, "demo-migrate")["metadata"]["annotations"]
        assert hook["helm.sh/hook"] == "pre-install,pre-upgrade,pre-rollback"
    job = one(rendered, "Job", "demo-migrate")["spec"]["template"]["spec"]
    assert "serviceAccountName" not in job, "the release's account is not there yet"
    [migration] = job["containers"]
    assert migration["args"][2:] == [
        "plugins",
        "migrate",
        "--config",
        "/etc/litellm/litellm_config.yaml",
    ]  # which checks both first


def test_changed_configuration_starts_pods_anew(rendered: list[dict[str, Any]]) -> None:
    changed = render("--set", "config.chat.chat.max_rounds=3")

    def sums(objects: list[dict[str, Any]]) -> set[str]:
        deployments = [one for one in objects if one["kind"] == "Deployment"]
        found = [one["spec"]["template"]["metadata"]["annotations"] for one in deployments]
        return {annotations["checksum/config"] for annotations in found}

    assert not sums(rendered) & sums(changed)


def test_the_configuration_of_the_values_is_right(rendered: list[dict[str, Any]], tmp_path: Path) -> None:
    files = one(rendered, "ConfigMap", "demo")["data"]
    [volume] = [one for one in pods(rendered)[0]["volumes"] if one["name"] == "config"]
    for item in volume["configMap"]["items"]:
        path = tmp_path / "config" / item["path"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(files[item["key"]], encoding="utf-8")
    (tmp_path / "litellm_config.yaml").write_text(files["litellm_config.yaml"], encoding="utf-8")
    names = ["LITELLM_CLIENT_SECRET", "MILVUS_TOKEN", "S3_ACCESS_KEY_ID", "S3_SECRET_ACCESS_KEY"]
    secret = dict.fromkeys([*names, "REDIS_PASSWORD"], "sk-0123456789abcdef0123456789abcdef")
    secret |= {"LITELLM_MASTER_KEY": "sk-0123456789abcdef0123456789abcdeg"}
    secret |= {"COLLECTIONS_DATABASE_URL": "postgresql://postgres.example.com/collections"}
    own = {"COLLECTIONS_CONFIG": f"{tmp_path}/config", "DATA_DIR": f"{tmp_path}/data", "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "plugins", "check"],
        cwd=tmp_path,
        env={"PATH": os.environ.get("PATH", ""), "PYTHONPATH": str(ROOT), **own, **secret},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr

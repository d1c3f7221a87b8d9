"""The scripts for clusters, with commands in place of Slurm's that say what they were asked."""

import json
import os
import pathlib
import subprocess

import pytest
import yaml

from packnet_tf.apps.commands import compare, train

CLUSTER = pathlib.Path(__file__).parents[2] / "examples" / "cluster"
SAYS = '#!/bin/bash\nprintf "%s\\0" "$TF_CONFIG" "$*"\n'
COMMANDS = {
    "packnet": SAYS,
    "scontrol": '#!/bin/bash\n[ "$*" = "show hostnames n[1-2]" ] && printf "n1\\nn2\\n"\n',
    # Once for every task, as srun does; its first argument is a flag of its own.
    "srun": '#!/bin/bash\nshift\nfor SLURM_PROCID in 0 1; do export SLURM_PROCID; "$@"; done\n',
}


@pytest.fixture
def started(tmp_path):
    for name, text in COMMANDS.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)

    def started(*command, **variables):
        path = f"{tmp_path}:{os.environ['PATH']}"
        out = subprocess.run(
            command, check=True, capture_output=True, text=True, env={"PATH": path, **variables}
        ).stdout
        *parts, last = out.split("\0")
        assert last == ""
        return [
            (json.loads(config), said) for config, said in zip(parts[::2], parts[1::2], strict=True)
        ]

    return started


def expected(hosts, index):
    return {"cluster": {"worker": hosts}, "task": {"type": "worker", "index": index}}


def test_slurm_tells_every_host_which_it_is(started):
    arguments = ["pack.keras", "--task=my birds", "--data=photos/birds"]
    script = str(CLUSTER / "train.sbatch")
    found = started("bash", script, *arguments, SLURM_JOB_NODELIST="n[1-2]")
    said = f"train {' '.join(arguments)} --strategy=multi_worker"
    hosts = ["n1:2222", "n2:2222"]
    assert found == [(expected(hosts, 0), said), (expected(hosts, 1), said)]


def test_kubernetes_tells_every_pod_which_it_is(started):
    service, job = yaml.safe_load_all((CLUSTER / "train_job.yaml").read_text())
    name, pods = job["metadata"]["name"], job["spec"]["completions"]
    pod = job["spec"]["template"]["spec"]
    assert service["spec"]["selector"] == {"job-name": name}
    assert service["metadata"]["name"] == pod["subdomain"]
    assert job["spec"]["parallelism"] == pods
    hosts = [f"{name}-{index}.{pod['subdomain']}:2222" for index in range(pods)]
    (container,) = pod["containers"]
    for index in range(pods):
        command = [*container["command"], *container["args"]]
        ((config, said),) = started(*command, JOB_COMPLETION_INDEX=str(index))
        assert config == expected(hosts, index)
        train.FLAGS(said.split())
    assert said.startswith("train pack.keras --task=birds")


def test_the_pods_of_a_comparison_share_its_runs():
    job = yaml.safe_load((CLUSTER / "compare_job.yaml").read_text())
    (container,) = job["spec"]["template"]["spec"]["containers"]
    packnet, command, *arguments = container["args"]
    assert (packnet, command) == ("packnet", "compare")
    compare.FLAGS([command, *arguments])
    assert compare.FLAGS.output == "runs/compare"
    assert job["spec"]["completions"] == job["spec"]["parallelism"]

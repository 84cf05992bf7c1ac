"""A container's share of the CPUs, read from trees as the kernel shows them."""

import pytest
from graphwright.ir.host.quota import quota


@pytest.fixture
def tree(tmp_path):
    """tree({path: content}) makes the files of a machine and gives its root."""

    def make(files):
        for name, content in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        return tmp_path

    return make


V1 = "4:memory:/a\n1:cpu,cpuacct:/docker/abc\n0::/\n"


@pytest.mark.parametrize(
    ("files", "cpus"),
    [
        pytest.param({}, None, id="no control groups"),
        pytest.param({"proc/self/cgroup": "0::/\n"}, None, id="v2, no limit file"),
        pytest.param(
            {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "150000 100000\n"},
            1.5,
            id="v2, namespace",
        ),
        pytest.param(
            {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, None, id="v2, unlimited"
        ),
        pytest.param(
            {
                "proc/self/cgroup": "0::/pod/app\n",
                "sys/fs/cgroup/pod/app/cpu.max": "400000 100000\n",
                "sys/fs/cgroup/pod/cpu.max": "200000 100000\n",
            },
            2.0,
            id="v2, a parent is tighter",
        ),
        pytest.param(
            {"proc/self/cgroup": "0::/host/path/app\n", "sys/fs/cgroup/cpu.max": "50000 100000\n"},
            0.5,
            id="v2, the host's path",
        ),
        pytest.param(
            {"proc/self/cgroup": "0::/../../other\n", "sys/fs/cgroup/cpu.max": "50000 100000\n"},
            0.5,
            id="v2, a path above the namespace",
        ),
        pytest.param(
            {
                "proc/self/cgroup": V1,
                "sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_quota_us": "300000\n",
                "sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_period_us": "100000\n",
            },
            3.0,
            id="v1",
        ),
        pytest.param(
            {
                "proc/self/cgroup": V1,
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "25000\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "50000\n",
            },
            0.5,
            id="v1 in a container: the mount's top, under its short name",
        ),
        pytest.param(
            {
                "proc/self/cgroup": V1,
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
            },
            None,
            id="v1, unlimited",
        ),
        pytest.param(
            {
                "proc/self/cgroup": V1,
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "100000\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "0\n",
            },
            None,
            id="v1, a period of nothing",
        ),
        pytest.param(
            {"proc/self/cgroup": "1:cpuset:/\n", "sys/fs/cgroup/cpu.max": "100000 100000\n"},
            None,
            id="only groups of other kinds",
        ),
    ],
)
def test_the_tightest_group_counts(tree, files, cpus):
    assert quota(tree(files)) == cpus

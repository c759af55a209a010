"""Tasks on a real Ray: results at once, retries, failures, and no process left behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from search.errors import ExecutionError
from search.execution import ExecutionConfig, Executor, TaskResult
from search.processes import start_time

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(HERE))  # Ray's workers import the tasks by name

import execution_tasks as tasks  # noqa: E402

from tests.search.process_tree import (  # noqa: E402
    LOOPBACK,
    descendants,
    listening_addresses,
)


def collect(executor: Executor, fn, items, **options) -> tuple[list[TaskResult], list[TaskResult]]:
    arrived: list[TaskResult] = []
    ordered = executor.run_tasks(fn, items, on_result=arrived.append, **options)
    return ordered, arrived


@pytest.mark.slow
def test_results_come_in_item_order_and_from_other_processes(executor: Executor) -> None:
    ordered, arrived = collect(executor, tasks.square, list(range(9)))
    assert [result.value[0] for result in ordered] == [n * n for n in range(9)]
    assert [result.item for result in ordered] == list(range(9))
    assert sorted(result.index for result in arrived) == list(range(9)), "each is handed on once"
    assert os.getpid() not in {result.value[1] for result in ordered}


@pytest.mark.alone
def test_a_result_is_handed_on_while_others_still_run(executor: Executor) -> None:
    start = time.monotonic()
    arrivals: list[tuple[float, float]] = []
    executor.run_tasks(
        tasks.sleep_then_name,
        [2.0, 0.0],
        on_result=lambda result: arrivals.append((result.item, time.monotonic() - start)),
    )
    assert [item for item, _ in arrivals] == [0.0, 2.0]
    assert arrivals[0][1] < 1.5


def test_an_exception_fails_its_item_only(executor: Executor) -> None:
    ordered, arrived = collect(executor, tasks.square_unless_three, [1, 3, 5])
    assert [result.value for result in ordered] == [1, None, 25]
    failure = ordered[1].failure
    assert failure is not None
    assert (failure.error, failure.crashed) == ("ValueError", False)
    assert failure.message == "three is not allowed"
    assert "square_unless_three" in failure.trace
    assert len(arrived) == 3


def test_a_killed_worker_is_retried(executor: Executor, tmp_path: Path) -> None:
    ordered, _ = collect(executor, tasks.die_first, [(str(tmp_path), 1)], retries=2)
    assert ordered[0].failure is None
    assert ordered[0].value == 2, "it died once and answered in the second attempt"


def test_an_item_that_kills_every_worker_fails_as_crashed(
    executor: Executor, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "good").mkdir()
    items = [(str(tmp_path / "bad"), 99), (str(tmp_path / "good"), 0)]
    ordered, _ = collect(executor, tasks.die_first, items, retries=1)
    assert ordered[0].failure is not None
    assert ordered[0].failure.crashed
    assert len(list((tmp_path / "bad").iterdir())) == 2, "one attempt and one retry"
    assert ordered[1].value == 1
    time.sleep(1.0)  # Ray tells of a dead worker from a thread
    assert capfd.readouterr() == ("", ""), "a command's output is its own"


def test_an_error_in_on_result_stops_the_run(executor: Executor) -> None:
    class DiskFullError(Exception):
        pass

    def refuse(_result: TaskResult) -> None:
        raise DiskFullError

    start = time.monotonic()
    with pytest.raises(DiskFullError):
        executor.run_tasks(tasks.sleep_then_name, [0.0, 60.0, 60.0], on_result=refuse)
    assert time.monotonic() - start < 20
    # The cancelled tasks give their CPUs back.
    ordered, _ = collect(executor, tasks.square, [2, 3])
    assert [result.value[0] for result in ordered] == [4, 9]


def test_ray_stays_in_the_runtime_folder_and_reports_nothing_home(
    executor: Executor, runtime_dir: Path
) -> None:
    ordered, _ = collect(executor, tasks.session_facts, [0])
    assert ordered[0].value["usage"] == "0"
    assert Path(ordered[0].value["log"]).is_relative_to(runtime_dir)


def test_nothing_of_ray_listens_to_other_hosts(executor: Executor) -> None:
    import ray

    assert ray.get_runtime_context().gcs_address.startswith("127.0.0.1:")
    listening = listening_addresses(descendants(os.getpid()))
    assert listening
    assert [address for address in listening if not address.startswith(LOOPBACK)] == []


def test_a_second_executor_uses_the_running_ray_and_leaves_it(executor: Executor) -> None:
    with Executor(ExecutionConfig(num_cpus=7)) as second:
        ordered, _ = collect(second, tasks.square, [4])
        assert ordered[0].value[0] == 16
    assert collect(executor, tasks.square, [5])[0][0].value[0] == 25


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, check=False, cwd=ROOT, capture_output=True, text=True, timeout=60
    )


JOINING = """
import sys
sys.path.insert(0, sys.argv[1])
import execution_tasks as tasks
from search.execution import ExecutionConfig, Executor

with Executor(ExecutionConfig(address=sys.argv[2])) as executor:
    executor.run_tasks(tasks.square, [6], on_result=lambda result: print(result.value[0]))
"""


def test_another_process_joins_a_running_ray_by_its_address(executor: Executor) -> None:
    import ray

    address = ray.get_runtime_context().gcs_address
    command = [sys.executable, "-c", JOINING, str(HERE), address]
    joined = run(command)
    assert joined.stdout == "36\n", joined.stderr
    assert collect(executor, tasks.square, [7])[0][0].value[0] == 49, "it was left running"


@pytest.mark.parametrize("address", ["no-such-address", "127.0.0.1:{}", "ray://localhost:{}"])
def test_an_unreachable_cluster_is_a_typed_error(runtime_dir: Path, address: str) -> None:
    program = (
        "import sys\n"
        "from search.execution import *\n"
        "from search.errors import ExecutionError\n"
        "try: Executor(ExecutionConfig(address=sys.argv[1])).start()\n"
        "except ExecutionError as error: print('typed:', error)\n"
    )
    with socket.socket() as unanswered:
        # Bound and not listening: nobody else takes the port meanwhile.
        unanswered.bind(("127.0.0.1", 0))
        address = address.format(unanswered.getsockname()[1])
        tried = run([sys.executable, "-c", program, address])
    expected = f"typed: cannot reach the Ray cluster at '{address}': "
    assert tried.stdout.startswith(expected), tried.stderr
    assert "Allowed: auto (a cluster on this host), ray://HOST:PORT" in tried.stdout


STARTING = """
import sys
import ray
from cli.main import app
from search.execution import ExecutionConfig, Executor

def init(*arguments, **options):
    # What Ray itself raises when its raylet found no memory.
    raise Exception("The current node timed out\\n during startup.")

ray.init = init

@app.command()
def start(address: str = None):
    Executor(ExecutionConfig(address=address)).start()

app(prog_name="netcarve")
"""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "Ray does not start on this host: The current node timed out during startup. With"),
        (("--address", "auto"), "cannot reach the Ray cluster at 'auto': The current node timed"),
    ],
)
def test_whatever_ray_raises_at_its_start_is_a_message_of_one_line(
    runtime_dir: Path, arguments: tuple[str, ...], message: str
) -> None:
    before = set(runtime_dir.iterdir())
    tried = run([sys.executable, "-c", STARTING, "start", *arguments])
    assert tried.returncode == 2, tried.stderr
    assert tried.stderr.startswith(f"error: {message}")
    assert tried.stderr.count("\n") == 1
    assert set(runtime_dir.iterdir()) == before


def test_bad_requests_are_typed_errors(executor: Executor) -> None:
    with pytest.raises(ExecutionError, match="takes 64 CPUs, Ray has 2"):
        collect(executor, tasks.square, [1], cpus=64)
    assert executor.run_tasks(tasks.square, [], on_result=lambda _: None) == []


def test_a_long_runtime_folder_is_a_typed_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setenv("NETCARVE_RUNTIME_DIR", str(tmp_path / ("long" * 20)))
    with pytest.raises(ExecutionError, match="NETCARVE_RUNTIME_DIR"):
        Executor().start()


DRIVER = """
import sys
sys.path.insert(0, sys.argv[1])
import execution_tasks as tasks
from search.execution import ExecutionConfig, Executor

with Executor(ExecutionConfig(num_cpus=2)) as executor:
    executor.run_tasks(tasks.hold_with_child, [sys.argv[2]] * 2, on_result=print)
"""


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["kill the parent", "kill the group", "interrupt the group"])
def test_no_process_and_no_file_outlives_the_driver(
    ending: str, runtime_dir: Path, tmp_path: Path
) -> None:
    own_runtime = Path(tempfile.mkdtemp(prefix="k", dir=runtime_dir))
    environment = os.environ | {"PYTHONPATH": str(ROOT), "NETCARVE_RUNTIME_DIR": str(own_runtime)}
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(HERE), str(tmp_path)],
        env=environment,
        start_new_session=True,
        stderr=subprocess.PIPE,
    )
    tree: dict[int, str] = {}
    try:
        deadline = time.monotonic() + 60
        while len(list(tmp_path.iterdir())) < 2:
            assert driver.poll() is None, driver.stderr and driver.stderr.read()
            assert time.monotonic() < deadline, "the workers did not start"
            time.sleep(0.1)
        tree = {pid: start_time(pid) for pid in descendants(driver.pid)}
        named = {int(pid) for path in tmp_path.iterdir() for pid in path.name.split(".")}
        assert named <= set(tree), "the workers and their children are in the tree"
        assert len(tree) >= 8, "Ray's servers are in the tree"
        if ending == "kill the parent":
            driver.kill()
        elif ending == "kill the group":
            os.killpg(driver.pid, signal.SIGKILL)
        else:
            os.killpg(driver.pid, signal.SIGINT)
        driver.wait(timeout=30)
        deadline = time.monotonic() + 12
        while (left := alive(tree)) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not left, f"still there: {left}"
        while list(own_runtime.glob("ray-*")) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not list(own_runtime.glob("ray-*")), "Ray's folder is deleted"
    finally:
        driver.kill()
        for pid in alive(tree):
            os.kill(pid, signal.SIGKILL)


def alive(tree: dict[int, str]) -> dict[int, str]:
    """The processes of a tree that still run, with their command."""
    return {
        pid: (Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()[:120])
        for pid, started in tree.items()
        if started and start_time(pid) == started
    }

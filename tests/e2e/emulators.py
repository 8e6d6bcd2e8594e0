"""Starts other people's AWS in a process of its own: moto's server or MiniStack, both from PyPI."""

import os
import socket
import subprocess
import sys
import sysconfig
import threading
import urllib.error
import urllib.request
from pathlib import Path

from waiting import wait_until

ACCOUNT = "111122223333"
REGION = "eu-central-1"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def base_environment():
    """What every child process gets: nothing of the caller's AWS settings, proxies or TRAILHOUND_* variables."""
    keep = ("PATH", "HOME", "TMPDIR", "LANG", "LD_LIBRARY_PATH", "VIRTUAL_ENV")
    return {name: os.environ[name] for name in keep if name in os.environ} | {
        "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "example-secret-key",
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_EC2_METADATA_DISABLED": "true",
        "NO_PROXY": "*",
    }


class Emulator:
    """A running emulator. Ends only the process that it started."""

    def __init__(self, kind, workdir):
        self.kind = kind
        self.port = free_port()
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self.log = Path(workdir) / f"{kind}.log"
        scripts = Path(sysconfig.get_path("scripts"))
        environment = base_environment()
        if kind == "moto":
            command = [sys.executable, str(Path(__file__).with_name("moto_serial.py")), str(self.port)]
            environment |= {"MOTO_ACCOUNT_ID": ACCOUNT}
        else:
            command = [str(scripts / "ministack")]
            environment |= {
                "BIND_HOST": "127.0.0.1",
                "GATEWAY_PORT": str(self.port),
                "MINISTACK_HOST": "127.0.0.1",
                "MINISTACK_ACCOUNT_ID": ACCOUNT,
                "MINISTACK_REGION": REGION,
                "SERVICES": "s3,sqs,sns,dynamodb,sts",
                "TMPDIR": str(workdir),
                "LOG_LEVEL": "WARNING",
            }
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command, env=environment, cwd=workdir, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        wait_until(self._answers, f"{kind} to answer on {self.endpoint}", seconds=60)

    def _answers(self):
        if self.process.poll() is not None:
            raise RuntimeError(f"{self.kind} ended with {self.process.returncode}:\n{self.log.read_text()[-2000:]}")
        try:
            urllib.request.urlopen(self.endpoint, timeout=2).close()
        except urllib.error.HTTPError:
            return True
        except OSError:
            return False
        return True

    def stop(self):
        self.process.terminate()
        killer = threading.Timer(10, self.process.kill)
        killer.start()
        self.process.wait()
        killer.cancel()

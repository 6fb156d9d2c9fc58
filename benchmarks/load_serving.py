"""Load on `xlgen serve`: many clients with texts of mixed lengths, beside `predict` on the same texts (SERVING.md).

    python benchmarks/load_serving.py --model M [--model M2] --texts test.jsonl [--cpu-threads 1 2] [--kill]

Every answer is compared with that of `predict`, which runs before and after on as many threads as the server. The CPU
time of server and clients is given with the throughput: on few cores the clients take theirs from the server, and on
a busy machine CPU time says more. With --kill the server is killed and started again in the middle.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

import torch

from xlgen_hf.loading import load_predictor

TOLERANCE = 1e-4  # of scores: sums over batches of other texts differ in their last bits


def mixed_texts(path: Path, number: int, seed: int) -> list[str]:
    """Texts of 1 to 40 rows each, most of them short."""
    rows = [json.loads(line)["text"] for line in path.read_text(encoding="utf-8").splitlines()]
    draw = random.Random(seed)
    return [". ".join(draw.choices(rows, k=min(int(draw.paretovariate(0.8)), 40))) for _ in range(number)]


class Server:
    """`xlgen serve` in a process of its own, at one port whatever happens to it."""

    def __init__(self, model: str, options: list[str]) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.command = [
            sys.executable,
            "-m",
            "xlgen_hf",
            "serve",
            "--model",
            model,
            "--port",
            str(self.port),
            *options,
        ]
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(self.command, stderr=subprocess.DEVNULL)
        while True:
            try:
                ask(http.client.HTTPConnection("127.0.0.1", self.port, timeout=60), "GET", "/health")
                return
            except OSError:
                assert self.process.poll() is None, "the server ended"
                time.sleep(0.1)

    def memory(self) -> float:
        """Resident memory in MB; 0 while there is no process."""
        try:
            status = Path(f"/proc/{self.process.pid}/status").read_text()
        except OSError:
            return 0.0
        lines = [line for line in status.splitlines() if line.startswith("VmRSS")]
        return int(lines[0].split()[1]) / 1000 if lines else 0.0

    def cpu_seconds(self) -> float:
        """CPU time of the process so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def ask(connection: http.client.HTTPConnection, method: str, path: str, body: object = None):
    content = None if body is None else json.dumps(body)
    connection.request(method, path, content, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read())


class Clients:
    """Threads that each ask for one text after the other."""

    def __init__(self, port: int, texts: list[str], expected: list, number: int, seconds: float) -> None:
        self.port, self.texts, self.expected = port, texts, expected
        self.end = time.monotonic() + seconds
        self.times: list[float] = []
        self.statuses: dict[str, int] = {}
        self.wrong = 0
        self.threads = [threading.Thread(target=self.run, args=(seed,)) for seed in range(number)]
        for thread in self.threads:
            thread.start()

    def run(self, seed: int) -> None:
        draw = random.Random(seed)
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        while time.monotonic() < self.end:
            number, begin = draw.randrange(len(self.texts)), time.monotonic()
            try:
                status, answer = ask(connection, "POST", "/v1/predict", {"text": self.texts[number]})
            except (OSError, http.client.HTTPException):
                self.count("cut")
                connection.close()
                time.sleep(0.2)
                continue
            self.count(str(status))
            if status == 200:
                self.times.append(time.monotonic() - begin)
                self.wrong += not same(answer["predictions"][0], self.expected[number])
        connection.close()

    def count(self, status: str) -> None:
        self.statuses[status] = self.statuses.get(status, 0) + 1


def same(found: dict, expected) -> bool:
    ours = dict(zip(expected.labels, expected.scores, strict=True))
    theirs = dict(zip(found["labels"], found["scores"], strict=True))
    return ours.keys() == theirs.keys() and all(abs(ours[label] - theirs[label]) < TOLERANCE for label in ours)


class Clock:
    """Wall time and CPU time of this process, since it was made."""

    def __init__(self) -> None:
        self.begin, self.begin_cpu = time.monotonic(), time.process_time()

    def read(self) -> tuple[float, float]:
        return time.monotonic() - self.begin, time.process_time() - self.begin_cpu


def measure(model: str, threads: int | None, arguments: argparse.Namespace) -> dict[str, object]:
    texts = mixed_texts(arguments.texts, arguments.distinct, seed=0)
    if threads is not None:
        torch.set_num_threads(threads)
    predictor = load_predictor(model)
    expected, alone = predictor.predict(texts), []
    alone.append(timed(predictor, texts))
    options = arguments.serve_option if threads is None else [*arguments.serve_option, f"--cpu-threads={threads}"]
    server = Server(model, options)
    clock, of_server, memory = Clock(), server.cpu_seconds(), [server.memory()]
    clients = Clients(server.port, texts, expected, arguments.clients, arguments.seconds)
    killed = not arguments.kill
    while any(thread.is_alive() for thread in clients.threads):
        time.sleep(0.5)
        memory.append(server.memory())
        if not killed and clock.read()[0] > arguments.seconds / 2:
            server.process.send_signal(signal.SIGKILL)
            server.process.wait()
            server.start()
            killed = True
    (seconds, of_clients), of_server = clock.read(), server.cpu_seconds() - of_server
    server.process.send_signal(signal.SIGTERM)
    code = server.process.wait()
    alone.append(timed(predictor, texts))
    cuts, answers = statistics.quantiles(clients.times, n=100), len(clients.times)
    served, predicted = answers / seconds, len(texts) / statistics.mean(wall for wall, _ in alone)
    cpu = {
        "predict": 1000 * statistics.mean(cpu for _, cpu in alone) / len(texts),
        "serve": None if arguments.kill else 1000 * of_server / answers,  # the first server's is lost
        "clients": 1000 * of_clients / answers,
    }
    return {
        "model": model, "threads": torch.get_num_threads(), "cores": os.cpu_count(),
        "texts": len(texts),
        "characters": {"median": statistics.median(map(len, texts)), "most": max(map(len, texts))},
        "clients": arguments.clients, "seconds": seconds, "load_average": os.getloadavg()[0],
        "answers": clients.statuses, "wrong": clients.wrong, "exit_code": code,
        "milliseconds": {name: 1000 * cuts[at] for name, at in (("p50", 49), ("p95", 94), ("p99", 98))},
        "texts_per_second": {"predict": predicted, "serve": served, "ratio": served / predicted},
        "cpu_milliseconds_per_text": {**cpu, "ratio": cpu["serve"] and cpu["predict"] / cpu["serve"]},
        "memory_mb": {"start": memory[0], "most": max(memory)},
    }  # fmt: skip


def timed(predictor, texts: list[str]) -> tuple[float, float]:
    """Wall time and CPU time that `predict` takes."""
    clock = Clock()
    predictor.predict(texts)
    return clock.read()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", required=True, help="once or more")
    parser.add_argument("--texts", type=Path, required=True, help="JSON Lines with `text`")
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--distinct", type=int, default=512, help="different texts")
    parser.add_argument("--cpu-threads", type=int, nargs="+", default=[None], help="of predict and server")
    parser.add_argument("--kill", action="store_true", help="kill the server in the middle, and start it again")
    parser.add_argument("--serve-option", action="append", default=[], help="an option of `xlgen serve`, as --a=b")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    figures = []
    for model in arguments.model:
        for threads in arguments.cpu_threads:
            figures.append(measure(model, threads, arguments))
            print(json.dumps(figures[-1], indent=2), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()

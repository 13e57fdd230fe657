"""A server that speaks vLLM's API as its source has it (v0.26), with a real Llama and real LoRA adapters behind it.

What is checked here and not by a stub: bodies of the right types, no unknown keys, adapters that vLLM would refuse
(modules_to_save, too high a rank, a name that is taken), a window, errors in vLLM's own words and form.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig, PeftModel

KNOWN = {
    "model": str,
    "prompt": list,
    "max_tokens": int,
    "temperature": float,
    "seed": int,
    "stop_token_ids": list,
    "ignore_eos": bool,
    "top_p": float,
    "top_k": int,
    "min_p": float,
    "repetition_penalty": float,
    "presence_penalty": float,
    "frequency_penalty": float,
    "logprobs": int,
    "return_token_ids": bool,
}
DEFAULTS = {"temperature": 0.6, "top_p": 0.9}
"""What a Llama's generation_config.json makes of a request that leaves them out."""


class Refused(Exception):
    """An error as vLLM answers it."""

    def __init__(self, status: int, kind: str, message: str) -> None:
        super().__init__(message)
        self.body = {"error": {"message": message, "type": kind, "param": None, "code": status}}
        self.status = status


class ContractServer:
    """One base, any number of adapters.

    Attributes:
        asked: (method, path, body) of every request that was understood.
        failing: statuses that the next requests get instead of an answer; 0 closes the connection, -1 never answers.
        lost: (method, path) of requests that are carried out once and whose answer is lost.
        noise: added to the log-probabilities, as other kernels would: nats, drawn evenly from ±noise.
    """

    def __init__(self, base: Any, *, window: int = 512, max_lora_rank: int = 16, runtime_lora: bool = True) -> None:
        self.model = base.eval()
        self.window = window
        self.max_lora_rank = max_lora_rank
        self.runtime_lora = runtime_lora
        self.key = ""
        self.loaded: dict[str, str] = {}
        self.asked: list[tuple[str, str, dict[str, Any]]] = []
        self.failing: list[int] = []
        self.lost: list[tuple[str, str]] = []
        self.noise = 0.0
        self.knows_token_ids = True
        self.released = threading.Event()
        self._lock = threading.Lock()

    def answer(self, method: str, path: str, body: dict[str, Any], key: str | None) -> Any:
        if self.key and key != f"Bearer {self.key}":
            raise Refused(401, "Unauthorized", "Unauthorized")
        self.asked.append((method, path, body))
        if (method, path) == ("GET", "/v1/models"):
            cards: list[dict[str, Any]] = [{"id": "base", "root": "/base", "max_model_len": self.window}]
            cards += [{"id": name, "root": place, "parent": "base"} for name, place in self.loaded.items()]
            return {"object": "list", "data": cards}
        if method == "POST" and path == "/v1/completions":
            return self._complete(body)
        if method == "POST" and path.endswith("load_lora_adapter") and self.runtime_lora:
            with self._lock:
                return self._load(**body) if "/load" in path else self._unload(**body)
        raise Refused(404, "NotFoundError", "Not Found")

    def _load(self, lora_name: str, lora_path: str) -> str:
        if lora_name in self.loaded:
            raise Refused(
                400, "InvalidUserInput", f"The lora adapter '{lora_name}' has already been loaded. If you want to load"
            )
        if not (Path(lora_path) / "adapter_config.json").exists():
            raise Refused(404, "NotFoundError", f"Loading lora {lora_name} failed: No adapter found for {lora_path}")
        config = PeftConfig.from_pretrained(lora_path)
        if config.modules_to_save:
            raise Refused(500, "InternalServerError", "vLLM only supports modules_to_save being None.")
        if config.r > self.max_lora_rank:
            raise Refused(
                500,
                "InternalServerError",
                f"LoRA rank {config.r} is greater than max_lora_rank {self.max_lora_rank}.",
            )
        if isinstance(self.model, PeftModel):
            self.model.load_adapter(lora_path, lora_name.replace(".", "_"))
        else:
            self.model = PeftModel.from_pretrained(self.model, lora_path, lora_name.replace(".", "_"))
        self.model.eval()
        self.loaded[lora_name] = lora_path
        return f"Success: LoRA adapter '{lora_name}' added successfully."

    def _unload(self, lora_name: str) -> str:
        if lora_name not in self.loaded:
            raise Refused(404, "NotFoundError", f"The lora adapter '{lora_name}' cannot be found.")
        del self.loaded[lora_name]
        return f"Success: LoRA adapter '{lora_name}' removed successfully."

    def _complete(self, body: dict[str, Any]) -> dict[str, Any]:
        for name, value in body.items():
            wanted = KNOWN.get(name)
            if wanted is None or not isinstance(value, wanted if wanted is not float else (int, float)):
                raise Refused(400, "BadRequestError", f"{name}: {value!r} is not what vLLM takes")
        if body["model"] not in self.loaded:
            raise Refused(404, "NotFoundError", f"The model `{body['model']}` does not exist.")
        ids, count = body["prompt"], body["max_tokens"]
        if count < 1:
            raise Refused(400, "BadRequestError", f"max_tokens must be at least 1, got {count}.")
        if len(ids) + count > self.window:
            raise Refused(
                400,
                "BadRequestError",
                f"This model's maximum context length is {self.window} tokens. However, you requested {count} output "
                f"tokens and your prompt contains {len(ids)} input tokens.",
            )
        with self._lock:
            tokens, log_probs = self._write(body, ids, count)
        choice: dict[str, Any] = {
            "index": 0,
            "text": "",
            "logprobs": {"token_logprobs": log_probs, "tokens": [], "top_logprobs": [], "text_offset": []},
            "finish_reason": "stop" if tokens[-1] in body["stop_token_ids"] else "length",
        }
        if body.get("return_token_ids") and self.knows_token_ids:
            choice |= {"token_ids": tokens, "prompt_token_ids": ids}
        return {"id": "cmpl-1", "object": "text_completion", "model": body["model"], "choices": [choice]}

    def _write(self, body: dict[str, Any], ids: list[int], count: int) -> tuple[list[int], list[float]]:
        self.model.set_adapter(body["model"].replace(".", "_"))
        draw = torch.Generator().manual_seed(body["seed"])
        temperature = body.get("temperature", DEFAULTS["temperature"])
        assert body.get("top_p", DEFAULTS["top_p"]) == 1.0, "the distribution would be cut"
        written: list[int] = []
        log_probs: list[float] = []
        while len(written) < count:
            with torch.inference_mode():
                logits = self.model(input_ids=torch.tensor([ids + written])).logits[0, -1].float()
            seen = torch.log_softmax(logits / (temperature or 1.0), -1)
            token = int(logits.argmax() if not temperature else torch.multinomial(seen.exp(), 1, generator=draw))
            written.append(token)
            log_probs.append(float(seen[token] + self.noise * (2 * torch.rand((), generator=draw) - 1)))
            if token in body["stop_token_ids"]:
                break
        return written, log_probs


@contextmanager
def listening(server: ContractServer) -> Iterator[str]:
    """The server's URL while it listens on loopback."""

    class Handler(BaseHTTPRequestHandler):
        def _reply(self, method: str) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else {}
            status, said = 200, None
            if server.failing:
                status = server.failing.pop(0)
                if status <= 0:
                    if status < 0:
                        server.released.wait(20)
                    self.close_connection = True
                    return
                said = {"error": {"message": "the engine is busy", "type": "x", "param": None, "code": status}}
            else:
                try:
                    said = server.answer(method, self.path, body, self.headers.get("Authorization"))
                except Refused as refused:
                    status, said = refused.status, refused.body
                if (method, self.path) in server.lost:
                    server.lost.remove((method, self.path))
                    self.close_connection = True
                    return
            content = (said if isinstance(said, str) else json.dumps(said)).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def do_GET(self) -> None:
            self._reply("GET")

        def do_POST(self) -> None:
            self._reply("POST")

        def log_message(self, *_: Any) -> None:
            pass

    class Listener(ThreadingHTTPServer):
        request_queue_size = 128

    listener = Listener(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=listener.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.server_address[1]}"
    finally:
        server.released.set()
        listener.shutdown()
        listener.server_close()
        thread.join()

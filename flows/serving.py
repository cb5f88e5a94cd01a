"""`espalier serve`: a model behind OpenAI's interface on loopback, until Ctrl-C or a service manager's stop."""

import argparse
import signal
from contextlib import closing, suppress
from pathlib import Path

from flows.answer_words import controller_of
from flows.terminal import say


def run_serve(arguments: argparse.Namespace) -> int:
    """Exit code 0 after a graceful stop."""
    from tasks.train_controller.serve import LOOPBACK, Service, listen

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a service manager's stop is a Ctrl-C
    with suppress(KeyboardInterrupt), closing(listen(arguments.port)) as listening:  # before a model is loaded for it
        controller, name = controller_of(arguments), name_of(arguments.model)
        service = Service(controller, name, queue=arguments.queue, most_tokens=arguments.max_tokens)
        address = f"http://{LOOPBACK}:{listening.getsockname()[1]}"
        ready = f"{name} answers at {address}/v1, its counts are at {address}/metrics; Ctrl-C stops it"
        service.run(listening, lambda: say(ready))  # uvicorn raises the signal again once all is answered
    say("stopped")
    return 0


def name_of(model: str) -> str:
    """What clients call the model: the last part of its folder or of its name on the hub."""
    folder = Path(model).expanduser()
    return folder.resolve().name if folder.exists() else folder.name

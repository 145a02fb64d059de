"""What a first run says: that it compiles kernels, how many, and where they are kept. Later runs find them there.

On a terminal that is a live line, elsewhere two lines on standard error: standard output is the same for every run.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from numba.core.event import Event, Listener, install_listener
from rich.console import Console
from rich.errors import LiveError
from rich.live import Live
from rich.text import Text

WORTH = 1.0  # seconds of compilation from which on it is worth a word
QUIET = 1.0  # seconds without compilation after which it is over


class Compilation(Listener):
    """Told by Numba of every function that it compiles: one thread at a time, callees within their callers."""

    def __init__(self, console: Console) -> None:
        self.console, self.lock = console, threading.RLock()
        self.running: list[str] = []  # modules of the functions that are being compiled, callees after callers
        self.timer: threading.Timer | None = None
        self._reset()

    def _reset(self) -> None:
        self.began = self.ended = 0.0
        self.done, self.said = 0, False
        self.live: Live | None = None

    @property
    def _ours(self) -> bool:
        """Whether it is for a kernel of this project, and not for one of a user's."""
        return self.running[0].startswith("minifcn.kernels.")

    def on_start(self, event: Event) -> None:
        with self.lock:
            self.running.append(event.data["dispatcher"].py_func.__module__)
            if not self._ours:
                return
            if self.timer is not None:
                self.timer.cancel()
            if not self.began:
                self.began = time.perf_counter()
            self._say()

    def on_end(self, event: Event) -> None:
        with self.lock:
            ours = self._ours
            self.running.pop()
            if not ours:
                return
            self.ended = time.perf_counter()
            self._say()
            if not self.running:
                self.done += 1
                self.timer = threading.Timer(QUIET, self.finish)
                self.timer.daemon = True
                self.timer.start()

    def _say(self) -> None:
        """Announce it, once it takes so long that one wonders."""
        if self.said or time.perf_counter() - self.began < WORTH:
            return
        self.said = True
        if not self.console.is_terminal:
            print("compiling kernels for this processor, once", file=sys.stderr, flush=True)
            return
        self.live = Live(get_renderable=self._line, console=self.console, transient=True)
        try:
            self.live.start()
        except LiveError:  # before Rich 14.1 a console has room for one live display, and a progress bar has it
            self.live = None
            self.console.print("compiling kernels for this processor, once")

    def _line(self) -> Text:
        running = self.running[:1]  # another thread may end it now
        what = f" ({running[0].rpartition('.')[2]} ...)" if running else ""
        seconds = time.perf_counter() - self.began
        return Text(f"compiling kernels for this processor, once: {self.done} done{what}, {seconds:.0f} s")

    def finish(self) -> None:
        """Say what was done, if it was announced."""
        with self.lock:
            if self.running:
                return
            if self.live is not None:
                self.live.stop()
            if self.said:
                from ..kernels.cpu.cache import FOLDER

                text = f"compiled {self.done} kernels in {self.ended - self.began:.0f} s; they are kept in {FOLDER}"
                if self.console.is_terminal:
                    self.console.print(text, soft_wrap=True, markup=False, highlight=False)
                else:
                    print(text, file=sys.stderr, flush=True)
            self._reset()


@contextmanager
def told(console: Console) -> Iterator[None]:
    """Say so on `console` while kernels are compiled."""
    compilation = Compilation(console)
    with install_listener("numba:compile", compilation):
        try:
            yield
        finally:
            compilation.finish()

"""The local stand-in for a provider: a loopback HTTP server that answers as the real service does, without a model.

It is an independent witness of the rest of batchctl: it shares no code with it but the error tree, keeps its own books
of what it was asked and what it would have billed, and can be told to fail in scripted ways. Importing this package
loads no HTTP server; `Emulator.start` does.
"""

from batchctl.emulator.faults import CallFault
from batchctl.emulator.lifecycle import Emulator, serve
from batchctl.emulator.settings import ADDRESSES, Settings
from batchctl.emulator.witness import billed_rows, read_witness, requests_seen

__all__ = ["ADDRESSES", "CallFault", "Emulator", "Settings", "billed_rows", "read_witness", "requests_seen", "serve"]

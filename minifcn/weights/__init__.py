"""Other frameworks' weights: read (`formats`), called by our names (`naming`), moved into a network (`surgery`)."""

from .conversion import Conversion, convert
from .formats import Convention, Source, read
from .surgery import Entry

__all__ = ["Convention", "Conversion", "Entry", "Source", "convert", "read"]

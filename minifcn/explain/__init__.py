"""Every op explained: its derivation, and a tiny example worked in numbers, term by term.

    from minifcn.explain import EXAMPLES, derivation, work

    derivation("conv2d").sections["Backward"]       # from the docstring of minifcn/ops/conv2d.py
    worked = work(EXAMPLES["conv2d"], "cpu")        # by hand, by the kernel, by finite differences
    worked.agrees

`terms` holds what a sum of products is and how its gradient is collected, `examples` the numbers, `worked` the
comparison, `formulas` and `drawing` turn formulas and windows into MathML and SVG, and `page` puts all on one page.
"""

from .derivation import Derivation, derivation
from .examples import EXAMPLES
from .page import page
from .worked import Worked, work

__all__ = ["EXAMPLES", "Derivation", "Worked", "derivation", "page", "work"]

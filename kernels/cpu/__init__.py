"""Numba kernels: the reference's functions, compiled, parallel over pixels or channels, channels last in memory.

`layout` brings arrays into and out of channels-last order, `ladder` chooses how a convolution is computed, and
`threads` hands out jobs, whose outputs are disjoint and whose number depends on the problem alone, so that the result
does not depend on the number of threads. Outputs come from the pool of `memory`, compiled code from the folder that
`cache` names.
"""

from .cache import own_cache

with own_cache():
    from .conv2d import (
        conv2d_backward_bias,
        conv2d_backward_input,
        conv2d_backward_weight,
        conv2d_forward,
        conv2d_relu_backward,
        conv2d_relu_forward,
        conv2d_relu_max_pool2d_backward,
        conv2d_relu_max_pool2d_forward,
    )
    from .crop import crop_backward_input, crop_forward, crop_sum_forward
    from .cross_entropy import cross_entropy_backward_input, cross_entropy_forward
    from .dropout import dropout_backward_input, dropout_forward
    from .elementwise import accumulate as accumulate
    from .elementwise import add_forward, relu_backward_input, relu_forward, scale_forward
    from .graph import capture as capture
    from .lrn import lrn_backward_input, lrn_forward
    from .optimizers import adam_step, adam_steps, sgd_step, sgd_steps
    from .pool2d import (
        avg_pool2d_backward_input,
        avg_pool2d_forward,
        max_pool2d_backward_input,
        max_pool2d_forward,
    )
    from .upsample import bilinear_upsample_backward_input, bilinear_upsample_forward
    from .upsample_cross_entropy import (
        upsample_argmax,
        upsample_cross_entropy_backward_input,
        upsample_cross_entropy_forward,
    )

together = {"adam_step": adam_steps, "sgd_step": sgd_steps}  # one launch for many calls of a kernel

__all__ = [
    "adam_step",
    "add_forward",
    "avg_pool2d_backward_input",
    "avg_pool2d_forward",
    "bilinear_upsample_backward_input",
    "bilinear_upsample_forward",
    "conv2d_backward_bias",
    "conv2d_backward_input",
    "conv2d_backward_weight",
    "conv2d_forward",
    "conv2d_relu_backward",
    "conv2d_relu_forward",
    "conv2d_relu_max_pool2d_backward",
    "conv2d_relu_max_pool2d_forward",
    "crop_backward_input",
    "crop_forward",
    "crop_sum_forward",
    "cross_entropy_backward_input",
    "cross_entropy_forward",
    "dropout_backward_input",
    "dropout_forward",
    "lrn_backward_input",
    "lrn_forward",
    "max_pool2d_backward_input",
    "max_pool2d_forward",
    "relu_backward_input",
    "relu_forward",
    "scale_forward",
    "sgd_step",
    "upsample_argmax",
    "upsample_cross_entropy_backward_input",
    "upsample_cross_entropy_forward",
]

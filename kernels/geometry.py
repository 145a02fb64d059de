"""Where every window starts and how large every output is: the only place these are computed.

Sizes follow Caffe (Jia et al., 2014, "Caffe: Convolutional Architecture for Fast Feature Embedding") and
PyTorch, which agree wherever both define them:

    convolution             P = floor((H + 2 pad - dilation (R - 1) - 1) / stride) + 1
    transposed convolution  P = stride (H - 1) + dilation (R - 1) + 1 - 2 pad + output_padding
    pooling                 P as for the convolution, or with ceil for floor; then the last window is dropped
                            if it would start beyond the image and its leading padding

The coordinate map says which input coordinate an output pixel sees. A layer with window R, stride s, padding p
and dilation d looks, at its output u, at the window centred on x = s u - p + d (R - 1) / 2, so

    u = x / s + (p - d (R - 1) / 2) / s        convolution, pooling
    u = s x + d (R - 1) / 2 - p                transposed convolution (the inverse relation)

Two feature maps are aligned when one is cropped by the difference of their maps (Long, Shelhamer and Darrell,
2015, section 3, and the `coord_map` of the code they released). The maps are kept as exact rationals.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from .checks import ShapeError, expect_rank4, expect_shape

Pair = tuple[int, int]


def pair(value: int | tuple[int, int], name: str, least: int = 0) -> Pair:
    """`value` for both axes as (vertical, horizontal), each an integer >= `least`."""
    if type(value) is tuple and len(value) == 2 and type(value[0]) is type(value[1]) is int and min(value) >= least:
        return value  # as most are: every call of a kernel asks three times
    both = (value, value) if not isinstance(value, (tuple, list)) else tuple(value)
    if len(both) != 2:
        raise ShapeError(f"{name} (={value}) must be an integer or a pair of integers")
    for one in both:
        if isinstance(one, bool) or not hasattr(one, "__index__"):
            raise ShapeError(f"{name} (={value}) must be an integer or a pair of integers")
        if one < least:
            raise ShapeError(f"{name} (={value}) must be at least {least}")
    return (int(both[0]), int(both[1]))


# --- output sizes ------------------------------------------------------------------------------------------


def conv_size(size: int, window: int, stride: int, padding: int, dilation: int) -> int:
    """Output size of a convolution along one axis."""
    return _fitting((size + 2 * padding - dilation * (window - 1) - 1) // stride + 1, size, window, padding, dilation)


def _fitting(out: int, size: int, window: int, padding: int, dilation: int) -> int:
    """`out`, unless it says that not even one window fits."""
    if out < 1:
        raise ShapeError(
            f"window (={window}, dilation {dilation}, extent {dilation * (window - 1) + 1}) must fit into the padded "
            f"input (={size} + 2*{padding})"
        )
    return out


def conv_transpose_size(size: int, window: int, stride: int, padding: int, dilation: int, output_padding: int) -> int:
    """Output size of a transposed convolution along one axis."""
    if output_padding >= stride:  # else the convolution that this is the adjoint of would have a larger output
        raise ShapeError(f"output_padding (={output_padding}) must be smaller than stride (={stride})")
    out = stride * (size - 1) + dilation * (window - 1) + 1 - 2 * padding + output_padding
    if out < 1:
        raise ShapeError(f"padding (={padding}) leaves nothing of the transposed convolution's output (size {out})")
    return out


def pool_size(size: int, window: int, stride: int, padding: int, dilation: int, ceil_mode: bool) -> int:
    """Output size of a pooling along one axis; each of its windows holds at least one real element."""
    if padding >= window:
        raise ShapeError(f"padding (={padding}) must be smaller than kernel_size (={window})")
    whole, remainder = divmod(size + 2 * padding - dilation * (window - 1) - 1, stride)
    out = whole + 1
    # Caffe drops a window that starts in the trailing padding. With no padding it would keep an empty one.
    if ceil_mode and remainder and out * stride < size + padding:
        out += 1  # it may be the only one, larger than the image
    _fitting(out, size, window, padding, dilation)
    if dilation > 1:  # else every window reaches the image, because padding < window
        for u in range(out):
            start = u * stride - padding
            if not any(0 <= start + dilation * r < size for r in range(window)):
                raise ShapeError(
                    f"window {u} (start {start}, kernel_size {window}, dilation {dilation}) holds no element of "
                    f"the input (={size})"
                )
    return out


def upsample_size(size: int, factor: int, padding: int) -> int:
    """Output size of bilinear upsampling along one axis (a transposed convolution with its filter)."""
    return conv_transpose_size(size, bilinear_window(factor), factor, padding, 1, 0)


def bilinear_window(factor: int) -> int:
    """Length of the bilinear filter that upsamples by `factor`: 2 F - F mod 2 (Caffe's BilinearFiller)."""
    return 2 * factor - factor % 2


def bilinear_padding(factor: int) -> int:
    """Padding with which upsampling by F turns n pixels into exactly F n: ceil((F - 1) / 2)."""
    return factor // 2


def bilinear_filter(window: int) -> list[float]:
    """The 1-D bilinear filter w[i] = 1 - |i - c| / f with f = ceil(window / 2) and c its centre.

    The centre is f - 1 for odd windows and f - 1/2 for even ones (Caffe's BilinearFiller).
    """
    f = (window + 1) // 2
    centre = f - 1 if window % 2 else f - 0.5
    return [1 - abs(i - centre) / f for i in range(window)]


def bilinear_matrix(size: int, out: int, factor: int, padding: int, window: int) -> list[list[float]]:
    """U [out, size]: U[p][i] = f[p + padding - factor i] for the filter f of `window`, 0 where it does not reach."""
    taps, matrix = bilinear_filter(window), [[0.0] * size for _ in range(out)]
    for i in range(size):
        for t, tap in enumerate(taps):
            p = factor * i + t - padding
            if 0 <= p < out:
                matrix[p][i] = tap
    return matrix


def bilinear_reach(size: int, out: int, factor: int, shift: int) -> list[tuple[int, float, float]]:
    """(k, a, b) for each of `out` pixels of a line upsampled by `factor`, from pixel `shift` of the full line on.

    The full line is the one without padding. Pixel u of the output is a x[k - 1] + b x[k] with k = floor((u + shift) /
    factor); a or b is 0 where x, of `size` pixels, has none or the filter ends before it, and never are both.
    """
    taps = [*bilinear_filter(bilinear_window(factor)), 0.0]
    reach = []
    for u in range(out):
        k, r = divmod(u + shift, factor)
        reach.append((k, taps[r + factor] if k > 0 else 0.0, taps[r] if k < size else 0.0))
    return reach


# --- what an output depends on -----------------------------------------------------------------------------


def conv_reach(first: int, last: int, window: int, stride: int = 1, padding: int = 0, dilation: int = 1) -> Pair:
    """(first, last) pixel that the outputs first..last of a convolution or pooling look at, padding included.

    Output u looks at u stride - padding + r dilation, r = 0..window - 1.
    """
    return first * stride - padding, last * stride - padding + dilation * (window - 1)


def conv_transpose_reach(
    first: int, last: int, window: int, stride: int = 1, padding: int = 0, dilation: int = 1
) -> Pair:
    """(first, last) pixel that the outputs first..last of a transposed convolution are made from.

    Pixel i is added to the outputs i stride - padding + r dilation, r = 0..window - 1.
    """
    return -((dilation * (window - 1) - padding - first) // stride), (last + padding) // stride


# --- whole ops ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Conv2dGeometry:
    """All sizes of one convolution; `C` and `K` count all groups, (R, S) is the window."""

    N: int
    C: int
    H: int
    W: int
    K: int
    R: int
    S: int
    P: int
    Q: int
    stride: Pair
    padding: Pair
    dilation: Pair
    groups: int

    @property
    def x_shape(self) -> tuple[int, int, int, int]:
        return (self.N, self.C, self.H, self.W)

    @property
    def w_shape(self) -> tuple[int, int, int, int]:
        return (self.K, self.C // self.groups, self.R, self.S)

    @property
    def y_shape(self) -> tuple[int, int, int, int]:
        return (self.N, self.K, self.P, self.Q)


def conv2d(x_shape, w_shape, stride=1, padding=0, dilation=1, groups: int = 1) -> Conv2dGeometry:
    """Geometry of a convolution of x [N, C, H, W] with w [K, C/groups, R, S]."""
    expect_rank4("x", x_shape)
    expect_rank4("weight", w_shape)
    stride, padding, dilation = (
        pair(stride, "stride", 1),
        pair(padding, "padding"),
        pair(dilation, "dilation", 1),
    )
    return _conv2d(tuple(x_shape), tuple(w_shape), stride, padding, dilation, groups)


@lru_cache(maxsize=1024)  # the layers of some networks: a kernel may take no longer than this did
def _conv2d(x_shape, w_shape, stride: Pair, padding: Pair, dilation: Pair, groups: int) -> Conv2dGeometry:
    """The same of what is a pair already."""
    N, C, H, W = x_shape
    K, channels, R, S = w_shape
    if groups < 1 or C % groups or K % groups:
        raise ShapeError(f"groups (={groups}) must divide the input channels (={C}) and output channels (={K})")
    if channels != C // groups:
        raise ShapeError(
            f"weight has {channels} input channels a group, but x has {C} channels in {groups} group(s), "
            f"that is {C // groups} a group"
        )
    if R < 1 or S < 1:
        raise ShapeError(f"window (={R}x{S}) must be at least 1x1")
    P = conv_size(H, R, stride[0], padding[0], dilation[0])
    Q = conv_size(W, S, stride[1], padding[1], dilation[1])
    return Conv2dGeometry(N, C, H, W, K, R, S, P, Q, stride, padding, dilation, groups)


def conv2d_backward_input(dy_shape, w_shape, input_size, *window) -> Conv2dGeometry:
    """Geometry of the convolution with w that gave dy [N, K, P, Q] from an input of `input_size` = (H, W)."""
    expect_rank4("dy", dy_shape)
    expect_rank4("weight", w_shape)
    groups = window[3]
    geo = conv2d((dy_shape[0], w_shape[1] * groups, *input_size), w_shape, *window)
    expect_shape("dy", dy_shape, geo.y_shape)
    return geo


def conv2d_backward_weight(dy_shape, x_shape, size, *window) -> Conv2dGeometry:
    """Geometry of the convolution with a window of `size` = (R, S) that gave dy [N, K, P, Q] from x [N, C, H, W]."""
    expect_rank4("dy", dy_shape)
    expect_rank4("x", x_shape)
    groups = window[3]
    if groups < 1:
        raise ShapeError(f"groups (={groups}) must be at least 1")
    geo = conv2d(x_shape, (dy_shape[1], x_shape[1] // groups, *pair(size, "window", 1)), *window)
    expect_shape("dy", dy_shape, geo.y_shape)
    return geo


def conv_transpose2d(x_shape, w_shape, stride=1, padding=0, dilation=1, groups: int = 1, output_padding=0) -> Pair:
    """Output size (P, Q) of the transposed convolution of x [N, C, H, W] with w [C, K/groups, R, S]."""
    expect_rank4("x", x_shape)
    expect_rank4("weight", w_shape)
    stride, padding, dilation = pair(stride, "stride", 1), pair(padding, "padding"), pair(dilation, "dilation", 1)
    output_padding = pair(output_padding, "output_padding")
    if w_shape[0] != x_shape[1]:
        raise ShapeError(f"weight has {w_shape[0]} input channels, but x has {x_shape[1]} channels")
    P, Q = (
        conv_transpose_size(
            x_shape[2 + axis], w_shape[2 + axis], stride[axis], padding[axis], dilation[axis], output_padding[axis]
        )
        for axis in (0, 1)
    )
    return (P, Q)


@dataclass(frozen=True)
class Pool2dGeometry:
    """All sizes of one pooling; (R, S) is the window."""

    N: int
    C: int
    H: int
    W: int
    R: int
    S: int
    P: int
    Q: int
    stride: Pair
    padding: Pair
    dilation: Pair

    @property
    def x_shape(self) -> tuple[int, int, int, int]:
        return (self.N, self.C, self.H, self.W)

    @property
    def y_shape(self) -> tuple[int, int, int, int]:
        return (self.N, self.C, self.P, self.Q)


def pool2d(x_shape, window, stride=None, padding=0, dilation=1, ceil_mode: bool = False) -> Pool2dGeometry:
    """Geometry of a pooling of x [N, C, H, W]; `stride` None means the window."""
    expect_rank4("x", x_shape)
    R, S = pair(window, "kernel_size", 1)
    stride = (R, S) if stride is None else pair(stride, "stride", 1)
    padding, dilation = pair(padding, "padding"), pair(dilation, "dilation", 1)
    N, C, H, W = x_shape
    P = pool_size(H, R, stride[0], padding[0], dilation[0], ceil_mode)
    Q = pool_size(W, S, stride[1], padding[1], dilation[1], ceil_mode)
    return Pool2dGeometry(N, C, H, W, R, S, P, Q, stride, padding, dilation)


def max_pool2d(x_shape, window, stride=None, padding=0, dilation=1, ceil_mode: bool = False) -> Pool2dGeometry:
    """Geometry of a maximum pooling, whose taps r S + s are numbered in one byte."""
    geo = pool2d(x_shape, window, stride, padding, dilation, ceil_mode)
    if geo.R * geo.S > 256:
        raise ShapeError(f"kernel_size (={geo.R}x{geo.S}) of a maximum pooling must have at most 256 taps")
    return geo


def window_counts(geo: Pool2dGeometry, include_pad: bool) -> tuple[list[int], list[int]]:
    """How many elements the windows of an average pooling count, along each axis: [P] and [Q].

    A window is clipped to the padded image (Caffe, PyTorch's count_include_pad), or to the image itself.
    """

    def along(axis: int, size: int, out: int, window: int) -> list[int]:
        stride, padding = geo.stride[axis], geo.padding[axis]
        low, high = (-padding, size + padding) if include_pad else (0, size)
        starts = (u * stride - padding for u in range(out))
        return [min(start + window, high) - max(start, low) for start in starts]

    return along(0, geo.H, geo.P, geo.R), along(1, geo.W, geo.Q, geo.S)


@dataclass(frozen=True)
class UpsampleGeometry:
    """All sizes of one bilinear upsampling."""

    N: int
    C: int
    H: int
    W: int
    P: int
    Q: int
    factor: Pair
    padding: Pair

    @property
    def y_shape(self) -> tuple[int, int, int, int]:
        return (self.N, self.C, self.P, self.Q)


def upsample(x_shape, factor, padding=0) -> UpsampleGeometry:
    """Geometry of the bilinear upsampling of x [N, C, H, W] by `factor`."""
    expect_rank4("x", x_shape)
    factor, padding = pair(factor, "factor", 1), pair(padding, "padding")
    N, C, H, W = x_shape
    P, Q = upsample_size(H, factor[0], padding[0]), upsample_size(W, factor[1], padding[1])
    return UpsampleGeometry(N, C, H, W, P, Q, factor, padding)


def crop_window(shape, offset, size) -> tuple[Pair, Pair]:
    """((top, left), (height, width)) of a crop, after checking that it lies inside [N, C, H, W]."""
    expect_rank4("x", shape)
    top, left = pair(offset, "offset")
    height, width = pair(size, "size", 1)
    for start, length, whole, axis in ((top, height, shape[2], "rows"), (left, width, shape[3], "columns")):
        if start + length > whole:
            raise ShapeError(
                f"crop of {axis} {start}..{start + length - 1} does not fit into the input, which has {whole}"
            )
    return (top, left), (height, width)


def upsample_window(x_shape, factor, padding, offset, size) -> tuple[UpsampleGeometry, Pair]:
    """(the upsampling of x, (top, left)), after checking that the window at `offset` of `size` lies in its output."""
    geo = upsample(x_shape, factor, padding)
    return geo, crop_window(geo.y_shape, offset, size)[0]


def crop_sum_offset(x_shape, skip_shape, offset) -> Pair:
    """(top, left) of the window of `skip` that x is added to, after checking that it lies inside `skip`."""
    expect_rank4("x", x_shape)
    expect_rank4("skip", skip_shape)
    expect_shape("skip [N, C] part", skip_shape[:2], x_shape[:2])
    return crop_window(skip_shape, offset, x_shape[2:])[0]


def mask_shape(y_shape) -> tuple[int, int, int, int]:
    """Shape of the bytes that hold one bit for each element of y [N, K, P, Q]: channels last, eight of them a byte."""
    N, K, P, Q = y_shape
    return (N, P, Q, -(-K // 8))


# --- alignment ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CoordinateMap:
    """u = scale x + shift, from a pixel coordinate x of the network's input to one of a feature map."""

    scale: Fraction = Fraction(1)
    shift: Fraction = Fraction(0)

    def then(self, layer: CoordinateMap) -> CoordinateMap:
        """The map of this feature map followed by `layer`."""
        return CoordinateMap(layer.scale * self.scale, layer.scale * self.shift + layer.shift)

    def inverse(self) -> CoordinateMap:
        return CoordinateMap(1 / self.scale, -self.shift / self.scale)

    def __call__(self, x: Fraction | int) -> Fraction:
        return self.scale * x + self.shift


def conv_map(window: int, stride: int = 1, padding: int = 0, dilation: int = 1) -> CoordinateMap:
    """Coordinate map of a convolution or pooling along one axis."""
    return CoordinateMap(Fraction(1, stride), (padding - Fraction(dilation * (window - 1), 2)) / stride)


def conv_transpose_map(window: int, stride: int = 1, padding: int = 0, dilation: int = 1) -> CoordinateMap:
    """Coordinate map of a transposed convolution along one axis."""
    return CoordinateMap(Fraction(stride), Fraction(dilation * (window - 1), 2) - padding)


def crop_map(offset: int) -> CoordinateMap:
    """Coordinate map of a crop that drops the first `offset` rows."""
    return CoordinateMap(Fraction(1), Fraction(-offset))


def crop_offset(source: CoordinateMap, reference: CoordinateMap) -> int:
    """Rows to drop from `source` so that its row i lies where row i of `reference` lies.

    Both maps start at a common ancestor. They must have one scale, and differ by an integer >= 0.
    """
    between = reference.inverse().then(source)
    if between.scale != 1:
        raise ShapeError(f"crop between maps of scale {source.scale} and {reference.scale}: scales must be equal")
    if between.shift < 0 or between.shift.denominator != 1:
        raise ShapeError(f"crop offset (={between.shift}) must be an integer of at least 0")
    return int(between.shift)

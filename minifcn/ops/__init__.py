"""The ops, one file each: its derivation, its forward and backward pass, and the public function.

Public functions carry PyTorch's names and argument order. Every file's docstring has the sections Forward,
Backward and Source; throughout, dy is the gradient of the loss L with respect to the op's output y, and dx, dw,
db those with respect to its inputs, for instance dx[i] = sum_j dy[j] d y[j] / d x[i].
"""

from .add import Add, add, subtract
from .avg_pool2d import AvgPool2d, avg_pool2d
from .bilinear_upsample import BilinearUpsample, bilinear_upsample
from .conv2d import Conv2d, conv2d
from .conv2d_relu import Conv2dReLU, conv2d_relu
from .conv2d_relu_max_pool2d import Conv2dReLUMaxPool2d, conv2d_relu_max_pool2d
from .conv_transpose2d import ConvTranspose2d, conv_transpose2d
from .crop import Crop, crop
from .crop_sum import CropSum, crop_sum
from .cross_entropy import CrossEntropy, cross_entropy
from .divide import Divide, divide
from .dropout import Dropout, dropout
from .exp import Exp, exp
from .linear import Linear, linear
from .log import Log, log
from .lrn import LRN, lrn
from .max_pool2d import MaxPool2d, max_pool2d
from .multiply import Multiply, multiply
from .power import Power, power
from .relu import ReLU, relu
from .reshape import Reshape, reshape
from .scale import Scale, scale
from .sum import Sum, mean, sum
from .upsample_cross_entropy import UpsampleCrossEntropy, upsample_cross_entropy

__all__ = [
    "LRN",
    "Add",
    "AvgPool2d",
    "BilinearUpsample",
    "Conv2d",
    "Conv2dReLU",
    "Conv2dReLUMaxPool2d",
    "ConvTranspose2d",
    "Crop",
    "CropSum",
    "CrossEntropy",
    "Divide",
    "Dropout",
    "Exp",
    "Linear",
    "Log",
    "MaxPool2d",
    "Multiply",
    "Power",
    "ReLU",
    "Reshape",
    "Scale",
    "Sum",
    "UpsampleCrossEntropy",
    "add",
    "avg_pool2d",
    "bilinear_upsample",
    "conv2d",
    "conv2d_relu",
    "conv2d_relu_max_pool2d",
    "conv_transpose2d",
    "crop",
    "crop_sum",
    "cross_entropy",
    "divide",
    "dropout",
    "exp",
    "linear",
    "log",
    "lrn",
    "max_pool2d",
    "mean",
    "multiply",
    "power",
    "relu",
    "reshape",
    "scale",
    "subtract",
    "sum",
    "upsample_cross_entropy",
]

"""The fakes of TensorRT and CUDA as fixtures of this folder."""

from tests.tensorrt.compiling import compile_one
from tests.tensorrt.cuda_by_hand import clean, cuda, two_gpus
from tests.tensorrt.fixtures import fake_gpu, no_gpu, tensorrt_version
from tests.tensorrt.raced_bundle import built, bundle, clock

__all__ = ["built", "bundle", "clean", "clock", "compile_one", "cuda", "fake_gpu", "no_gpu", "tensorrt_version", "two_gpus"]

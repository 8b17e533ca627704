"""The fakes of TensorRT and CUDA as fixtures of this folder."""

from tests.tensorrt.cuda_by_hand import clean, cuda, two_gpus
from tests.tensorrt.fixtures import fake_gpu, no_gpu, tensorrt_version

__all__ = ["clean", "cuda", "fake_gpu", "no_gpu", "tensorrt_version", "two_gpus"]

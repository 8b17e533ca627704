"""The numbers of TensorRT's enumerations, version by version; read as `api_names` says."""

from __future__ import annotations

from tests.tensorrt.api_names import VERSIONS

# Enumeration → its values: a row is a name and its number in each of VERSIONS, "-" where that version does not have it.
VALUES: dict[str, str] = {
    "NetworkDefinitionCreationFlag": """
        STRONGLY_TYPED - 1 1 0
        PREFER_JIT_PYTHON_PLUGINS - - 2 1
        PREFER_AOT_PYTHON_PLUGINS - - 3 2
        EXPLICIT_BATCH 0 0 0 -
        EXPLICIT_PRECISION 1 - - -
    """,
    "BuilderFlag": """
        DEBUG 2 2 2 2
        GPU_FALLBACK 3 3 3 3
        REFIT 5 4 4 4
        DISABLE_TIMING_CACHE 6 5 5 5
        TF32 7 6 6 6
        SPARSE_WEIGHTS 8 7 7 7
        SAFETY_SCOPE 9 8 8 8
        DIRECT_IO 12 11 11 11
        VERSION_COMPATIBLE 15 13 13 12
        EXCLUDE_LEAN_RUNTIME 16 14 14 13
        ERROR_ON_TIMING_CACHE_MISS - 16 16 15
        DISABLE_COMPILATION_CACHE - 18 18 17
        STRIP_PLAN - 19 19 18
        REFIT_IDENTICAL - 20 20 19
        WEIGHT_STREAMING - 21 21 20
        REFIT_INDIVIDUAL - 23 23 22
        STRICT_NANS - - 24 23
        MONITOR_MEMORY - - 25 24
        EDITABLE_TIMING_CACHE - - 27 26
        DISTRIBUTIVE_INDEPENDENCE - - 28 27
        FP16 0 0 0 -
        INT8 1 1 1 -
        OBEY_PRECISION_CONSTRAINTS 10 9 9 -
        PREFER_PRECISION_CONSTRAINTS 11 10 10 -
        REJECT_EMPTY_ALGORITHMS 13 12 12 -
        FP8 17 15 15 -
        BF16 - 17 17 -
        WEIGHTLESS - 19 19 -
        INT4 - 22 22 -
        FP4 - - 26 -
        STRICT_TYPES 4 - - -
        ENABLE_TACTIC_HEURISTIC 14 - - -
    """,
    "OnnxParserFlag": """
        NATIVE_INSTANCENORM - 0 0 0
        ENABLE_UINT8_AND_ASYMMETRIC_QUANTIZATION_DLA - - 1 1
        REPORT_CAPABILITY_DLA - - - 2
        ENABLE_PLUGIN_OVERRIDE - - - 3
        ADJUST_FOR_DLA - - - 4
    """,
    "ErrorCode": """
        SUCCESS 0 0 0 0
        INTERNAL_ERROR 1 1 1 1
        MEM_ALLOC_FAILED 2 2 2 2
        MODEL_DESERIALIZE_FAILED 3 3 3 3
        INVALID_VALUE 4 4 4 4
        INVALID_GRAPH 5 5 5 5
        INVALID_NODE 6 6 6 6
        UNSUPPORTED_GRAPH 7 7 7 7
        UNSUPPORTED_NODE 8 8 8 8
        UNSUPPORTED_NODE_ATTR - 9 9 9
        UNSUPPORTED_NODE_INPUT - 10 10 10
        UNSUPPORTED_NODE_DATATYPE - 11 11 11
        UNSUPPORTED_NODE_DYNAMIC - 12 12 12
        UNSUPPORTED_NODE_SHAPE - 13 13 13
        REFIT_FAILED - 14 14 14
    """,
    "DataType": """
        FLOAT 0 0 0 0
        HALF 1 1 1 1
        INT8 2 2 2 2
        INT32 3 3 3 3
        BOOL 4 4 4 4
        UINT8 5 5 5 5
        FP8 6 6 6 6
        BF16 - 7 7 7
        INT64 - 8 8 8
        INT4 - 9 9 9
        FP4 - - 10 10
        E8M0 - - 11 11
    """,
    "TensorIOMode": """
        NONE 0 0 0 0
        INPUT 1 1 1 1
        OUTPUT 2 2 2 2
    """,
    "TensorLocation": """
        DEVICE 0 0 0 0
        HOST 1 1 1 1
    """,
    "MemoryPoolType": """
        WORKSPACE 0 0 0 0
        DLA_MANAGED_SRAM 1 1 1 1
        DLA_LOCAL_DRAM 2 2 2 2
        DLA_GLOBAL_DRAM 3 3 3 3
        TACTIC_DRAM 4 4 4 4
        TACTIC_SHARED_MEMORY - 5 5 5
    """,
    "ProfilingVerbosity": """
        LAYER_NAMES_ONLY 0 0 0 0
        NONE 1 1 1 1
        DETAILED 2 2 2 2
        DEFAULT 0 - - -
        VERBOSE 2 - - -
    """,
    "LayerInformationFormat": """
        ONELINE 0 0 0 0
        JSON 1 1 1 1
    """,
    "HardwareCompatibilityLevel": """
        NONE 0 0 0 0
        AMPERE_PLUS 1 1 1 1
        SAME_COMPUTE_CAPABILITY - - 2 2
    """,
    "TacticSource": """
        EDGE_MASK_CONVOLUTIONS 3 3 3 0
        JIT_CONVOLUTIONS 4 4 4 1
        CUBLAS 0 0 0 -
        CUBLAS_LT 1 1 1 -
        CUDNN 2 2 2 -
    """,
    "ExecutionContextAllocationStrategy": """
        STATIC - 0 0 0
        ON_PROFILE_CHANGE - 1 1 1
        USER_MANAGED - 2 2 2
    """,
}


def values(version: str, enumeration: str) -> dict[str, int]:
    """The values of an enumeration in a version; empty where it does not have the enumeration."""
    rows = (row.split() for row in VALUES[enumeration].strip().splitlines())
    column = VERSIONS.index(version) + 1
    return {row[0]: int(row[column]) for row in rows if row[column] != "-"}

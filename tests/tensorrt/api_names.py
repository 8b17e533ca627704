"""Which names TensorRT's Python bindings have, version by version: the ones that lmedge may touch, and ones it must not.

Read from the wheels tensorrt 8.6.0, tensorrt-cu12-bindings 10.3.0, tensorrt-cu13-bindings 10.13.3.9 (the cu12 wheel of that
version agrees) and 11.4.0.106, all for CPython 3.10 on Linux x86-64: each was imported against empty libraries in place of
TensorRT's own, which its bindings need for loading only, and `dir()` of the module, its classes and enumerations was written
down. So a name that is absent here is absent there, apart from what was left out: plugins, calibration, and the functions that
put a network together layer by layer.
"""

from __future__ import annotations

Versions = tuple[str, ...]
VERSIONS: Versions = ("8.6.0", "10.3.0", "10.13.3.9", "11.4.0")

ALL: Versions = VERSIONS
ONLY_8: Versions = VERSIONS[:1]
UNTIL_10: Versions = VERSIONS[:3]
ONLY_10: Versions = VERSIONS[1:3]
SINCE_10_3: Versions = VERSIONS[1:]
SINCE_10_13: Versions = VERSIONS[2:]
ONLY_11: Versions = VERSIONS[3:]

# What `tensorrt.__version__` says.
FULL_VERSION = {version: version for version in VERSIONS} | {"11.4.0": "11.4.0.106"}

NAMES: dict[Versions, str] = {
    ALL: """
        AllocatorFlag Builder BuilderFlag DataType DeviceType Dims EngineCapability EngineInspector ErrorCode
        HardwareCompatibilityLevel IBuilderConfig ICudaEngine IErrorRecorder IExecutionContext IGpuAllocator IHostMemory ILogger
        INetworkDefinition IOptimizationProfile IOutputAllocator IProfiler ITensor ITimingCache LayerInformationFormat Logger
        MemoryPoolType NetworkDefinitionCreationFlag OnnxParser ParserError PreviewFeature Profiler ProfilingVerbosity Refitter
        Runtime TacticSource TempfileControlFlag TensorFormat TensorIOMode TensorLocation Weights bool float16 float32 fp8
        get_nv_onnx_parser_version init_libnvinfer_plugins int32 int8 nptype uint8 volume
    """,
    UNTIL_10: """
        CalibrationAlgoType IInt8Calibrator IInt8EntropyCalibrator IInt8EntropyCalibrator2 IInt8LegacyCalibrator
        IInt8MinMaxCalibrator QuantizationFlag
    """,
    SINCE_10_3: """
        ExecutionContextAllocationStrategy IDebugListener IGpuAsyncAllocator IProgressMonitor ISerializationConfig
        IVersionedInterface OnnxParserFlag OnnxParserRefitter RuntimePlatform SerializationFlag bfloat16 int4 int64
    """,
    SINCE_10_13: """
        IRuntimeConfig IStreamReaderV2 IStreamWriter TilingOptimizationLevel TimingCacheKey TimingCacheValue e8m0 fp4
    """,
    ONLY_11: "DLAWorkspaceAllocationStrategy EngineStat",
    ONLY_10: "IStreamReader",
}

# Class → what its objects have, without the __dunder__ methods.
MEMBERS: dict[str, dict[Versions, str]] = {
    "Logger": {
        ALL: "ERROR INFO INTERNAL_ERROR Severity VERBOSE WARNING log min_severity",
    },
    "ILogger": {
        ALL: "ERROR INFO INTERNAL_ERROR Severity VERBOSE WARNING log",
    },
    "Builder": {
        ALL: """
            build_serialized_network create_builder_config create_network create_optimization_profile error_recorder
            get_plugin_registry gpu_allocator is_network_supported logger max_DLA_batch_size max_threads num_DLA_cores reset
        """,
        ONLY_8: "build_engine max_batch_size",
        UNTIL_10: "platform_has_fast_fp16 platform_has_fast_int8 platform_has_tf32",
        SINCE_10_13: "build_engine_with_config build_serialized_network_to_stream",
    },
    "INetworkDefinition": {
        ALL: """
            add_input builder error_recorder get_input get_layer get_output has_implicit_batch_dimension mark_output
            mark_output_for_shapes name num_inputs num_layers num_outputs remove_tensor set_weights_name unmark_output
            unmark_output_for_shapes
        """,
        ONLY_8: "has_explicit_precision",
        SINCE_10_3: """
            are_weights_marked_refittable flags get_flag is_debug_tensor mark_debug mark_weights_refittable unmark_debug
            unmark_weights_refittable
        """,
        SINCE_10_13: "mark_unfused_tensors_as_debug_tensors unmark_unfused_tensors_as_debug_tensors",
    },
    "ITensor": {
        ALL: """
            allowed_formats broadcast_across_batch dtype get_dimension_name is_execution_tensor is_network_input
            is_network_output is_shape_tensor location name set_dimension_name shape
        """,
        UNTIL_10: "dynamic_range reset_dynamic_range set_dynamic_range",
    },
    "ILayer": {
        ALL: "get_input get_output get_output_type metadata name num_inputs num_outputs set_input type",
        UNTIL_10: """
            output_type_is_set precision precision_is_set reset_output_type reset_precision set_output_type
        """,
        ONLY_11: "num_ranks",
    },
    "IBuilderConfig": {
        ALL: """
            DLA_core add_optimization_profile avg_timing_iterations builder_optimization_level can_run_on_DLA clear_flag
            create_timing_cache default_device_type engine_capability flags get_device_type get_flag get_memory_pool_limit
            get_preview_feature get_tactic_sources get_timing_cache hardware_compatibility_level is_device_type_set
            max_aux_streams num_optimization_profiles plugins_to_serialize profile_stream profiling_verbosity reset
            reset_device_type set_device_type set_flag set_memory_pool_limit set_preview_feature set_tactic_sources
            set_timing_cache
        """,
        ONLY_8: "max_workspace_size min_timing_iterations",
        UNTIL_10: """
            algorithm_selector clear_quantization_flag get_calibration_profile get_quantization_flag int8_calibrator
            quantization_flags set_calibration_profile set_quantization_flag
        """,
        SINCE_10_3: "progress_monitor runtime_platform",
        SINCE_10_13: "l2_limit_for_tiling max_num_tactics remote_auto_tuning_config tiling_optimization_level",
        ONLY_11: "all_build_routes build_route",
    },
    "IOptimizationProfile": {
        ALL: "extra_memory_target get_shape get_shape_input set_shape set_shape_input",
        ONLY_11: "profile_stream",
    },
    "ITimingCache": {
        ALL: "combine reset serialize",
        SINCE_10_13: "query queryKeys update",
    },
    "OnnxParser": {
        ALL: """
            clear_errors get_error get_used_vc_plugin_libraries num_errors parse parse_from_file supports_operator
        """,
        UNTIL_10: "parse_with_weight_descriptors supports_model",
        SINCE_10_3: """
            clear_flag flags get_flag get_layer_output_tensor get_subgraph_nodes is_subgraph_supported num_subgraphs set_flag
            supports_model_v2
        """,
        SINCE_10_13: "load_initializer load_model_proto parse_model_proto",
        ONLY_11: "set_builder_config",
    },
    "ParserError": {
        ALL: "code desc file func line node",
        SINCE_10_3: "local_function_stack local_function_stack_size node_name node_operator",
    },
    "IHostMemory": {
        ALL: "dtype nbytes",
    },
    "Runtime": {
        ALL: """
            DLA_core deserialize_cuda_engine engine_host_code_allowed error_recorder get_plugin_registry gpu_allocator
            load_runtime logger max_threads num_DLA_cores tempfile_control_flags temporary_directory
        """,
        ONLY_11: "dla_workspace_allocation_strategy",
    },
    "ICudaEngine": {
        ALL: """
            create_engine_inspector create_execution_context engine_capability error_recorder get_tensor_bytes_per_component
            get_tensor_components_per_element get_tensor_dtype get_tensor_format get_tensor_format_desc get_tensor_location
            get_tensor_mode get_tensor_name get_tensor_profile_shape get_tensor_shape get_tensor_vectorized_dim
            hardware_compatibility_level is_shape_inference_io name num_aux_streams num_io_tensors num_layers
            num_optimization_profiles profiling_verbosity refittable serialize tactic_sources
        """,
        ONLY_8: """
            binding_is_input get_binding_bytes_per_component get_binding_components_per_element get_binding_dtype
            get_binding_format get_binding_format_desc get_binding_index get_binding_name get_binding_shape
            get_binding_vectorized_dim get_location get_profile_shape get_profile_shape_input is_execution_binding
            is_shape_binding max_batch_size num_bindings
        """,
        UNTIL_10: """
            create_execution_context_without_device_memory device_memory_size has_implicit_batch_dimension
        """,
        SINCE_10_3: """
            create_serialization_config device_memory_size_v2 get_device_memory_size_for_profile_v2 get_tensor_profile_values
            get_weight_streaming_automatic_budget is_debug_tensor serialize_with_config streamable_weights_size
            weight_streaming_budget_v2 weight_streaming_scratch_memory_size
        """,
        SINCE_10_13: "create_runtime_config",
        ONLY_11: "get_aliased_input_tensor get_engine_stat",
        ONLY_10: """
            get_device_memory_size_for_profile minimum_weight_streaming_budget weight_streaming_budget
        """,
    },
    "EngineInspector": {
        ALL: "error_recorder execution_context get_engine_information get_layer_information",
    },
    "IExecutionContext": {
        ALL: """
            active_optimization_profile all_binding_shapes_specified debug_sync device_memory engine enqueue_emits_profile
            error_recorder execute_async_v3 execute_v2 get_input_consumed_event get_max_output_size get_output_allocator
            get_tensor_address get_tensor_shape get_tensor_strides infer_shapes name nvtx_verbosity persistent_cache_limit
            profiler report_to_profiler set_aux_streams set_input_consumed_event set_input_shape set_optimization_profile_async
            set_output_allocator set_tensor_address temporary_allocator
        """,
        ONLY_8: """
            execute execute_async execute_async_v2 get_binding_shape get_shape get_strides set_binding_shape set_shape_input
        """,
        UNTIL_10: "all_shape_inputs_specified",
        SINCE_10_3: """
            get_debug_listener get_debug_state set_all_tensors_debug_state set_debug_listener set_device_memory
            set_tensor_debug_state update_device_memory_size_for_shapes
        """,
        SINCE_10_13: "get_runtime_config unfused_tensors_debug_state",
        ONLY_11: "set_communicator",
    },
}


def module_names(version: str) -> frozenset[str]:
    """What `import tensorrt` gives in a version."""
    return _of_version(NAMES, version)


def members(version: str, kind: str) -> frozenset[str]:
    """What objects of a class have in a version; empty for a class that is not listed."""
    return _of_version(MEMBERS.get(kind, {}), version)


def _of_version(table: dict[Versions, str], version: str) -> frozenset[str]:
    return frozenset(name for versions, names in table.items() if version in versions for name in names.split())

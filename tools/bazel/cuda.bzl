"""CUDA libraries: nvcc under --config=cuda, empty otherwise."""

_NVCC = "/usr/local/cuda/bin/nvcc"
_NVCC_FLAGS = [
    "-std=c++20",
    "-O3",
    "-gencode=arch=compute_90,code=[sm_90,compute_90]",
    "-Xcompiler=-fPIC,-Wall",
]

def _cuda_objects_impl(ctx):
    context = cc_common.merge_cc_infos(
        cc_infos = [dep[CcInfo] for dep in ctx.attr.deps],
    ).compilation_context
    objects = []
    for src in ctx.files.srcs:
        object = ctx.actions.declare_file("%s/%s.o" % (ctx.label.name, src.basename))
        args = ctx.actions.args()
        args.add_all(_NVCC_FLAGS)
        args.add("-DKEDGE_CUDA=1")
        args.add_all(context.defines, before_each = "-D")
        args.add_all([".", ctx.bin_dir.path], before_each = "-I")
        args.add_all(context.system_includes, before_each = "-isystem")
        args.add("-c", src)
        args.add("-o", object)
        ctx.actions.run(
            executable = _NVCC,
            arguments = [args],
            inputs = depset(ctx.files.srcs + ctx.files.hdrs, transitive = [context.headers]),
            outputs = [object],
            mnemonic = "NvccCompile",
            progress_message = "Compiling %s" % src.short_path,
            use_default_shell_env = True,
        )
        objects.append(object)
    return [DefaultInfo(files = depset(objects))]

_cuda_objects = rule(
    implementation = _cuda_objects_impl,
    attrs = {
        "deps": attr.label_list(providers = [CcInfo]),
        "hdrs": attr.label_list(allow_files = [".h", ".cuh"]),
        "srcs": attr.label_list(allow_files = [".cu"]),
    },
)

def cuda_library(name, srcs, hdrs = [], deps = [], visibility = None):
    """A library of .cu files with C++ headers.

    With --config=cuda it holds what nvcc makes of `srcs`, and defines KEDGE_CUDA=1 for itself and
    for what depends on it. Without, it is its headers only: `#if KEDGE_CUDA` is false, and
    select({"//tools/bazel:cuda": ..., "//conditions:default": ...}) decides in BUILD files.

    Args:
      name: of the library.
      srcs: .cu files.
      hdrs: headers, includable without nvcc.
      deps: cc_library targets.
      visibility: of the library.
    """
    _cuda_objects(
        name = name + "_objects",
        srcs = srcs,
        hdrs = hdrs,
        tags = ["manual"],
        deps = deps,
    )
    native.cc_library(
        name = name,
        srcs = select({
            "//tools/bazel:cuda": [":" + name + "_objects"],
            "//conditions:default": [],
        }),
        hdrs = hdrs,
        defines = select({
            "//tools/bazel:cuda": ["KEDGE_CUDA=1"],
            "//conditions:default": [],
        }),
        tags = ["cuda"],
        visibility = visibility,
        deps = deps + select({
            "//tools/bazel:cuda": ["@cuda//:cudart"],
            "//conditions:default": [],
        }),
    )

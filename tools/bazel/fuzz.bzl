"""Fuzz targets that are exercised in every build."""

def kedge_fuzz(name, srcs, deps = [], corpus = [], visibility = None):
    """A program around LLVMFuzzerTestOneInput.

    By default a test: it replays the corpus and some thousands of seeded mutations of it. Under
    --config=fuzz the same source becomes a libFuzzer program; `tools/test --fuzz` runs it.

    Args:
      name: of the target, ends with _fuzz.
      srcs: the source that defines LLVMFuzzerTestOneInput.
      deps: what it tests.
      corpus: interesting inputs, usually glob(["x_corpus/*"]).
      visibility: of the target.
    """
    native.cc_test(
        name = name,
        size = "small",
        srcs = srcs + select({
            "//tools/bazel:fuzz": [],
            "//conditions:default": ["//tools/bazel:fuzz_replay_main.cc"],
        }),
        args = select({
            "//tools/bazel:fuzz": ["-runs=1000"],
            "//conditions:default": [],
        }) + ["$(location %s)" % file for file in corpus],
        data = corpus,
        linkopts = select({
            "//tools/bazel:fuzz": ["-fsanitize=fuzzer"],
            "//conditions:default": [],
        }),
        tags = ["fuzz"],
        visibility = visibility,
        deps = deps,
    )

"""The C++ toolchain of --config=fuzz: clang 14, configured as Bazel configures gcc."""

load("@bazel_tools//tools/cpp:unix_cc_configure.bzl", "configure_unix_toolchain")

_CLANG = "/usr/bin/clang-14"

def _clang_toolchain_impl(repository_ctx):
    if not repository_ctx.path(_CLANG).exists:
        fail("%s is missing: run tools/setup --test" % _CLANG)
    configure_unix_toolchain(repository_ctx, "k8", {"gcc": _CLANG})

clang_toolchain = repository_rule(
    implementation = _clang_toolchain_impl,
    configure = True,
    local = True,
)

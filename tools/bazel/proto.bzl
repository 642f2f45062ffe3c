"""Protobuf and gRPC code by Debian's protoc."""

def kedge_proto(name, src, deps = [], visibility = None):
    """A C++ library of the messages and services of one .proto file.

    Include it as "<package>/<file>.pb.h" and "<package>/<file>.grpc.pb.h". Imports are relative
    to the workspace.

    Args:
      name: of the library.
      src: the .proto file, in this package.
      deps: kedge_proto libraries of the files that it imports.
      visibility: of the library.
    """
    stem = src[:-len(".proto")]
    sources = [stem + ".pb.cc", stem + ".grpc.pb.cc"]
    headers = [stem + ".pb.h", stem + ".grpc.pb.h"]
    native.filegroup(
        name = name + "_src",
        srcs = [src] + [dep + "_src" for dep in deps],
        visibility = visibility,
    )

    # The generated headers count as system headers: our warnings are not theirs.
    native.genrule(
        name = name + "_gen",
        srcs = [":" + name + "_src"],
        outs = headers + sources,
        cmd = " && ".join([
            "/usr/bin/protoc -I. -I/usr/include --cpp_out=$(GENDIR) --grpc_out=$(GENDIR)" +
            " --plugin=protoc-gen-grpc=/usr/bin/grpc_cpp_plugin " +
            native.package_name() + "/" + src,
            "sed -i '1i #pragma GCC system_header' " +
            " ".join(["$(location %s)" % header for header in headers]),
        ]),
    )
    native.cc_library(
        name = name,
        srcs = sources,
        hdrs = headers,
        copts = ["-w"],
        visibility = visibility,
        deps = deps + ["@system//:grpc"],
    )

// What the rest of the code takes for granted of the build.

#include <version>

#include "gtest/gtest.h"
#include "tools/bazel/cuda_version.h"

namespace kedge {
namespace {

TEST(Flavour, KeepsAssertions) {
#ifdef NDEBUG
  FAIL() << "NDEBUG is defined";
#endif
}

TEST(Flavour, IsCxx20) { EXPECT_GE(__cplusplus, 202002L); }

#if KEDGE_CUDA
TEST(Flavour, LinksWhatNvccCompiled) { EXPECT_GE(CudaRuntimeVersion(), 13000); }
#endif

}  // namespace
}  // namespace kedge

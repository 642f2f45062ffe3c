// Which instruction sets the CPU kernels are compiled for. Include before any Highway header.
//
// Highway compiles each kernel once per set and picks the best at run time. The sets left out add
// build time but no speed to fp32 loops: SSSE3 is served by SSE2, and the newer AVX-512 dialect by
// AVX3.
#pragma once

#ifndef HWY_DISABLED_TARGETS
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_AVX3_DL)
#endif

// The smallest CUDA library: keeps cuda_library and the toolkit's link working while no kernel
// does.
#pragma once

namespace kedge {

// What the linked CUDA runtime says it is, 13000 for 13.0. Needs no GPU. Only under --config=cuda.
int CudaRuntimeVersion();

}  // namespace kedge

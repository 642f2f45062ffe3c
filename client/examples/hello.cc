// The smallest program: one value in, one value out.
//
//   hello                         with a node inside this process
//   hello tcp://127.0.0.1:7420    with a kedged

#include <cstdio>

#include "client/kv_client.h"

int main(int argc, char** argv) {
  using namespace kedge::sdk;  // NOLINT
  auto client =
      Client::Open({.address = argc > 1 ? argv[1] : "embedded:", .salt = "the tenant's secret"});
  if (!client) {
    std::fprintf(stderr, "%s\n", client.text().c_str());
    return 1;
  }
  if (auto put = client->Put("greeting", "hello, world"); !put) {
    std::fprintf(stderr, "put: %s\n", put.text().c_str());
    return 1;
  }
  auto value = client->Get("greeting");
  if (!value) {
    std::fprintf(stderr, "get: %s\n", value.text().c_str());
    return 1;
  }
  std::printf("%s\n", value->c_str());
  return 0;
}

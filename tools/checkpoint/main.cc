// kedge_checkpoint: writes a Hugging Face checkpoint with random weights and a true geometry, in
// seconds. For time only: such a model answers nothing.
//
//     tools/make_checkpoint --out DIR [--preset mid]
#include <CLI/CLI.hpp>
#include <cstdio>
#include <map>
#include <string>

#include "gpu/model/byte_tokenizer.h"
#include "gpu/model/random_checkpoint.h"

namespace kedge {
namespace {

// Widths and heads of real models, with fewer layers where they would not fit.
std::map<std::string, ModelConfig> Presets() {
  ModelConfig mid{.hidden_size = 1024,
                  .intermediate_size = 2816,
                  .layers = 8,
                  .heads = 16,
                  .kv_heads = 4,
                  .head_size = 64,
                  .vocabulary = ByteTokenizer::kVocabulary,
                  .max_positions = 1 << 17,
                  .dtype = DType::kBf16};
  ModelConfig small = mid;
  small.hidden_size = 512;
  small.intermediate_size = 1408;
  small.heads = 8;
  // One layer in four of Llama 3.1 8B, its KV of a token a quarter of the 128 KiB.
  ModelConfig llama8b = mid;
  llama8b.hidden_size = 4096;
  llama8b.intermediate_size = 14336;
  llama8b.heads = 32;
  llama8b.kv_heads = 8;
  llama8b.head_size = 128;
  llama8b.rope_theta = 500000.0f;
  return {{"small", small}, {"mid", mid}, {"llama8b-quarter", llama8b}};
}

int Main(int argc, char** argv) {
  const std::map<std::string, ModelConfig> presets = Presets();
  std::string out;
  std::string preset = "mid";
  ModelConfig given{.layers = 0, .vocabulary = 0};
  uint64_t seed = 1;
  CLI::App app("Writes a checkpoint with random weights; for time, never for quality.",
               "kedge_checkpoint");
  app.add_option("--out", out, "Folder; made if it is not there")->required()->type_name("DIR");
  app.add_option("--preset", preset, "small (20M weights), mid (95M) or llama8b-quarter (1.7G)")
      ->check(CLI::IsMember({"small", "mid", "llama8b-quarter"}))
      ->capture_default_str();
  app.add_option("--layers", given.layers, "Instead of the preset's 8")->check(CLI::Range(1, 1024));
  app.add_option("--vocabulary", given.vocabulary, "Instead of the byte tokenizer's 260")
      ->check(CLI::Range(1, 1 << 20));
  app.add_option("--seed", seed, "Other weights");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  ModelConfig config = presets.at(preset);
  if (given.layers > 0) config.layers = given.layers;
  if (given.vocabulary > 0) config.vocabulary = given.vocabulary;
  const absl::Status status = WriteRandomCheckpoint(out, config, seed);
  if (!status.ok()) {
    std::fprintf(stderr, "kedge_checkpoint: %s\n", std::string(status.message()).c_str());
    return 1;
  }
  std::printf("%s: %d layers of width %d, %d query heads and %d KV heads of %d\n", out.c_str(),
              static_cast<int>(config.layers), static_cast<int>(config.hidden_size),
              static_cast<int>(config.heads), static_cast<int>(config.kv_heads),
              static_cast<int>(config.head_size));
  return 0;
}

}  // namespace
}  // namespace kedge

int main(int argc, char** argv) { return kedge::Main(argc, argv); }

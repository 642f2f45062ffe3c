#include "gpu/model/tokenizer.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "gpu/model/file_map.h"
#include "gpu/model/json_fields.h"

namespace kedge {
namespace {

using nlohmann::json;

constexpr int kJsonDepthMax = 12;

absl::string_view View(std::string_view text) { return {text.data(), text.size()}; }

// What char::is_whitespace of Rust says, which WhitespaceSplit asks.
bool IsWhitespace(char32_t code) {
  return (code >= 0x09 && code <= 0x0d) || code == 0x20 || code == 0x85 || code == 0xa0 ||
         code == 0x1680 || (code >= 0x2000 && code <= 0x200a) || code == 0x2028 || code == 0x2029 ||
         code == 0x202f || code == 0x205f || code == 0x3000;
}

// GPT-2 writes bytes as characters: printable ones as themselves, the others from U+0100 on.
std::optional<uint8_t> ByteOf(char32_t code) {
  static const std::vector<int> table = [] {
    std::vector<int> bytes(0x200, -1);
    int next = 0x100;
    for (int byte = 0; byte < 256; ++byte) {
      const bool plain =
          (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
      bytes[plain ? byte : next++] = byte;
    }
    return bytes;
  }();
  if (code >= table.size() || table[code] < 0) return std::nullopt;
  return static_cast<uint8_t>(table[code]);
}

// The bytes that a BPE vocabulary's entry stands for; nothing when it has other characters.
std::optional<std::string> BytesOf(std::string_view entry) {
  std::string bytes;
  for (size_t at = 0; at < entry.size();) {
    const Utf8Character character = ReadUtf8(entry, at);
    if (character.length == 0) return std::nullopt;
    const std::optional<uint8_t> byte = ByteOf(character.code);
    if (!byte.has_value()) return std::nullopt;
    bytes.push_back(static_cast<char>(*byte));
    at += character.length;
  }
  return bytes;
}

std::string TypeOf(const json& object) {
  const auto type = object.is_object() ? object.find("type") : object.end();
  if (!object.is_object() || type == object.end() || !type->is_string()) return ShowJson(object);
  return type->get<std::string>();
}

}  // namespace

// Reads the file field by field; after the first error it only returns.
struct Tokenizer::Builder {
  Tokenizer result;
  std::string file;
  absl::Status status;

  template <typename... Parts>
  void Fail(const Parts&... parts) {
    if (status.ok()) status = absl::InvalidArgumentError(absl::StrCat(file, ": ", parts...));
  }
  // A field that changes tokens and must be absent, null, false or empty.
  void RefuseField(const json& object, const char* prefix, const char* name) {
    const auto at = object.find(name);
    if (at == object.end() || at->is_null() || *at == false || *at == "") return;
    if (at->is_number() && at->get<double>() == 0) return;
    Fail(prefix, name, ": ", ShowJson(*at), " is not supported");
  }

  bool AddText(const std::string& field, const std::string& text, const json& id) {
    if (!id.is_number_integer() || id.get<int64_t>() < 0 || id.get<int64_t>() >= kTokenIdMax) {
      Fail(field, ": ", ShowJson(id), " is not an id in [0, ", kTokenIdMax, ")");
      return false;
    }
    const size_t index = id.get<size_t>();
    if (index >= result.texts_.size()) result.texts_.resize(index + 1);
    if (!result.texts_[index].empty() && result.texts_[index] != text) {
      Fail(field, ": id ", index, " is given twice");
      return false;
    }
    result.texts_[index] = text;
    return true;
  }

  void Normalizer(const json& root) {
    const auto at = root.find("normalizer");
    if (at == root.end() || at->is_null()) return;
    const std::string type = TypeOf(*at);
    if (type == "NFC") return;  // changes none of the characters that PreSplit accepts
    Fail("normalizer: type ", type, " is not supported (NFC is)");
  }

  void Model(const json& root) {
    const auto model = root.find("model");
    if (model == root.end() || !model->is_object()) return Fail("model: missing object");
    std::string type = TypeOf(*model);
    if (type == "WordLevel") {
      result.kind_ = Kind::kWordLevel;
    } else if (type == "BPE") {
      result.kind_ = Kind::kBytePair;
    } else {
      return Fail("model.type: ", type, " is not supported (WordLevel and BPE are)");
    }
    Vocabulary(*model);
    if (!status.ok()) return;
    if (result.kind_ == Kind::kWordLevel) {
      Unknown(*model);
    } else {
      for (const char* field : {"dropout", "byte_fallback", "continuing_subword_prefix",
                                "end_of_word_suffix", "unk_token"}) {
        RefuseField(*model, "model.", field);
      }
      JsonFields fields(*model, file, "model.");
      result.ignore_merges_ = fields.OptionalBool("ignore_merges", false);
      if (!fields.status().ok()) return Fail(std::string(fields.status().message()));
      for (const auto& [bytes, id] : result.ids_) {
        if (bytes.size() == 1) result.pairs_.SetByteToken(static_cast<uint8_t>(bytes[0]), id);
      }
      Merges(*model);
    }
  }

  void Vocabulary(const json& model) {
    const auto vocabulary = model.find("vocab");
    if (vocabulary == model.end() || !vocabulary->is_object() || vocabulary->empty())
      return Fail("model.vocab: missing object of tokens");
    for (const auto& [entry, id] : vocabulary->items()) {
      const std::string field = absl::StrCat("model.vocab: ", ShowJson(entry));
      std::string text = entry;
      if (result.kind_ == Kind::kBytePair) {
        std::optional<std::string> bytes = BytesOf(entry);
        if (!bytes.has_value()) return Fail(field, ": not written in GPT-2's characters for bytes");
        text = *std::move(bytes);
      }
      if (text.empty()) return Fail(field, ": an empty token");
      if (!AddText(field, text, id)) return;
      result.ids_[text] = id.get<int32_t>();
    }
  }

  void Unknown(const json& model) {
    const auto at = model.find("unk_token");
    if (at == model.end() || at->is_null()) return;
    if (!at->is_string()) return Fail("model.unk_token: ", ShowJson(*at), " is not a string");
    const auto id = result.ids_.find(at->get<std::string>());
    // The library, too, gives an error only when it meets an unknown word.
    if (id != result.ids_.end()) result.unknown_ = id->second;
  }

  void Merges(const json& model) {
    const auto merges = model.find("merges");
    if (merges == model.end() || !merges->is_array()) return Fail("model.merges: missing array");
    for (size_t i = 0; i < merges->size() && status.ok(); ++i) {
      const json& merge = (*merges)[i];
      const std::string field = absl::StrCat("model.merges[", i, "]: ", ShowJson(merge));
      std::string left;
      std::string right;
      if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
        left = merge[0].get<std::string>();
        right = merge[1].get<std::string>();
      } else if (merge.is_string()) {
        const std::string both = merge.get<std::string>();
        const size_t space = both.find(' ');
        if (space == std::string::npos) return Fail(field, ": not two tokens");
        left = both.substr(0, space);
        right = both.substr(space + 1);
      } else {
        return Fail(field, ": not two tokens");
      }
      const std::optional<int32_t> left_id = Entry(left);
      const std::optional<int32_t> right_id = Entry(right);
      const std::optional<int32_t> joined = Entry(left + right);
      if (!left_id || !right_id || !joined)
        return Fail(field, ": its tokens or their join are not in model.vocab");
      if (!result.pairs_.AddMerge(*left_id, *right_id, *joined))
        return Fail(field, ": given twice");
    }
  }
  std::optional<int32_t> Entry(const std::string& entry) const {
    const std::optional<std::string> bytes = BytesOf(entry);
    if (!bytes.has_value()) return std::nullopt;
    const auto at = result.ids_.find(*bytes);
    if (at == result.ids_.end()) return std::nullopt;
    return at->second;
  }

  void PreTokenizer(const json& root) {
    const auto at = root.find("pre_tokenizer");
    const json none = nullptr;
    const json& pre = at == root.end() ? none : *at;
    if (result.kind_ == Kind::kWordLevel) {
      if (TypeOf(pre) == "WhitespaceSplit") return;
      return Fail("pre_tokenizer: type ", TypeOf(pre),
                  " is not supported with WordLevel "
                  "(WhitespaceSplit is)");
    }
    if (TypeOf(pre) == "ByteLevel") return ByteLevel(pre, true);
    const auto list = pre.is_object() ? pre.find("pretokenizers") : pre.end();
    if (TypeOf(pre) != "Sequence" || list == pre.end() || !list->is_array() || list->size() != 2 ||
        TypeOf((*list)[0]) != "Split" || TypeOf((*list)[1]) != "ByteLevel") {
      return Fail("pre_tokenizer: ", ShowJson(pre),
                  " is not supported with BPE (ByteLevel and Split with ByteLevel are)");
    }
    Split((*list)[0]);
    ByteLevel((*list)[1], false);
  }
  void ByteLevel(const json& pre, bool alone) {
    RefuseField(pre, "pre_tokenizer.", "add_prefix_space");
    JsonFields fields(pre, file, "pre_tokenizer.");
    const bool use_regex = fields.OptionalBool("use_regex", true);
    if (!fields.status().ok()) return Fail(std::string(fields.status().message()));
    if (use_regex && !alone)
      return Fail("pre_tokenizer.use_regex: true behind Split is not supported");
    if (use_regex) result.rule_ = PreSplitRule::kGpt2;
  }
  void Split(const json& split) {
    const auto pattern = split.find("pattern");
    const auto behavior = split.find("behavior");
    if (behavior == split.end() || *behavior != "Isolated")
      return Fail("pre_tokenizer.behavior: ",
                  behavior == split.end() ? "missing" : ShowJson(*behavior), " is not Isolated");
    RefuseField(split, "pre_tokenizer.", "invert");
    const auto regex =
        pattern != split.end() && pattern->is_object() ? pattern->find("Regex") : split.end();
    if (pattern == split.end() || !pattern->is_object() || regex == pattern->end() ||
        !regex->is_string())
      return Fail("pre_tokenizer.pattern: a Regex is expected");
    for (PreSplitRule rule : {PreSplitRule::kGpt2, PreSplitRule::kLlama3, PreSplitRule::kQwen2}) {
      if (regex->get<std::string>() != PreSplitPattern(rule)) continue;
      result.rule_ = rule;
      return;
    }
    Fail("pre_tokenizer.pattern: ", ShowJson(*regex), " is none of GPT-2's, Llama 3's and Qwen2's");
  }

  void Added(const json& root) {
    const auto list = root.find("added_tokens");
    if (list == root.end() || list->is_null()) return;
    if (!list->is_array()) return Fail("added_tokens: ", ShowJson(*list), " is not an array");
    for (size_t i = 0; i < list->size() && status.ok(); ++i) {
      const json& added = (*list)[i];
      const std::string field = absl::StrCat("added_tokens[", i, "]");
      if (!added.is_object() || !added.contains("id") || !added.contains("content") ||
          !added["content"].is_string() || added["content"].get<std::string>().empty()) {
        return Fail(field, ": ", ShowJson(added), " has no id and content");
      }
      for (const char* name : {"lstrip", "rstrip", "single_word"}) {
        RefuseField(added, absl::StrCat(field, ".").c_str(), name);
      }
      const std::string content = added["content"].get<std::string>();
      if (!AddText(absl::StrCat(field, ".id"), content, added["id"])) return;
      result.added_[content] = added["id"].get<int32_t>();
      result.added_lengths_.push_back(content.size());
      result.added_starts_[static_cast<uint8_t>(content[0])] = true;
    }
    std::vector<size_t>& lengths = result.added_lengths_;
    std::sort(lengths.rbegin(), lengths.rend());
    lengths.erase(std::unique(lengths.begin(), lengths.end()), lengths.end());
  }
};

absl::StatusOr<Tokenizer> Tokenizer::Parse(std::string_view text, std::string_view file) {
  absl::StatusOr<json> root = ParseJsonObject(text, file, kJsonDepthMax);
  if (!root.ok()) return root.status();
  Builder builder;
  builder.file = std::string(file);
  builder.Normalizer(*root);
  if (builder.status.ok()) builder.Model(*root);
  if (builder.status.ok()) builder.PreTokenizer(*root);
  if (builder.status.ok()) builder.Added(*root);
  if (!builder.status.ok()) return builder.status;
  return std::move(builder.result);
}

absl::StatusOr<Tokenizer> Tokenizer::Load(const std::string& directory) {
  const std::string path = directory + "/tokenizer.json";
  absl::StatusOr<FileMap> file = FileMap::Open(path);
  if (!file.ok()) return file.status();
  const std::span<const uint8_t> bytes = file->bytes();
  return Parse({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, path);
}

int32_t Tokenizer::AddedAt(std::string_view text, size_t at) const {
  if (!added_starts_[static_cast<uint8_t>(text[at])]) return -1;
  for (size_t length : added_lengths_) {
    if (length > text.size() - at) continue;
    const auto found = added_.find(View(text.substr(at, length)));
    if (found != added_.end()) return found->second;
  }
  return -1;
}

absl::StatusOr<std::vector<int32_t>> Tokenizer::Encode(std::string_view text) const {
  std::vector<int32_t> tokens;
  const auto encode = [&](std::string_view part) {
    return kind_ == Kind::kWordLevel ? EncodeWords(part, tokens) : EncodeBytes(part, tokens);
  };
  size_t begin = 0;  // of the text since the last added token
  for (size_t at = 0; at < text.size();) {
    const int32_t added = AddedAt(text, at);
    if (added < 0) {
      ++at;
      continue;
    }
    if (absl::Status s = encode(text.substr(begin, at - begin)); !s.ok()) return s;
    tokens.push_back(added);
    at += texts_[added].size();
    begin = at;
  }
  if (absl::Status s = encode(text.substr(begin)); !s.ok()) return s;
  return tokens;
}

absl::Status Tokenizer::EncodeWords(std::string_view text, std::vector<int32_t>& tokens) const {
  size_t begin = 0;
  const auto end_word = [&](size_t end) {
    const std::string_view word = text.substr(begin, end - begin);
    if (word.empty()) return absl::OkStatus();
    const auto id = ids_.find(View(word));
    if (id == ids_.end() && !unknown_.has_value()) {
      return absl::InvalidArgumentError(
          absl::StrCat("text: ", ShowJson(std::string(word)), " is not in the vocabulary"));
    }
    tokens.push_back(id == ids_.end() ? *unknown_ : id->second);
    return absl::OkStatus();
  };
  for (size_t at = 0; at < text.size();) {
    const Utf8Character character = ReadUtf8(text, at);
    if (character.length == 0)
      return absl::InvalidArgumentError(absl::StrCat("text: byte ", at, " is not UTF-8"));
    if (IsWhitespace(character.code)) {
      if (absl::Status s = end_word(at); !s.ok()) return s;
      begin = at + character.length;
    }
    at += character.length;
  }
  return end_word(text.size());
}

absl::Status Tokenizer::EncodeBytes(std::string_view text, std::vector<int32_t>& tokens) const {
  absl::StatusOr<std::vector<std::string_view>> pieces = PreSplit(rule_, text);
  if (!pieces.ok()) return pieces.status();
  for (std::string_view piece : *pieces) {
    if (ignore_merges_) {
      const auto whole = ids_.find(View(piece));
      if (whole != ids_.end()) {
        tokens.push_back(whole->second);
        continue;
      }
    }
    if (pairs_.Encode(piece, tokens)) continue;
    return absl::InvalidArgumentError(absl::StrCat("text: ", ShowJson(std::string(piece)),
                                                   " has a byte that the vocabulary lacks"));
  }
  return absl::OkStatus();
}

std::string Tokenizer::Decode(std::span<const int32_t> tokens) const {
  std::string text;
  for (const int32_t token : tokens) {
    if (token < 0 || token >= vocabulary() || texts_[token].empty()) continue;
    if (kind_ == Kind::kWordLevel && !text.empty()) text += ' ';
    text += texts_[token];
  }
  return text;
}

std::optional<int32_t> Tokenizer::Find(std::string_view text) const {
  if (const auto at = added_.find(View(text)); at != added_.end()) return at->second;
  if (const auto at = ids_.find(View(text)); at != ids_.end()) return at->second;
  return std::nullopt;
}

bool Tokenizer::IsAdded(int32_t token) const {
  return token >= 0 && token < vocabulary() && added_.contains(texts_[token]);
}

}  // namespace kedge

#include "gpu/model/pre_split.h"

#include <algorithm>
#include <optional>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace kedge {
namespace {

enum class Class { kLetter, kNumber, kSpace, kNewline, kOther };

struct Range {
  char32_t first;
  char32_t last;
  Class kind;
};

// Sorted. A gap is a character that is not known here, or one that NFC would change.
constexpr Range kRanges[] = {
    {0x0000, 0x0008, Class::kOther},   {0x0009, 0x0009, Class::kSpace},
    {0x000a, 0x000a, Class::kNewline}, {0x000b, 0x000c, Class::kSpace},
    {0x000d, 0x000d, Class::kNewline}, {0x000e, 0x001f, Class::kOther},
    {0x0020, 0x0020, Class::kSpace},   {0x0021, 0x002f, Class::kOther},
    {0x0030, 0x0039, Class::kNumber},  {0x003a, 0x0040, Class::kOther},
    {0x0041, 0x005a, Class::kLetter},  {0x005b, 0x0060, Class::kOther},
    {0x0061, 0x007a, Class::kLetter},  {0x007b, 0x007f, Class::kOther},
    {0x00a1, 0x00a9, Class::kOther},   {0x00ab, 0x00ac, Class::kOther},
    {0x00ae, 0x00b1, Class::kOther},   {0x00b6, 0x00b7, Class::kOther},
    {0x00bf, 0x00bf, Class::kOther},   {0x00c0, 0x00d6, Class::kLetter},
    {0x00d7, 0x00d7, Class::kOther},   {0x00d8, 0x00f6, Class::kLetter},
    {0x00f7, 0x00f7, Class::kOther},   {0x00f8, 0x017e, Class::kLetter},
    {0x0391, 0x03a1, Class::kLetter},  {0x03a3, 0x03ce, Class::kLetter},
    {0x0410, 0x044f, Class::kLetter},  {0x2010, 0x2027, Class::kOther},
    {0x2030, 0x205e, Class::kOther},   {0x3041, 0x3096, Class::kLetter},
    {0x30a1, 0x30fa, Class::kLetter},  {0x4e00, 0x9fa5, Class::kLetter},
    {0xac00, 0xd7a3, Class::kLetter},
};

std::optional<Class> ClassOf(char32_t code) {
  const auto* after =
      std::upper_bound(std::begin(kRanges), std::end(kRanges), code,
                       [](char32_t value, const Range& range) { return value < range.first; });
  if (after == std::begin(kRanges) || code > (after - 1)->last) return std::nullopt;
  return (after - 1)->kind;
}

struct Character {
  Class kind;
  char32_t code;
  size_t begin;  // byte in the text
};

class Splitter {
 public:
  Splitter(PreSplitRule rule, const std::vector<Character>& characters)
      : gpt2_(rule == PreSplitRule::kGpt2),
        digits_(rule == PreSplitRule::kLlama3  ? 3
                : rule == PreSplitRule::kQwen2 ? 1
                                               : SIZE_MAX),
        characters_(characters) {}

  // The end of the piece that begins at `i`: the first alternative that matches.
  size_t EndOfPiece(size_t i) const {
    for (size_t end : {Contraction(i), Word(i), Number(i), Other(i), Spaces(i)}) {
      if (end > i) return end;
    }
    return i + 1;
  }

 private:
  bool Is(size_t i, Class kind) const {
    return i < characters_.size() && characters_[i].kind == kind;
  }
  bool IsBlank(size_t i) const { return Is(i, Class::kSpace) || Is(i, Class::kNewline); }
  bool IsSpaceCharacter(size_t i) const {
    return i < characters_.size() && characters_[i].code == ' ';
  }
  size_t RunEnd(size_t i, Class kind, size_t most = SIZE_MAX) const {
    size_t end = i;
    while (end - i < most && Is(end, kind)) ++end;
    return end;
  }
  bool Letter(size_t i, char lower) const {
    if (i >= characters_.size()) return false;
    const char32_t code = characters_[i].code;
    const char32_t wanted = static_cast<unsigned char>(lower);
    return code == wanted || (!gpt2_ && code == wanted - 32);  // GPT-2 knows small letters only
  }

  // 's 't 're 've 'm 'll 'd
  size_t Contraction(size_t i) const {
    if (characters_[i].code != '\'') return i;
    for (const char* ending : {"s", "t", "re", "ve", "m", "ll", "d"}) {
      if (!Letter(i + 1, ending[0])) continue;
      if (ending[1] == '\0') return i + 2;
      if (Letter(i + 2, ending[1])) return i + 3;
    }
    return i;
  }
  // Letters, behind one character that is no letter, number or newline (GPT-2: behind a space).
  size_t Word(size_t i) const {
    const bool lead = gpt2_ ? IsSpaceCharacter(i) : Is(i, Class::kSpace) || Is(i, Class::kOther);
    const size_t letters = lead ? i + 1 : i;
    const size_t end = RunEnd(letters, Class::kLetter);
    return end > letters ? end : i;
  }
  size_t Number(size_t i) const {
    const size_t numbers = gpt2_ && IsSpaceCharacter(i) ? i + 1 : i;
    const size_t end = RunEnd(numbers, Class::kNumber, digits_);
    return end > numbers ? end : i;
  }
  size_t Other(size_t i) const {
    const size_t others = IsSpaceCharacter(i) ? i + 1 : i;
    const size_t end = RunEnd(others, Class::kOther);
    if (end == others) return i;
    return gpt2_ ? end : RunEnd(end, Class::kNewline);
  }
  // Blanks to the last newline; else all but the last one, which goes with the next word.
  size_t Spaces(size_t i) const {
    size_t end = i;
    size_t newline_end = i;
    for (; IsBlank(end); ++end) {
      if (Is(end, Class::kNewline)) newline_end = end + 1;
    }
    if (!gpt2_ && newline_end > i) return newline_end;
    if (end == characters_.size() || end - i <= 1) return end;
    return end - 1;
  }

  const bool gpt2_;
  const size_t digits_;
  const std::vector<Character>& characters_;
};

absl::StatusOr<std::vector<Character>> Classify(std::string_view text) {
  std::vector<Character> characters;
  characters.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    const Utf8Character character = ReadUtf8(text, at);
    if (character.length == 0) {
      return absl::InvalidArgumentError(absl::StrCat("text: byte ", at, " is not UTF-8"));
    }
    const std::optional<Class> kind = ClassOf(character.code);
    if (!kind.has_value()) {
      return absl::UnimplementedError(
          absl::StrFormat("text: character U+%04X at byte %d: its class is not known here",
                          static_cast<uint32_t>(character.code), at));
    }
    characters.push_back({*kind, character.code, at});
    at += character.length;
  }
  return characters;
}

}  // namespace

const char* PreSplitPattern(PreSplitRule rule) {
  switch (rule) {
    case PreSplitRule::kNone:
      return nullptr;
    case PreSplitRule::kGpt2:
      return R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
    case PreSplitRule::kLlama3:
      return R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|)"
             R"( ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
    case PreSplitRule::kQwen2:
      return R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|)"
             R"( ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
  }
  return nullptr;
}

absl::StatusOr<std::vector<std::string_view>> PreSplit(PreSplitRule rule, std::string_view text) {
  std::vector<std::string_view> pieces;
  if (text.empty()) return pieces;
  if (rule == PreSplitRule::kNone) return std::vector<std::string_view>{text};
  absl::StatusOr<std::vector<Character>> characters = Classify(text);
  if (!characters.ok()) return characters.status();
  const Splitter splitter(rule, *characters);
  for (size_t i = 0; i < characters->size();) {
    const size_t end = splitter.EndOfPiece(i);
    const size_t begin_byte = (*characters)[i].begin;
    const size_t end_byte = end < characters->size() ? (*characters)[end].begin : text.size();
    pieces.push_back(text.substr(begin_byte, end_byte - begin_byte));
    i = end;
  }
  return pieces;
}

Utf8Character ReadUtf8(std::string_view text, size_t at) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char lead = byte(at);
  if (lead < 0x80) return {lead, 1};
  const size_t length = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
  if (lead < 0xc2 || lead > 0xf4 || text.size() - at < length) return {};
  char32_t code = lead & (0xff >> (length + 1));
  for (size_t i = 1; i < length; ++i) {
    if ((byte(at + i) & 0xc0) != 0x80) return {};
    code = code << 6 | (byte(at + i) & 0x3f);
  }
  constexpr char32_t kSmallest[] = {0, 0, 0x80, 0x800, 0x10000};
  if (code < kSmallest[length] || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff)) return {};
  return {code, length};
}

}  // namespace kedge

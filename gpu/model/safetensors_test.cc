#include "gpu/model/safetensors.h"

#include <sys/stat.h>

#include <cstdlib>
#include <fstream>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "gpu/kernels/cast.h"

namespace kedge {
namespace {

std::string File(const std::string& header, size_t data_bytes) {
  std::string file;
  for (int i = 0; i < 8; ++i) file.push_back(static_cast<char>(uint64_t{header.size()} >> (8 * i)));
  return file + header + std::string(data_bytes, '\1');
}

absl::StatusOr<std::map<std::string, TensorInfo>> Parse(const std::string& file) {
  return ParseSafetensors({reinterpret_cast<const uint8_t*>(file.data()), file.size()}, "f");
}

std::string ErrorOf(const std::string& header, size_t data_bytes) {
  const auto result = Parse(File(header, data_bytes));
  EXPECT_EQ(result.status().code(), absl::StatusCode::kInvalidArgument) << header;
  return std::string(result.status().message());
}

std::string Entry(const std::string& dtype, const std::string& shape, const std::string& offsets) {
  return R"({"dtype":")" + dtype + R"(","shape":)" + shape + R"(,"data_offsets":)" + offsets + "}";
}

TEST(Safetensors, ReadsEveryFloatTypeAndSkipsOthers) {
  const std::string header =
      R"({"__metadata__":{"format":"pt"},"a":)" + Entry("F32", "[2,3]", "[0,24]") + R"(,"b":)" +
      Entry("BF16", "[]", "[24,26]") + R"(,"c":)" + Entry("I64", "[1]", "[26,34]") + R"(,"d":)" +
      Entry("F16", "[0,5]", "[34,34]") + "}  ";
  const auto tensors = Parse(File(header, 34));
  ASSERT_TRUE(tensors.ok()) << tensors.status();
  ASSERT_EQ(tensors->size(), 3u);
  const TensorInfo& a = tensors->at("a");
  EXPECT_EQ(a.dtype, DType::kF32);
  EXPECT_EQ(a.shape, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(a.begin, 8 + header.size());
  EXPECT_EQ(a.bytes, 24u);
  EXPECT_EQ(tensors->at("b").elements(), 1);
  EXPECT_EQ(tensors->at("b").dtype, DType::kBf16);
  EXPECT_EQ(tensors->at("d").elements(), 0);
}

TEST(Safetensors, AHeaderLengthThatLies) {
  EXPECT_EQ(Parse("").status().message(), "f: header length: the file has only 0 bytes");
  EXPECT_EQ(Parse("1234567").status().message(), "f: header length: the file has only 7 bytes");
  std::string past = File("{}", 0);
  past[0] = 3;
  EXPECT_EQ(Parse(past).status().message(),
            "f: header length: 3 is past the end of a file of 10 bytes");
  std::string huge = File("{}", 0);
  huge[7] = '\xff';
  EXPECT_EQ(Parse(huge).status().message(),
            "f: header length: 18374686479671623682 is above the limit 16777216");
}

TEST(Safetensors, AHeaderThatIsNoFlatObject) {
  EXPECT_EQ(ErrorOf("", 0), "f: header: not valid JSON (0 bytes)");
  EXPECT_EQ(ErrorOf(R"({"a":)", 0), "f: header: not valid JSON (5 bytes)");
  EXPECT_EQ(ErrorOf("[1]", 0), "f: header: JSON object expected, found [1]");
  EXPECT_EQ(ErrorOf(R"({"a":[[[[[1]]]]]})", 0), "f: header: JSON nested more than 3 deep");
  EXPECT_EQ(ErrorOf(std::string(1 << 20, '['), 0), "f: header: JSON nested more than 3 deep");
  const std::string a = R"("a":)" + Entry("F32", "[1]", "[0,4]");
  EXPECT_EQ(ErrorOf("{" + a + "," + a + "}", 4), "f: header: JSON key \"a\" appears twice");
  EXPECT_EQ(ErrorOf(R"({"a":7})", 0), R"(f: tensor "a": entry: 7 is not an object)");
  EXPECT_EQ(ErrorOf(R"({"a":{"dtype":"F32","shape":[1]}})", 4),
            R"(f: tensor "a": data_offsets: missing field)");
  EXPECT_EQ(ErrorOf(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"x":1}})", 4),
            R"(f: tensor "a": entry: unknown field "x")");
}

TEST(Safetensors, TypesAndShapesThatLie) {
  const auto error = [](const std::string& entry) { return ErrorOf("{\"a\":" + entry + "}", 8); };
  EXPECT_EQ(error(Entry("F33", "[2]", "[0,8]")), R"(f: tensor "a": dtype: "F33" is unknown)");
  EXPECT_EQ(error(Entry("F32", "2", "[0,8]")),
            R"(f: tensor "a": shape: 2 is not a list of at most 8)");
  EXPECT_EQ(error(Entry("F32", "[-2]", "[0,8]")), R"(f: tensor "a": shape: -2 is not a dimension)");
  EXPECT_EQ(error(Entry("F32", "[2.5]", "[0,8]")),
            R"(f: tensor "a": shape: 2.5 is not a dimension)");
  EXPECT_EQ(error(Entry("F32", "[4294967296,4294967296]", "[0,8]")),
            R"(f: tensor "a": shape: [4294967296,4294967296] is too large)");
  EXPECT_EQ(error(Entry("F32", "[18446744073709551615]", "[0,8]")),
            R"(f: tensor "a": shape: [18446744073709551615] is too large)");
  EXPECT_EQ(error(Entry("F32", "[1,1,1,1,1,1,1,1,2]", "[0,8]")),
            R"(f: tensor "a": shape: [1,1,1,1,1,1,1,1,2] is not a list of at most 8)");
}

TEST(Safetensors, OffsetsThatLie) {
  const auto error = [](const std::string& offsets) {
    return ErrorOf("{\"a\":" + Entry("F32", "[2]", offsets) + "}", 8);
  };
  EXPECT_EQ(error("[0,8,9]"), R"(f: tensor "a": data_offsets: [0,8,9] is not [begin, end])");
  EXPECT_EQ(error("[-8,0]"), R"(f: tensor "a": data_offsets: [-8,0] is not [begin, end])");
  EXPECT_EQ(error("[8,0]"),
            R"(f: tensor "a": data_offsets: [8,0] is not inside the file's 8 bytes of data)");
  EXPECT_EQ(error("[4,12]"),
            R"(f: tensor "a": data_offsets: [4,12] is not inside the file's 8 bytes of data)");
  EXPECT_EQ(error("[18446744073709551612,4]"),
            R"(f: tensor "a": data_offsets: [18446744073709551612,4] is not inside )"
            R"(the file's 8 bytes of data)");
  EXPECT_EQ(error("[0,4]"),
            R"(f: tensor "a": data_offsets: [0,4] is 4 bytes, but F32 [2] takes 8)");
}

TEST(Safetensors, OverlapsHolesAndRests) {
  const auto two = [](const std::string& a, const std::string& b) {
    return "{\"a\":" + Entry("F32", "[1]", a) + ",\"b\":" + Entry("F32", "[2]", b) + "}";
  };
  EXPECT_TRUE(Parse(File(two("[0,4]", "[4,12]"), 12)).ok());
  EXPECT_TRUE(Parse(File(two("[8,12]", "[0,8]"), 12)).ok());
  EXPECT_EQ(ErrorOf(two("[0,4]", "[2,10]"), 12),
            "f: tensor \"b\": data_offsets: begins at 2, inside the tensor before it, which ends "
            "at 4");
  EXPECT_EQ(ErrorOf(two("[0,4]", "[5,13]"), 13),
            "f: tensor \"b\": data_offsets: begins at 5, after a hole: the tensor before it ends "
            "at 4");
  EXPECT_EQ(ErrorOf(two("[0,4]", "[4,12]"), 14),
            "f: data: tensors take 12 bytes, but the file has 14");
}

TEST(Safetensors, EveryTruncationIsRefused) {
  const std::string file = File("{\"a\":" + Entry("F32", "[3]", "[0,12]") + "}", 12);
  ASSERT_TRUE(Parse(file).ok());
  for (size_t bytes = 0; bytes < file.size(); ++bytes) {
    EXPECT_FALSE(Parse(file.substr(0, bytes)).ok()) << bytes;
  }
}

class CheckpointTest : public testing::Test {
 protected:
  void SetUp() override {
    const char* root = std::getenv("TEST_TMPDIR");
    const auto* info = testing::UnitTest::GetInstance()->current_test_info();
    directory_ = std::string(root == nullptr ? "/tmp" : root) + "/" + info->name();
    ::mkdir(directory_.c_str(), 0777);
  }
  void Write(const std::string& name, const std::string& content) {
    std::ofstream file(directory_ + "/" + name, std::ios::binary);
    file << content;
  }
  std::string Error() {
    const absl::StatusOr<Checkpoint> checkpoint = Checkpoint::Open(directory_);
    EXPECT_FALSE(checkpoint.ok());
    const std::string message(checkpoint.status().message());
    const size_t at = message.find(directory_ + "/");
    return at == 0 ? message.substr(directory_.size() + 1) : message;
  }
  std::string One(const std::string& name) {
    return File("{\"" + name + "\":" + Entry("F32", "[2]", "[0,8]") + "}", 8);
  }

  std::string directory_;
};

TEST_F(CheckpointTest, ReadsOneFile) {
  Write("model.safetensors", One("a"));
  const absl::StatusOr<Checkpoint> checkpoint = Checkpoint::Open(directory_);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  std::vector<float> values(2);
  ASSERT_TRUE(checkpoint->Read("a", {2}, values.data()).ok());
  EXPECT_EQ(values[0], values[1]);
  EXPECT_NE(values[0], 0.0f);
  EXPECT_EQ(
      checkpoint->Read("a", {1, 2}, values.data()).message(),
      directory_ + "/model.safetensors: tensor \"a\": shape: [2], but config.json needs [1, 2]");
  EXPECT_EQ(checkpoint->CheckShape("b", {2}).code(), absl::StatusCode::kNotFound);
}

TEST_F(CheckpointTest, ReadsShards) {
  Write("x.safetensors", One("a"));
  Write("y.safetensors", One("b"));
  Write("model.safetensors.index.json",
        R"({"metadata":{},"weight_map":{"a":"x.safetensors","b":"y.safetensors"}})");
  const absl::StatusOr<Checkpoint> checkpoint = Checkpoint::Open(directory_);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_TRUE(checkpoint->CheckShape("a", {2}).ok());
  EXPECT_TRUE(checkpoint->CheckShape("b", {2}).ok());
}

TEST_F(CheckpointTest, RefusesIndexesThatLie) {
  EXPECT_EQ(Checkpoint::Open(directory_).status().code(), absl::StatusCode::kNotFound);
  Write("x.safetensors", One("a"));
  Write("y.safetensors", One("a"));
  const std::string index = "model.safetensors.index.json";
  Write(index, "{}");
  EXPECT_EQ(Error(), index + ": weight_map: missing field");
  Write(index, R"({"weight_map":{"a":"../x.safetensors"}})");
  EXPECT_EQ(Error(), index + ": tensor \"a\": weight_map: \"../x.safetensors\" is not a file name");
  Write(index, R"({"weight_map":{"a":7}})");
  EXPECT_EQ(Error(), index + ": tensor \"a\": weight_map: 7 is not a file name");
  Write(index, R"({"weight_map":{"a":"x.safetensors","b":"y.safetensors"}})");
  EXPECT_EQ(Error(),
            "y.safetensors: tensor \"a\": entry: is also in " + directory_ + "/x.safetensors");
  Write(index, R"({"weight_map":{"a":"gone.safetensors"}})");
  EXPECT_EQ(Checkpoint::Open(directory_).status().code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace kedge

// Questions that wait: in turn, bounded, with their deadlines.
#include "store/node/mix_queue.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "store/node/anchor_testing.h"
#include "store/world/executor_stepped.h"
#include "store/world/limits.h"

namespace kedge {
namespace {

using ::testing::HasSubstr;

class MixQueueTest : public ::testing::Test {
 protected:
  ~MixQueueTest() override { executor_.Shutdown(); }

  void Learn(const offset::Anchor& anchor) {
    const TestBlock block = AnchorBlock(pool_, anchor);
    const ImageLayout layout{static_cast<uint32_t>(block.encoded.size()), block.payload.size()};
    const HostSlot slot = *room_.Allocate(layout.image_bytes());
    std::copy(block.encoded.begin(), block.encoded.end(), host_->Data(slot));
    std::copy(block.payload.begin(), block.payload.end(),
              host_->Data(slot) + layout.payload_offset());
    NewBlock fresh = NewBlock::Of(block.header, *map_.variants().Intern(block.header.variant));
    fresh.host = slot;
    BlockRef ref;
    ASSERT_TRUE(map_.Insert(fresh, &ref));
    AnchorStore::InsertAsk ask{.pool = pool_.key, .placement = pool_.placement, .key = anchor.key};
    ask.block = std::move(ref);
    ResultCode code = ResultCode::kInternal;
    store_.Insert(std::move(ask), [&](AnchorStore::InsertAnswer answer) { code = answer.code; });
    executor_.RunAll();
    EXPECT_EQ(code, ResultCode::kOk);
  }
  // Answers land in answers_, in the order of their coming.
  void Ask(const MixBody& mix, int64_t deadline_us = INT64_MAX) {
    const size_t number = asked_.size();
    asked_.push_back(std::make_shared<std::atomic<bool>>(false));
    queue_.Ask({.mix = mix,
                .deadline_us = deadline_us,
                .cancelled = asked_.back(),
                .done = [this, number](MixQueue::Answer answer) {
                  answers_.emplace_back(number, std::move(answer));
                }});
  }

  SimulatedClock clock_;
  SteppedExecutor executor_{clock_};
  std::unique_ptr<HostTier> host_ = *HostTier::Create({.capacity_bytes = kHostExtentBytes});
  BlockMap map_{*host_};
  HostRoom room_{*host_, map_};
  Mover mover_{map_, *host_, room_, nullptr, executor_, clock_};
  AnchorStore store_{AnchorStore::Parts{map_, *host_, room_, mover_, nullptr, executor_}, 1 << 20};
  MixQueue queue_{store_, executor_, clock_};
  TestPool pool_{1};
  std::vector<std::shared_ptr<std::atomic<bool>>> asked_;
  std::vector<std::pair<size_t, MixQueue::Answer>> answers_;
};

TEST_F(MixQueueTest, AnswersInTurn) {
  for (uint32_t seed = 0; seed < 3; ++seed) Learn(TestAnchor(5, seed));
  for (uint32_t seed = 50; seed < 60; ++seed) Ask(QuestionOf(pool_, TestAnchor(5, seed)));
  EXPECT_TRUE(answers_.empty());  // nothing happens inside the call
  executor_.RunAll();
  ASSERT_EQ(answers_.size(), 10u);
  for (size_t i = 0; i < 10; ++i) {
    EXPECT_EQ(answers_[i].first, i);
    EXPECT_EQ(answers_[i].second.reply.runs, 3u);
    EXPECT_FALSE(answers_[i].second.mixed->bytes.empty());
  }
}

TEST_F(MixQueueTest, WhatIsLateOrCancelledIsNotMixed) {
  for (uint32_t seed = 0; seed < 3; ++seed) Learn(TestAnchor(5, seed));
  const MixBody question = QuestionOf(pool_, TestAnchor(5, 50));
  Ask(question, clock_.NowUs() + 1000);
  Ask(question);
  Ask(question);
  *asked_[1] = true;
  clock_.AdvanceUs(1000);
  executor_.RunAll();
  ASSERT_EQ(answers_.size(), 3u);
  EXPECT_EQ(answers_[0].second.code, ResultCode::kDeadline);
  EXPECT_THAT(answers_[0].second.text, HasSubstr("deadline_ms"));
  EXPECT_EQ(answers_[1].second.code, ResultCode::kCancelled);
  EXPECT_EQ(answers_[2].second.code, ResultCode::kOk);
  EXPECT_EQ(answers_[0].second.mixed, nullptr);
  EXPECT_EQ(answers_[1].second.mixed, nullptr);
}

TEST_F(MixQueueTest, AFullQueueRefusesAndGoesOn) {
  Learn(TestAnchor(5, 0));
  const MixBody question = QuestionOf(pool_, TestAnchor(5, 50));
  for (uint32_t i = 0; i < kMixesWaitingMax + 3; ++i) Ask(question);
  executor_.RunAll();
  uint32_t refused = 0;
  for (const auto& [number, answer] : answers_) {
    refused += answer.code == ResultCode::kExhausted;
    if (answer.code == ResultCode::kExhausted) {
      EXPECT_GE(number, kMixesWaitingMax);
    }
  }
  EXPECT_EQ(answers_.size(), kMixesWaitingMax + 3);
  EXPECT_EQ(refused, 3u);
  answers_.clear();
  Ask(question);
  executor_.RunAll();
  EXPECT_EQ(answers_.at(0).second.code, ResultCode::kOk);
}

// Answers that are being sent count until they are gone.
TEST_F(MixQueueTest, BytesThatAreHeldAreBounded) {
  MixBody question = QuestionOf(pool_, TestAnchor(5, 50));
  question.shape.layers = 1'024;
  question.shape.width = 4'096;
  question.shape.prefix_tokens = 0;
  question.tokens = 6;  // 201 MB of rows
  question.sketch.assign(size_t{6} * kSketchFloats, 0.0f);
  const uint64_t fit = kMixBytesHeldMax / (uint64_t{1'023} * 2 * 6 * 4'096 * 4);
  for (uint64_t i = 0; i <= fit; ++i) Ask(question);
  executor_.RunAll();
  EXPECT_EQ(answers_.size(), fit + 1);
  for (const auto& [number, answer] : answers_) {
    if (number < fit) {
      EXPECT_EQ(answer.reply.verdict, PoolVerdict::kNoPool);
    } else {
      EXPECT_EQ(answer.code, ResultCode::kExhausted);
    }
  }
  // One answer alone that is too large never fits.
  question.tokens = kMixTokensMax;
  question.sketch.assign(size_t{kMixTokensMax} * kSketchFloats, 0.0f);
  answers_.clear();
  Ask(question);
  executor_.RunAll();
  EXPECT_EQ(answers_.at(0).second.reply.verdict, PoolVerdict::kTooLarge);
}

}  // namespace
}  // namespace kedge

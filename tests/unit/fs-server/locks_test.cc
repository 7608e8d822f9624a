// SPDX-License-Identifier: BSD-3-Clause
#include <fcntl.h>
#include <sys/file.h>

#include <algorithm>
#include <cerrno>
#include <future>
#include <string>

#include "fs-server/lock_manager.h"
#include "nic/base/fd.h"
#include "tests/unit/fs-server/fixture.h"

namespace tripwire::fs {
namespace {

LockManager::Request Range(uint64_t owner, bool exclusive, uint64_t start, uint64_t end) {
  LockManager::Request request;
  request.owner = {1, owner};
  request.exclusive = exclusive;
  request.start = start;
  request.end = end;
  return request;
}

FileId File(uint8_t n) {
  FileId id;
  id.size = 1;
  id.bytes[0] = n;
  return id;
}

TEST(LockManagerTest, ConflictsOfRanges) {
  LockManager locks;
  EXPECT_EQ(locks.Try(File(1), Range(1, true, 10, 19)), 0);
  EXPECT_EQ(locks.Try(File(1), Range(2, true, 0, 9)), 0);
  EXPECT_EQ(locks.Try(File(1), Range(2, true, 20, UINT64_MAX)), 0);
  EXPECT_EQ(locks.Try(File(1), Range(2, false, 19, 25)), EAGAIN);
  EXPECT_EQ(locks.Try(File(2), Range(2, true, 0, UINT64_MAX)), 0);
  EXPECT_EQ(locks.Try(File(1), Range(1, false, 10, 19)), 0);  // down to shared
  EXPECT_EQ(locks.Try(File(1), Range(3, false, 12, 13)), 0);
  EXPECT_EQ(locks.Try(File(1), Range(1, true, 10, 19)), EAGAIN);  // not up again
}

TEST(LockManagerTest, UnlockSplitsAndLockMerges) {
  LockManager locks;
  EXPECT_EQ(locks.Try(File(1), Range(1, true, 0, 99)), 0);
  locks.Unlock(File(1), Range(1, true, 40, 59));
  EXPECT_EQ(locks.Try(File(1), Range(2, true, 40, 59)), 0);
  EXPECT_EQ(locks.Try(File(1), Range(2, true, 39, 39)), EAGAIN);
  EXPECT_EQ(locks.Try(File(1), Range(2, true, 60, 60)), EAGAIN);
  locks.Unlock(File(1), Range(2, true, 0, UINT64_MAX));
  EXPECT_EQ(locks.Try(File(1), Range(1, true, 40, 59)), 0);
  auto conflict = locks.Test(File(1), Range(2, false, 50, 50));
  ASSERT_TRUE(conflict.has_value());
  EXPECT_EQ(conflict->start, 0u);  // one lock again
  EXPECT_EQ(conflict->end, 99u);
  // The middle to shared: three pieces.
  EXPECT_EQ(locks.Try(File(1), Range(1, false, 40, 59)), 0);
  EXPECT_EQ(locks.Try(File(1), Range(2, false, 45, 50)), 0);
  EXPECT_EQ(locks.Try(File(1), Range(2, false, 30, 50)), EAGAIN);
}

TEST(LockManagerTest, WaitersAreServedAndCancelled) {
  LockManager locks;
  EXPECT_EQ(locks.Try(File(1), Range(1, true, 0, 9)), 0);
  int second = -1, third = -1;
  EXPECT_EQ(locks.Wait(File(1), Range(2, true, 0, 4), 7, [&](int e) { second = e; }),
            EINPROGRESS);
  EXPECT_EQ(locks.Wait(File(1), Range(3, true, 0, 9), 8, [&](int e) { third = e; }),
            EINPROGRESS);
  locks.Unlock(File(1), Range(1, true, 0, 2));
  EXPECT_EQ(second, -1);
  locks.Unlock(File(1), Range(1, true, 3, 9));
  EXPECT_EQ(second, 0);
  EXPECT_EQ(third, -1);
  EXPECT_TRUE(locks.Cancel(1, 8));
  EXPECT_FALSE(locks.Cancel(1, 8));
  EXPECT_FALSE(locks.Cancel(1, 7));  // it has it
  EXPECT_EQ(locks.waiting(), 0u);
  locks.Unlock(File(1), Range(2, true, 0, 9));
  EXPECT_EQ(third, -1);  // nobody asks for it any more
  EXPECT_EQ(locks.Try(File(1), Range(4, true, 0, 9)), 0);
}

TEST(LockManagerTest, ARequestOvertakenByItsCancellationIsRefused) {
  LockManager locks;
  EXPECT_FALSE(locks.Cancel(1, 5));
  EXPECT_EQ(locks.Wait(File(1), Range(1, true, 0, 9), 5, {}), EINTR);
  EXPECT_EQ(locks.Try(File(1), Range(2, true, 0, 9)), 0);
}

TEST(LockManagerTest, ServedInOrderOfArrival) {
  LockManager locks;
  EXPECT_EQ(locks.Try(File(1), Range(1, true, 0, 9)), 0);
  std::vector<uint64_t> order;
  for (uint64_t owner = 2; owner < 3000; ++owner) {
    EXPECT_EQ(locks.Wait(File(1), Range(owner, true, 0, 9), owner,
                         [&order, owner](int) { order.push_back(owner); }),
              EINPROGRESS);
  }
  for (uint64_t owner = 1; owner < 2999; ++owner) {
    locks.Unlock(File(1), Range(owner, true, 0, 9));
    ASSERT_EQ(order.size(), owner);
    EXPECT_EQ(order.back(), owner + 1);
  }
}

TEST(LockManagerTest, NobodyOvertakesThoseWhoReclaim) {
  LockManager locks;
  locks.HoldBack();
  int one = -1, two = -1;
  EXPECT_EQ(locks.Wait(File(1), Range(1, true, 0, 9), 1, [&](int e) { one = e; }),
            EINPROGRESS);
  EXPECT_EQ(locks.Wait(File(2), Range(1, true, 0, 9), 2, [&](int e) { two = e; }),
            EINPROGRESS);
  EXPECT_EQ(locks.Try(File(1), Range(2, true, 5, 5)), 0);
  locks.LetGo();
  EXPECT_EQ(one, -1);
  EXPECT_EQ(two, 0);
  locks.Unlock(File(1), Range(2, true, 5, 5));
  EXPECT_EQ(one, 0);
}

TEST(LockManagerTest, DeadlocksAreRefused) {
  LockManager locks;
  EXPECT_EQ(locks.Try(File(1), Range(1, true, 0, 0)), 0);
  EXPECT_EQ(locks.Try(File(2), Range(2, true, 0, 0)), 0);
  EXPECT_EQ(locks.Try(File(3), Range(3, true, 0, 0)), 0);
  int one = -1, two = -1, three = -1;
  locks.Wait(File(2), Range(1, true, 0, 0), 1, [&](int e) { one = e; });
  locks.Wait(File(3), Range(2, true, 0, 0), 2, [&](int e) { two = e; });
  EXPECT_EQ(locks.Wait(File(1), Range(3, true, 0, 0), 3, [&](int e) { three = e; }), EDEADLK);
  EXPECT_EQ(one, -1);
  EXPECT_EQ(two, -1);
  EXPECT_EQ(three, -1);
  locks.Unlock(File(3), Range(3, true, 0, 0));
  EXPECT_EQ(two, 0);
}

TEST(LockManagerTest, ASessionsEndFreesWhatOthersWaitFor) {
  LockManager locks;
  auto other = Range(5, true, 0, UINT64_MAX);
  other.owner.session = 2;
  EXPECT_EQ(locks.Try(File(1), Range(1, true, 0, 0)), 0);
  int granted = -1, mine = -1;
  locks.Wait(File(1), other, 1, [&](int e) { granted = e; });
  EXPECT_EQ(locks.Try(File(2), other), 0);
  locks.Wait(File(2), Range(9, true, 0, 0), 2, [&](int e) { mine = e; });
  locks.EndSession(1);
  EXPECT_EQ(granted, 0);
  EXPECT_EQ(locks.waiting(), 0u);
  locks.Unlock(File(2), other);
  EXPECT_EQ(mine, -1);  // it was dropped
}

TEST(LockManagerTest, FlockConversionGivesUpTheOldLock) {
  LockManager locks;
  auto one = Range(1, false, 0, UINT64_MAX);
  auto two = Range(2, false, 0, UINT64_MAX);
  one.kind = two.kind = LockManager::Kind::kFlock;
  EXPECT_EQ(locks.Try(File(1), one), 0);
  EXPECT_EQ(locks.Try(File(1), two), 0);
  one.exclusive = true;
  EXPECT_EQ(locks.Try(File(1), one), EAGAIN);
  two.exclusive = true;
  EXPECT_EQ(locks.Try(File(1), two), 0);  // the other's shared lock went
  auto posix = Range(3, true, 0, 10);
  EXPECT_EQ(locks.Try(File(1), posix), 0);  // the kinds do not meet
}

class LocksTest : public FsTest {
 protected:
  void SetUp() override {
    Start();
    a = Connect();
    b = Connect();
    f = a->Create(a->root(), "f").reply.handle();
  }
  int Lock(Peer& peer, pb::LockType type, pb::LockAction action, uint64_t owner = 1,
           uint64_t start = 0, uint64_t length = 0) {
    return peer.Do(peer.LockCall(f, pb::LOCK_KIND_POSIX, type, action, owner, start, length))
        .error();
  }
  // Of the whole file.
  int TryLock(Peer& peer, uint64_t owner = 1) {
    return Lock(peer, pb::LOCK_TYPE_WRITE, pb::LOCK_ACTION_TRY, owner);
  }
  int Unlock(Peer& peer, uint64_t owner = 1) {
    return Lock(peer, pb::LOCK_TYPE_UNLOCK, pb::LOCK_ACTION_TRY, owner);
  }
  pb::Call WaitCall(Peer& peer, uint64_t wait, uint64_t owner, uint64_t start = 0,
                    uint64_t length = 0, pb::LockType type = pb::LOCK_TYPE_WRITE) {
    auto call = peer.LockCall(f, pb::LOCK_KIND_POSIX, type, pb::LOCK_ACTION_WAIT, owner, start,
                              length);
    call.mutable_lock()->set_wait(wait);
    return call;
  }
  int Wait(Peer& peer, uint64_t wait, uint64_t owner, uint64_t start = 0, uint64_t length = 0,
           pb::LockType type = pb::LOCK_TYPE_WRITE) {
    return peer.Do(WaitCall(peer, wait, owner, start, length, type)).error();
  }
  int CancelWait(Peer& peer, uint64_t wait) {
    auto call = peer.New();
    call.mutable_lock()->set_action(pb::LOCK_ACTION_CANCEL);
    call.mutable_lock()->set_wait(wait);
    return peer.Do(call).error();
  }
  // While the peer recovers: it takes its lock of the whole file again, and has
  // taken all it had.
  void Reclaim(Peer& peer) {
    auto call =
        peer.LockCall(f, pb::LOCK_KIND_POSIX, pb::LOCK_TYPE_WRITE, pb::LOCK_ACTION_TRY, 1);
    call.mutable_lock()->set_reclaim(true);
    EXPECT_EQ(peer.Do(call, {}, 0, nullptr, true).error(), 0);
  }
  static void ReclaimDone(Peer& peer) {
    auto call = peer.New();
    call.mutable_reclaim_done();
    EXPECT_EQ(peer.Do(call, {}, 0, nullptr, true).error(), 0);
  }
  // What the peer was told of its waits, in order.
  static std::vector<uint64_t> Grants(Peer& peer) {
    std::vector<uint64_t> waits;
    for (const auto& notice : peer.notices()) {
      for (const auto& grant : notice.grants()) {
        EXPECT_EQ(grant.error(), 0);
        waits.push_back(grant.wait());
      }
    }
    return waits;
  }
  std::unique_ptr<Peer> a, b;
  std::string f;
};

TEST_F(LocksTest, ExcludeOtherClients) {
  EXPECT_EQ(Lock(*a, pb::LOCK_TYPE_WRITE, pb::LOCK_ACTION_TRY, 1, 10, 10), 0);
  EXPECT_EQ(Lock(*b, pb::LOCK_TYPE_READ, pb::LOCK_ACTION_TRY, 1, 15, 1), EAGAIN);
  auto test = b->Do(b->LockCall(f, pb::LOCK_KIND_POSIX, pb::LOCK_TYPE_WRITE,
                                pb::LOCK_ACTION_TEST, 1));
  EXPECT_EQ(test.reply.lock().type(), pb::LOCK_TYPE_WRITE);
  EXPECT_EQ(test.reply.lock().start(), 10u);
  EXPECT_EQ(test.reply.lock().length(), 10u);
  EXPECT_EQ(test.reply.lock().pid(), 0u);
  EXPECT_EQ(Unlock(*a), 0);
  EXPECT_EQ(TryLock(*b), 0);
}

TEST_F(LocksTest, WaitingHoldsNeitherThreadNorCall) {
  ASSERT_EQ(TryLock(*a), 0);
  // Many more waiters than a session has call slots.
  constexpr uint64_t kWaiters = 2000;
  for (uint64_t i = 1; i <= kWaiters; ++i) ASSERT_EQ(Wait(*b, i, 100 + i), EINPROGRESS);
  EXPECT_EQ(files->locks().waiting(), kWaiters);
  EXPECT_EQ(b->GetAttr(f).error(), 0);
  EXPECT_TRUE(Grants(*b).empty());
  EXPECT_EQ(Unlock(*a), 0);
  for (uint64_t i = 1; i <= kWaiters; ++i) {
    ASSERT_TRUE(Eventually([&] { return Grants(*b).size() >= i; }));
    ASSERT_EQ(Unlock(*b, 100 + i), 0);
  }
  const auto grants = Grants(*b);
  ASSERT_EQ(grants.size(), kWaiters);  // each once, in order
  EXPECT_TRUE(std::is_sorted(grants.begin(), grants.end()));
  for (const auto& notice : b->notices()) {
    for (const auto& grant : notice.grants()) {
      EXPECT_EQ(grant.epoch(), b->greeting().lock_epoch());
    }
  }
}

TEST_F(LocksTest, WaitingCanBeInterrupted) {
  ASSERT_EQ(TryLock(*a), 0);
  ASSERT_EQ(Wait(*b, 1, 1), EINPROGRESS);
  EXPECT_EQ(CancelWait(*b, 1), 0);
  EXPECT_EQ(CancelWait(*b, 1), ENOENT);
  EXPECT_EQ(Unlock(*a), 0);
  EXPECT_EQ(TryLock(*a, 2), 0);
  EXPECT_TRUE(Grants(*b).empty());
}

TEST_F(LocksTest, ACancellationThatComesTooLateIsFollowedByTheGrant) {
  ASSERT_EQ(TryLock(*a), 0);
  ASSERT_EQ(Wait(*b, 1, 1), EINPROGRESS);
  EXPECT_EQ(Unlock(*a), 0);
  EXPECT_EQ(CancelWait(*b, 1), ENOENT);
  ASSERT_TRUE(Eventually([&] { return Grants(*b).size() == 1; }));
  EXPECT_EQ(TryLock(*a), EAGAIN);
}

TEST_F(LocksTest, AGrantSurvivesACutLink) {
  ASSERT_EQ(TryLock(*a), 0);
  ASSERT_EQ(Wait(*b, 1, 1), EINPROGRESS);
  net.Cut();
  LockManager::Request range;
  range.owner = {a->client().session_id(), 1};
  auto id = files->codec().Decode(files->exports()[0]->id, f);
  ASSERT_TRUE(id.has_value());
  files->locks().Unlock(*id, range);
  EXPECT_TRUE(Grants(*b).empty());
  net.Heal();
  EXPECT_TRUE(Eventually([&] { return Grants(*b).size() == 1; }));
}

TEST_F(LocksTest, EndWithTheirSessionOrTheirFile) {
  ASSERT_EQ(TryLock(*a), 0);
  ASSERT_EQ(Wait(*b, 1, 1), EINPROGRESS);
  auto dead = Connect();
  ASSERT_EQ(Wait(*dead, 1, 1), EINPROGRESS);
  dead->Disconnect();
  ASSERT_TRUE(Eventually([&] { return files->locks().waiting() == 1; }));
  a->Disconnect();
  EXPECT_TRUE(Eventually([&] { return Grants(*b).size() == 1; }));
  auto call = b->New();
  call.mutable_close()->set_handle(f);
  call.mutable_close()->set_unlock_posix(true);
  call.mutable_close()->set_posix_owner(1);
  EXPECT_EQ(b->Do(call).error(), 0);
  auto c = Connect();
  EXPECT_EQ(TryLock(*c), 0);
}

TEST_F(LocksTest, DeadlockAcrossClients) {
  ASSERT_EQ(Lock(*a, pb::LOCK_TYPE_WRITE, pb::LOCK_ACTION_TRY, 1, 0, 1), 0);
  ASSERT_EQ(Lock(*b, pb::LOCK_TYPE_WRITE, pb::LOCK_ACTION_TRY, 1, 1, 1), 0);
  ASSERT_EQ(Wait(*a, 1, 1, 1, 1), EINPROGRESS);
  EXPECT_EQ(Wait(*b, 1, 1, 0, 1), EDEADLK);
  EXPECT_EQ(Unlock(*b), 0);
  EXPECT_TRUE(Eventually([&] { return Grants(*a).size() == 1; }));
}

TEST_F(LocksTest, WaitersRideThroughARestart) {
  ASSERT_EQ(TryLock(*a), 0);
  ASSERT_EQ(Wait(*b, 1, 1), EINPROGRESS);
  std::atomic<uint64_t> epoch{0};
  a->on_recovered = [&](Peer& peer, const pb::GreetingReply&) {
    // The other client asks again before we have reclaimed.
    EXPECT_TRUE(Eventually([&] { return epoch.load() != 0; }));
    Reclaim(peer);
    ReclaimDone(peer);
  };
  b->on_recovered = [&](Peer& peer, const pb::GreetingReply& reply) {
    EXPECT_EQ(peer.Do(WaitCall(peer, 1, 1), {}, 0, nullptr, true).error(), EINPROGRESS);
    ReclaimDone(peer);
    epoch = reply.lock_epoch();
  };
  Restart();  // in order: nobody is told that he waits in vain
  EXPECT_EQ(TryLock(*a), 0);  // it holds it
  EXPECT_TRUE(Grants(*b).empty());
  EXPECT_EQ(Unlock(*a), 0);
  ASSERT_TRUE(Eventually([&] { return Grants(*b).size() == 1; }));
  EXPECT_EQ(b->notices().back().grants(0).epoch(), epoch);
  EXPECT_NE(epoch, b->greeting().lock_epoch());
}

TEST_F(LocksTest, ReclaimedBeforeAnybodyElseGetsThem) {
  ASSERT_EQ(TryLock(*a), 0);
  std::atomic<bool> asked{false};
  a->on_recovered = [&](Peer& peer, const pb::GreetingReply& reply) {
    EXPECT_GT(reply.grace_ms(), 0u);
    // The other client asks first, and waits.
    EXPECT_TRUE(Eventually([&] { return asked.load(); }));
    Reclaim(peer);
    ReclaimDone(peer);
  };
  Kill();
  Start();
  const uint64_t before = net.calls();
  auto other = std::async(std::launch::async, [&] {
    return TryLock(*b);
  });
  EXPECT_TRUE(Eventually([&] { return net.calls() > before; }));
  asked = true;
  EXPECT_EQ(other.get(), EAGAIN);  // held again by its owner
  EXPECT_EQ(Unlock(*a), 0);
  EXPECT_EQ(TryLock(*b), 0);
}

TEST_F(LocksTest, GraceEndsForClientsThatNeverComeBack) {
  ASSERT_EQ(TryLock(*a), 0);
  config.grace_ms = 50;
  Kill();
  Start();  // `a` comes back but reclaims nothing
  EXPECT_EQ(TryLock(*b), 0);
}

// A process of the server's own host (to the kernel, each open file is another).
class Neighbour {
 public:
  explicit Neighbour(const std::string& path) : fd_(open(path.c_str(), O_RDWR | O_CLOEXEC)) {}
  bool Lock(short type, off_t start = 0, off_t length = 0) {
    struct flock range = {};
    range.l_type = type;
    range.l_start = start;
    range.l_len = length;
    return fcntl(fd_.get(), F_OFD_SETLK, &range) == 0;
  }
  bool Flock(int operation) { return flock(fd_.get(), operation | LOCK_NB) == 0; }

 private:
  UniqueFd fd_;
};

TEST_F(LocksTest, ProcessesOfTheServersHostSeeClientsLocks) {
  Neighbour neighbour(dir / "f");
  ASSERT_EQ(Lock(*a, pb::LOCK_TYPE_WRITE, pb::LOCK_ACTION_TRY, 1, 10, 10), 0);
  ASSERT_EQ(Lock(*a, pb::LOCK_TYPE_READ, pb::LOCK_ACTION_TRY, 1, 30, 10), 0);
  ASSERT_EQ(Lock(*b, pb::LOCK_TYPE_READ, pb::LOCK_ACTION_TRY, 1, 35, 10), 0);
  EXPECT_FALSE(neighbour.Lock(F_RDLCK, 15, 1));
  EXPECT_TRUE(neighbour.Lock(F_RDLCK, 30, 15));
  EXPECT_TRUE(neighbour.Lock(F_UNLCK));
  EXPECT_FALSE(neighbour.Lock(F_WRLCK, 44, 1));
  EXPECT_TRUE(neighbour.Lock(F_WRLCK, 45, 5));
  EXPECT_TRUE(neighbour.Lock(F_UNLCK));
  // What one client lets go of another still holds.
  EXPECT_EQ(Lock(*a, pb::LOCK_TYPE_UNLOCK, pb::LOCK_ACTION_TRY, 1, 30, 0), 0);
  EXPECT_TRUE(neighbour.Lock(F_WRLCK, 30, 5));
  EXPECT_FALSE(neighbour.Lock(F_WRLCK, 35, 1));
  EXPECT_TRUE(neighbour.Lock(F_UNLCK));
  a->Disconnect();
  EXPECT_TRUE(Eventually([&] { return neighbour.Lock(F_WRLCK, 0, 20); }));
  EXPECT_FALSE(neighbour.Lock(F_WRLCK));
  EXPECT_EQ(Unlock(*b), 0);
  EXPECT_TRUE(neighbour.Lock(F_WRLCK));
}

TEST_F(LocksTest, ClientsSeeTheLocksOfTheServersHost) {
  Neighbour neighbour(dir / "f");
  ASSERT_TRUE(neighbour.Lock(F_WRLCK, 10, 10));
  EXPECT_EQ(Lock(*a, pb::LOCK_TYPE_READ, pb::LOCK_ACTION_TRY, 1, 0, 11), EAGAIN);
  EXPECT_EQ(Lock(*a, pb::LOCK_TYPE_WRITE, pb::LOCK_ACTION_TRY, 1, 0, 10), 0);
  auto test = b->Do(b->LockCall(f, pb::LOCK_KIND_POSIX, pb::LOCK_TYPE_READ,
                                pb::LOCK_ACTION_TEST, 1, 15, 1));
  EXPECT_EQ(test.reply.lock().type(), pb::LOCK_TYPE_WRITE);
  EXPECT_EQ(test.reply.lock().start(), 10u);
  EXPECT_EQ(test.reply.lock().length(), 10u);
  // Who waits is granted it some time after it is free.
  ASSERT_EQ(Wait(*b, 1, 1, 15, 1), EINPROGRESS);
  ASSERT_EQ(Wait(*b, 2, 2, 16, 1), EINPROGRESS);
  EXPECT_EQ(CancelWait(*b, 2), 0);
  ASSERT_TRUE(neighbour.Lock(F_UNLCK));
  EXPECT_TRUE(Eventually([&] { return Grants(*b).size() == 1; }));
  EXPECT_FALSE(neighbour.Lock(F_RDLCK, 15, 1));
  EXPECT_TRUE(neighbour.Lock(F_RDLCK, 16, 1));
}

TEST_F(LocksTest, FlockMeetsTheServersHostToo) {
  Neighbour neighbour(dir / "f");
  const auto ask = [&](Peer& peer, pb::LockType type) {
    return peer.Do(peer.LockCall(f, pb::LOCK_KIND_FLOCK, type, pb::LOCK_ACTION_TRY, 1)).error();
  };
  ASSERT_EQ(ask(*a, pb::LOCK_TYPE_READ), 0);
  ASSERT_EQ(ask(*b, pb::LOCK_TYPE_READ), 0);
  EXPECT_FALSE(neighbour.Flock(LOCK_EX));
  EXPECT_TRUE(neighbour.Flock(LOCK_SH));
  EXPECT_EQ(ask(*a, pb::LOCK_TYPE_UNLOCK), 0);
  EXPECT_EQ(ask(*b, pb::LOCK_TYPE_WRITE), EAGAIN);  // and has given up the old one
  EXPECT_TRUE(neighbour.Flock(LOCK_EX));
  EXPECT_EQ(ask(*a, pb::LOCK_TYPE_READ), EAGAIN);
  EXPECT_TRUE(neighbour.Flock(LOCK_UN));
  EXPECT_EQ(ask(*a, pb::LOCK_TYPE_WRITE), 0);
  EXPECT_FALSE(neighbour.Flock(LOCK_SH));
  EXPECT_EQ(ask(*a, pb::LOCK_TYPE_UNLOCK), 0);
  EXPECT_TRUE(neighbour.Flock(LOCK_EX));
}

}  // namespace
}  // namespace tripwire::fs

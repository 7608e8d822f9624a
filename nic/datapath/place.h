// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_NIC_DATAPATH_PLACE_H_
#define TRIPWIRE_NIC_DATAPATH_PLACE_H_

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "absl/base/config.h"

#if defined(__x86_64__)
#include <emmintrin.h>
#endif

namespace tripwire {

namespace place_internal {

// The order comes from fences; ThreadSanitizer, which does not know fences, is
// told by the stores and loads themselves.
#if defined(ABSL_HAVE_THREAD_SANITIZER)
inline constexpr int kStoreOrder = __ATOMIC_RELEASE;
inline constexpr int kLoadOrder = __ATOMIC_ACQUIRE;
#else
inline constexpr int kStoreOrder = __ATOMIC_RELAXED;
inline constexpr int kLoadOrder = __ATOMIC_RELAXED;
#endif

template <typename T>
inline void StoreWord(uint8_t* to, const uint8_t* from) {
  T word;
  std::memcpy(&word, from, sizeof word);
  __atomic_store_n(reinterpret_cast<T*>(to), word, kStoreOrder);
}

template <typename T>
inline void LoadWord(uint8_t* to, const uint8_t* from) {
  const T word =
      __atomic_load_n(reinterpret_cast<const T*>(from), kLoadOrder);
  std::memcpy(to, &word, sizeof word);
}

// Runs at least this long are stored by pairs of words, and by the string move.
inline constexpr size_t kPairsFromBytes = 64, kStringFromBytes = 768;

// Runs `step(width, at)` over [0, n) in the widest aligned pieces, where
// `address` is the shared side's.
template <typename Step>
inline void ForAlignedPieces(uintptr_t address, size_t n, Step step) {
  size_t at = 0;
  while (at < n && ((address + at) & 7) != 0) {
    const uintptr_t here = address + at;
    const size_t left = n - at;
    const size_t width = (here & 1) != 0 || left < 2   ? 1
                         : (here & 2) != 0 || left < 4 ? 2
                                                       : 4;
    step(width, at);
    at += width;
  }
  for (; n - at >= 8; at += 8) step(size_t{8}, at);
  for (size_t width = 4; width >= 1; width /= 2) {
    if (n - at >= width) {
      step(width, at);
      at += width;
    }
  }
}

// Stores n bytes: every naturally aligned word whole, in no order to rely on.
inline void StoreRun(uint8_t* to, const uint8_t* from, size_t n) {
#if defined(__x86_64__) && !defined(ABSL_HAVE_ADDRESS_SANITIZER) && \
    !defined(ABSL_HAVE_THREAD_SANITIZER)
  // Long runs: the string move stores at least whole aligned quadwords and runs
  // at memcpy's speed. It takes its time to begin: less long ones go by pairs of
  // quadwords, aligned as one, of which the processor tears neither.
  if (n >= kPairsFromBytes) {
    const size_t head = (16 - (reinterpret_cast<uintptr_t>(to) & 15)) & 15;
    if (head != 0) {
      StoreRun(to, from, head);
      to += head;
      from += head;
      n -= head;
    }
    if (n >= kStringFromBytes) {
      size_t quads = n / 8;
      n &= 7;
      asm volatile("rep movsq"
                   : "+D"(to), "+S"(from), "+c"(quads)
                   :
                   : "memory");
    } else {
      for (; n >= sizeof(__m128i); n -= sizeof(__m128i)) {
        const __m128i pair =
            _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
        asm volatile("movaps %1, %0"
                     : "=m"(*reinterpret_cast<__m128i*>(to))
                     : "x"(pair));
        to += sizeof pair;
        from += sizeof pair;
      }
    }
  }
#endif
  ForAlignedPieces(reinterpret_cast<uintptr_t>(to), n,
                   [&](size_t width, size_t at) {
                     switch (width) {
                       case 8: StoreWord<uint64_t>(to + at, from + at); break;
                       case 4: StoreWord<uint32_t>(to + at, from + at); break;
                       case 2: StoreWord<uint16_t>(to + at, from + at); break;
                       default: StoreWord<uint8_t>(to + at, from + at);
                     }
                   });
}

// Loads n bytes: every naturally aligned word whole.
inline void LoadRun(uint8_t* to, const uint8_t* from, size_t n) {
  ForAlignedPieces(reinterpret_cast<uintptr_t>(from), n,
                   [&](size_t width, size_t at) {
                     switch (width) {
                       case 8: LoadWord<uint64_t>(to + at, from + at); break;
                       case 4: LoadWord<uint32_t>(to + at, from + at); break;
                       case 2: LoadWord<uint16_t>(to + at, from + at); break;
                       default: LoadWord<uint8_t>(to + at, from + at);
                     }
                   });
}

}  // namespace place_internal

// Places received bytes in memory an application may be reading: every naturally
// aligned word of up to 8 bytes is stored whole. If the last 8 bytes are such a
// word, it is stored after all the others (a release), so that a message and the
// word that announces it can be one write. Orders nothing against later stores;
// follow with a release.
inline void PlaceInShared(uint8_t* to, const uint8_t* from, size_t n) {
  using namespace place_internal;
  if (n == 8 && (reinterpret_cast<uintptr_t>(to) & 7) == 0) {
    return StoreWord<uint64_t>(to, from);  // a pointer, a counter: the usual word
  }
  if (n > 8 && ((reinterpret_cast<uintptr_t>(to) + n) & 7) == 0) {
    n -= 8;
    StoreRun(to, from, n);
    __atomic_thread_fence(__ATOMIC_RELEASE);
    StoreWord<uint64_t>(to + n, from + n);
    return;
  }
  StoreRun(to, from, n);
}

// Fetches bytes an application may be writing: aligned words are loaded whole.
inline void FetchFromShared(uint8_t* to, const uint8_t* from, size_t n) {
  using namespace place_internal;
#if !defined(ABSL_HAVE_THREAD_SANITIZER)
  if (n >= 512 && ((reinterpret_cast<uintptr_t>(to) -
                    reinterpret_cast<uintptr_t>(from)) & 7) == 0) {
    // memcpy aligns its stores; where that aligns its loads too, they are of
    // whole quadwords except at its two ends; take those by hand.
    const size_t head = (8 - (reinterpret_cast<uintptr_t>(from) & 7)) & 7;
    LoadRun(to, from, head);
    const size_t body = (n - head) & ~size_t{63};
    std::memcpy(to + head, from + head, body);
    const size_t done = head + body;
    return LoadRun(to + done, from + done, n - done);
  }
#endif
  LoadRun(to, from, n);
}

}  // namespace tripwire

#endif  // TRIPWIRE_NIC_DATAPATH_PLACE_H_

// AMX's tiles (Intel SDM volume 1, chapter 18), where the compiler may use them. HAS_TILES says so.
#pragma once

#ifdef __AMX_BF16__
#define HAS_TILES

#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

// The kernel saves tiles only for processes that asked for them (ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA).
inline bool tiles_allowed() {
    static const bool allowed = syscall(SYS_arch_prctl, 0x1023, 18) == 0;
    return allowed;
}

#endif

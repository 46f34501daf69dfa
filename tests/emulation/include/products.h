// A warp's part of a warpgroup's products (PTX ISA, "Asynchronous warpgroup level matrix instructions"): 16 of the 64 rows. A product is
// made at once or only when the warp waits for it, by lot, always in the order of the instructions; what it reads in shared memory is
// what lies there then.
#pragma once

#include "list.h"
#include "matrix.h"
#include "proxies.h"

namespace emulator {

inline constexpr Intrinsic kProduct = {"a product of a warpgroup", true}, kCommit = {"warpgroup_commit", true};
inline constexpr Intrinsic kWaitGroups = {"warpgroup_wait", true}, kFence = {"warpgroup_fence", true};
constexpr int kDepth = 16, kRows = 16;

// Matrix descriptor: a tile in shared memory whose 16-byte chunks are permuted. All in bytes.
struct Tile {
  u32 start, leading, stride, row;  // row: as wide as the permutation
  Site site;

  Tile(u64 descriptor, Site from)
      : start(field(descriptor, 0)), leading(field(descriptor, 16)), stride(field(descriptor, 32)), site(from) {
    u32 mode = u32(descriptor >> 62), base_offset = u32(descriptor >> 49 & 7);
    if (mode == 0 || base_offset != 0)
      fail("gives a descriptor of a kind that is not emulated, %llx, at %s:%d", descriptor, site.file, site.line);
    row = 256u >> mode;
  }
  static u32 field(u64 descriptor, int first_bit) { return u32(descriptor >> first_bit & 0x3fff) << 4; }

  // 8 elements. The permutation works on the address itself.
  UNCHECKED void read(u32 offset, u16 (&out)[8]) const {
    u32 address = start + offset;
    address ^= (address >> 7 & (row / 16 - 1)) << 4;
    const u8* from = shared_pointer(address);
    check_fenced(from, sizeof(out), "a product", site);
    memcpy(out, from, sizeof(out));
  }
  // Steps k to k + 7 of the depth for row (of a) or column (of b) mn.
  UNCHECKED void read_k_major(u32 mn, u32 k, u16 (&out)[8]) const { read(mn % 8 * row + mn / 8 * stride + k * 2, out); }
  // Columns n to n + 7 of step k.
  UNCHECKED void read_mn_major(u32 n, u32 k, u16 (&out)[8]) const {
    read(n % (row / 2) * 2 + n / (row / 2) * leading + k % 8 * row + k / 8 * stride, out);
  }
};

// One thread's words of an instruction. With a in registers b is MN-major, with a in shared memory both are K-major, unless said otherwise.
struct Operands {
  float* d;
  u32 a[4];
  u64 a_descriptor, b_descriptor;
  bool a_in_registers, b_mn_major, add;
  Site site;
};

// A warp's instruction: what its lanes brought.
struct Product {
  Operands lanes[kWarp];
  int warp, group;
  void (*make)(const Product&);
};

// A warp's products, oldest first; those of groups below num_groups were committed.
struct WarpProducts {
  List<Product, 96> products;
  int num_groups;
  bool is_fenced;
};

inline WarpProducts warp_products[kMaxThreads / kWarp];

template <class T>
UNCHECKED void read_left(const Product& product, float (&a)[kRows][kDepth]) {
  const Operands& first = product.lanes[0];
  if (!first.a_in_registers) {
    Tile tile(first.a_descriptor, first.site);
    for (u32 m = 0; m < kRows; m++)
      for (u32 k = 0; k < kDepth; k += 8) {
        u16 chunk[8];
        tile.read_k_major(u32(product.warp % 4 * kRows) + m, k, chunk);
        for (u32 i = 0; i < 8; i++) a[m][k + i] = widen(T{chunk[i]});
      }
    return;
  }
  for (int lane = 0; lane < kWarp; lane++)
    for (int i = 0; i < 4; i++) {
      float* place = &a[lane / 4 + i % 2 * 8][lane % 4 * 2 + i / 2 * 8];
      put_pair<T>(place, place + 1, product.lanes[lane].a[i]);
    }
}

template <class T, int kColumns>
UNCHECKED void read_right(const Product& product, float (&b)[kDepth][kColumns]) {
  const Operands& first = product.lanes[0];
  Tile tile(first.b_descriptor, first.site);
  u16 chunk[8];
  if (first.b_mn_major) {
    for (u32 k = 0; k < kDepth; k++)
      for (u32 n = 0; n < kColumns; n += 8) {
        tile.read_mn_major(n, k, chunk);
        for (u32 i = 0; i < 8; i++) b[k][n + i] = widen(T{chunk[i]});
      }
    return;
  }
  for (u32 n = 0; n < kColumns; n++)
    for (u32 k = 0; k < kDepth; k += 8) {
      tile.read_k_major(n, k, chunk);
      for (u32 i = 0; i < 8; i++) b[k + i][n] = widen(T{chunk[i]});
    }
}

template <class T, int kColumns>
UNCHECKED void make_product(const Product& product) {
  static float a[kRows][kDepth], b[kDepth][kColumns];
  read_left<T>(product, a);
  read_right<T>(product, b);
  for (int m = 0; m < kRows; m++) {
    float row[kColumns] = {};
    for (int k = 0; k < kDepth; k++)
      for (int n = 0; n < kColumns; n++) row[n] += a[m][k] * b[k][n];
    for (int n = 0; n < kColumns; n++) {
      const Operands& lane = product.lanes[m % 8 * 4 + n % 8 / 2];
      float& sum = lane.d[n / 8 * 4 + m / 8 * 2 + n % 2];
      sum = lane.add ? sum + row[n] : row[n];
    }
  }
}

inline WarpProducts& own_products() { return warp_products[block.current->id / kWarp]; }

inline void check_alike(const Product& product) {
  for (const Operands& lane : product.lanes) {
    const Operands& first = product.lanes[0];
    bool same_left = lane.a_in_registers || lane.a_descriptor == first.a_descriptor;
    if (lane.b_descriptor != first.b_descriptor || !same_left || lane.add != first.add)
      fail("is in a warp whose lanes ask for different products at %s:%d", lane.site.file, lane.site.line);
  }
}

template <class T, int kColumns>
void start_product(Operands* const* lanes, u32) {
  WarpProducts& own = own_products();
  static Product product;
  for (int lane = 0; lane < kWarp; lane++) product.lanes[lane] = *lanes[lane];
  product.warp = block.current->id / kWarp;
  product.group = own.num_groups;
  product.make = make_product<T, kColumns>;
  check_alike(product);
  if (!own.is_fenced) fail("starts a product before any warpgroup_fence at %s:%d", lanes[0]->site.file, lanes[0]->site.line);
  if (own.products.size == 0 && draw(2) == 0) {
    product.make(product);
  } else {
    own.products.push(product, "products");
  }
}

// Until only the last num_left groups may be under way; the open one may always be.
inline void finish_products(int num_left) {
  WarpProducts& own = own_products();
  int num_done = 0;
  for (; num_done < own.products.size && own.products.elements[num_done].group < own.num_groups - num_left; num_done++) {
    const Product& product = own.products.elements[num_done];
    product.make(product);
  }
  own.products.remove_first(num_done);
}

inline void reset_products() {
  for (WarpProducts& own : warp_products) {
    own.products.size = own.num_groups = 0;
    own.is_fenced = false;
  }
}

// All lanes of the warp, then `work` once.
inline void meet_warp(const Intrinsic& intrinsic, Site site, int number, void (*work)(int* const*, u32)) {
  meet(0xffffffff, intrinsic, site, number, work);
}

}  // namespace emulator

// A list that holds its elements itself, so that all of the emulator's memory is this library's own.
#pragma once

#include "fibers.h"

namespace emulator {

template <class T, int kCapacity>
struct List {
  T elements[kCapacity];
  int size;

  UNCHECKED void push(const T& element, const char* what) {
    if (size == kCapacity) fail("has more than %d %s under way", kCapacity, what);
    elements[size++] = element;
  }
  // Keeps the order of the others.
  UNCHECKED void remove_first(int num_removed) {
    size -= num_removed;
    for (int i = 0; i < size; i++) elements[i] = elements[i + num_removed];
  }
  UNCHECKED void remove(int place) {
    size--;
    for (int i = place; i < size; i++) elements[i] = elements[i + 1];
  }
};

}  // namespace emulator

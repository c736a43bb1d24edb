//! The system's allocator, told two things about large memory.
//!
//! The memory of a shard's I/O buffers is one very large allocation, for which this asks for huge pages: each record is copied
//! into and out of there, and a small page takes a place of its own in the processor's address cache, and in every list that
//! the kernel and the device make of a write. Where the system gives none (`/sys/kernel/mm/transparent_hugepage/enabled` is
//! `never`), nothing changes.
//!
//! Buffers of a quarter of a mebibyte and more come and go, and always get mappings of their own. By itself glibc takes them
//! from its heap once one was freed; small things that stay then settle between them, and the heap grows by a third of what
//! a shard may have.

use std::alloc::{GlobalAlloc, Layout, System};

use rustix::mm::{Advice, madvise};

/// Allocations of this size and more lie in huge pages.
const HUGE_BYTES_MIN: usize = 16 << 20;
/// Allocations of this size and more are given back to the system when they are freed.
const MAPPED_BYTES_MIN: i32 = 256 << 10;
/// Advice is given by whole pages.
const PAGE_BYTES: usize = 4096;

/// See the module.
pub struct Allocator;

/// Fixes from which size on an allocation has a mapping of its own. Other C libraries than glibc decide that for themselves.
pub fn configure() {
    #[cfg(target_env = "gnu")]
    // SAFETY: sets a number of the allocator's, under its own lock.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_BYTES_MIN);
    }
}

// SAFETY: everything is the system allocator's, and advice changes no byte.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the rules of this very method.
        let memory = unsafe { System.alloc(layout) };
        if layout.size() >= HUGE_BYTES_MIN && !memory.is_null() {
            advise(memory, layout.size());
        }
        memory
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        // SAFETY: as above.
        unsafe { System.realloc(memory, layout, bytes) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(memory, layout) }
    }
}

fn advise(memory: *mut u8, bytes: usize) {
    let skipped = memory.align_offset(PAGE_BYTES).min(bytes);
    let whole = (bytes - skipped) / PAGE_BYTES * PAGE_BYTES;
    // SAFETY: these pages lie within what was just allocated, and the advice changes none of their bytes.
    let _refused_where_unknown = unsafe { madvise(memory.add(skipped).cast(), whole, Advice::LinuxHugepage) };
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// What the kernel knows of the mapping in which an address lies.
    fn flags_at(address: usize) -> String {
        let maps = fs::read_to_string("/proc/self/smaps").expect("Linux tells of every mapping");
        let contains = |line: &str| {
            let (start, end) = line.split_whitespace().next()?.split_once('-')?;
            let [start, end] = [start, end].map(|bound| usize::from_str_radix(bound, 16));
            Some((start.ok()?..end.ok()?).contains(&address))
        };
        let of_it = maps.lines().skip_while(|line| contains(line) != Some(true));
        of_it.filter_map(|line| line.strip_prefix("VmFlags:")).next().expect("each mapping has flags").to_owned()
    }

    #[test]
    fn only_what_is_very_large_asks_for_huge_pages() {
        let [large, small] = [HUGE_BYTES_MIN, HUGE_BYTES_MIN / 4].map(Vec::<u8>::with_capacity);
        let asked = |memory: &Vec<u8>| flags_at(memory.as_ptr().addr() + 2 * PAGE_BYTES).contains(" hg");
        assert!(asked(&large));
        assert!(!asked(&small));
    }
}

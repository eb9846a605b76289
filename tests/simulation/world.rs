//! A world of its own for each schedule: its time and its chance, so that a seed repeats exactly.
//!
//! This program has three functions of the C library itself: what the standard library, tokio and
//! the crates that make UUIDs ask for the time, for random bytes, and to sleep until something
//! happens. On a thread that is in a [`World`] the clock stands still while anything can run. Once
//! all tasks wait, it is at once the time that the first of them waits for. On all other threads the
//! C library's own functions are called.
//!
//! So the code under test runs as it is, with no other clock, sleep or nonce than in production.
#![allow(unsafe_code)]

use std::cell::Cell;
use std::ffi::{CStr, c_char, c_int, c_long, c_uint, c_void};
use std::marker::PhantomData;
use std::mem::transmute;
use std::sync::atomic::{AtomicPtr, Ordering};

/// Where each world's clocks begin, in seconds: the monotonic one and the wall clock.
const MONOTONIC: i64 = 1_000_000;
const WALL: i64 = 1_800_000_000;

/// `CLOCK_REALTIME` and `RTLD_NEXT` of Linux.
const REALTIME: c_int = 0;
const NEXT: *mut c_void = -1isize as *mut c_void;

thread_local! {
    static STATE: Cell<Option<State>> = const { Cell::new(None) };
}

#[derive(Clone, Copy)]
struct State {
    /// Nanoseconds since the world began.
    now: u64,
    chance: Chance,
}

/// Keeps this thread in a world of its own.
pub struct World(PhantomData<*const ()>);

impl World {
    pub fn enter(seed: u64) -> Self {
        STATE.set(Some(State { now: 0, chance: Chance::new(!seed) }));
        Self(PhantomData)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        STATE.set(None);
    }
}

/// Milliseconds since this thread's world began.
pub fn now() -> u64 {
    STATE.get().map_or(0, |state| state.now / 1_000_000)
}

/// Random numbers from a seed (SplitMix64).
#[derive(Clone, Copy, Debug)]
pub struct Chance(u64);

impl Chance {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[repr(C)]
pub struct Timespec {
    seconds: i64,
    nanoseconds: c_long,
}

unsafe extern "C" {
    fn dlsym(library: *mut c_void, name: *const c_char) -> *mut c_void;
}

/// The C library's own function.
fn real(name: &CStr, known: &AtomicPtr<c_void>) -> *mut c_void {
    let mut found = known.load(Ordering::Relaxed);
    if found.is_null() {
        // SAFETY: the name is a C string, and looking it up has no other preconditions.
        found = unsafe { dlsym(NEXT, name.as_ptr()) };
        assert!(!found.is_null(), "{name:?} is not in the C library");
        known.store(found, Ordering::Relaxed);
    }
    found
}

/// As in the C library.
///
/// # Safety
/// `time` can be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: c_int, time: *mut Timespec) -> c_int {
    static REAL: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());
    type Function = unsafe extern "C" fn(c_int, *mut Timespec) -> c_int;
    let Some(State { now, .. }) = STATE.get() else {
        // SAFETY: this is the function's type, and the caller keeps its promise.
        return unsafe {
            transmute::<*mut c_void, Function>(real(c"clock_gettime", &REAL))(clock, time)
        };
    };
    let begun = if clock == REALTIME { WALL } else { MONOTONIC };
    let seconds = begun + (now / 1_000_000_000) as i64;
    // SAFETY: promised by the caller.
    unsafe { time.write(Timespec { seconds, nanoseconds: (now % 1_000_000_000) as c_long }) };
    0
}

/// As in the C library.
///
/// # Safety
/// `buffer` can be written to, all of `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getrandom(buffer: *mut c_void, length: usize, flags: c_uint) -> isize {
    static REAL: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());
    type Function = unsafe extern "C" fn(*mut c_void, usize, c_uint) -> isize;
    let Some(mut state) = STATE.get() else {
        // SAFETY: as above.
        return unsafe {
            transmute::<*mut c_void, Function>(real(c"getrandom", &REAL))(buffer, length, flags)
        };
    };
    for at in 0..length {
        // SAFETY: promised by the caller.
        unsafe { buffer.cast::<u8>().add(at).write(state.chance.next() as u8) };
    }
    STATE.set(Some(state));
    length as isize
}

/// As in the C library, but where the caller would sleep the time passes at once.
///
/// # Safety
/// `events` has room for `room` events.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn epoll_wait(
    epoll: c_int,
    events: *mut c_void,
    room: c_int,
    timeout: c_int,
) -> c_int {
    static REAL: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());
    type Function = unsafe extern "C" fn(c_int, *mut c_void, c_int, c_int) -> c_int;
    // SAFETY: this is the function's type.
    let real = unsafe { transmute::<*mut c_void, Function>(real(c"epoll_wait", &REAL)) };
    let Some(state) = STATE.get() else {
        // SAFETY: promised by the caller.
        return unsafe { real(epoll, events, room, timeout) };
    };
    // SAFETY: promised by the caller.
    let ready = unsafe { real(epoll, events, room, 0) };
    if ready != 0 || timeout == 0 {
        return ready;
    }
    let Ok(milliseconds) = u64::try_from(timeout) else {
        eprintln!("all tasks of a schedule wait for each other, and none for the time");
        std::process::abort();
    };
    STATE.set(Some(State { now: state.now + milliseconds * 1_000_000, ..state }));
    0
}

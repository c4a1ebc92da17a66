//! What becomes of a read through a map whose page cannot be had: memory pressure evicts a page that was brought in,
//! and then the medium fails. The kernel raises SIGBUS, which would end the process.
//!
//! Here the page is replaced by zeros, the map is *poisoned*, and the read goes on: frames and index entries have
//! checksums, which zeros don't fit, and the file makes a new map before it is read again, which reports the error. What
//! must hold: the handler touches nothing but atomics and makes one system call (`mmap`); a fault at any other address
//! ends where it would have ended without us.
//!
//! Crates that handle signals run what was installed before first (`signal-hook`): that is the standard library's
//! look for stack overflows, which gives the signal back to the kernel at the first fault that is none.

use std::mem::MaybeUninit;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};

use libc::{c_int, c_void, siginfo_t};

/// A map among those whose faults are survived, until this is dropped.
pub(super) struct Guarded {
    place: Option<usize>,
}

/// A map, for the handler; a free place starts at 0.
struct Place {
    start: AtomicUsize,
    bytes: AtomicUsize,
    poisoned: AtomicBool,
}

/// Places that are free, besides those never used.
struct Free {
    never_used: usize,
    left: Vec<usize>,
}

static PLACES: [Place; PLACES_MAX] = [const { Place::free() }; PLACES_MAX];
static FREE: Mutex<Free> = Mutex::new(Free { never_used: 0, left: Vec::new() });
/// How far the handler has to look.
static USED: AtomicUsize = AtomicUsize::new(0);
static PREVIOUS: OnceLock<libc::sigaction> = OnceLock::new();

impl Place {
    const fn free() -> Place {
        let start = AtomicUsize::new(0);
        Place { start, bytes: AtomicUsize::new(0), poisoned: AtomicBool::new(false) }
    }
}

impl Guarded {
    /// Survives faults in a map. Where there are too many of them, it is as before.
    pub(super) fn new(start: NonNull<u8>, bytes: usize) -> Guarded {
        PREVIOUS.get_or_init(install);
        let mut free = FREE.lock().expect("no thread panics while it holds the lock");
        let place = free.left.pop().or_else(|| {
            let next = free.never_used;
            (next < PLACES_MAX).then(|| {
                free.never_used += 1;
                USED.store(free.never_used, Ordering::Release);
                next
            })
        });
        if let Some(place) = place {
            PLACES[place].poisoned.store(false, Ordering::Relaxed);
            PLACES[place].bytes.store(bytes, Ordering::Relaxed);
            PLACES[place].start.store(start.as_ptr() as usize, Ordering::Release);
        }
        Guarded { place }
    }

    /// Whether a page of the map was replaced.
    pub(super) fn is_poisoned(&self) -> bool {
        self.place.is_some_and(|place| PLACES[place].poisoned.load(Ordering::Acquire))
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            PLACES[place].start.store(0, Ordering::Release);
            let mut free = FREE.lock().expect("no thread panics while it holds the lock");
            free.left.push(place);
        }
    }
}

/// Puts our handler in front of what there was, which it gives.
fn install() -> libc::sigaction {
    // SAFETY: both structures are plain data that live until the call returns, the handler has the signature that
    // SA_SIGINFO asks for, and it does only what a signal handler may do.
    unsafe {
        let mut ours: libc::sigaction = MaybeUninit::zeroed().assume_init();
        ours.sa_sigaction = on_fault as extern "C" fn(c_int, *mut siginfo_t, *mut c_void) as usize;
        ours.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        let mut before: libc::sigaction = MaybeUninit::zeroed().assume_init();
        let set = libc::sigaction(libc::SIGBUS, &raw const ours, &raw mut before);
        assert_eq!(set, 0, "SIGBUS can be handled");
        before
    }
}

extern "C" fn on_fault(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel hands a handler that was set with SA_SIGINFO a whole siginfo; a positive code means that
    // it comes from a fault and has an address.
    let address = unsafe { ((*info).si_code > 0).then(|| (*info).si_addr() as usize) };
    if !address.is_some_and(replace_page) {
        pass_on(signal, info, context);
    }
}

/// Puts zeros in place of a page of one of our maps.
fn replace_page(address: usize) -> bool {
    let used = USED.load(Ordering::Acquire);
    let holds = |place: &&Place| {
        let start = place.start.load(Ordering::Acquire);
        let within = address.checked_sub(start);
        start > 0 && within.is_some_and(|at| at < place.bytes.load(Ordering::Relaxed))
    };
    let Some(place) = PLACES[..used].iter().find(holds) else { return false };
    let (read, fixed) =
        (libc::PROT_READ, libc::MAP_FIXED | libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: the page lies within a map of ours, which stays until the thread that reads it has let go of it, and
    // which nobody writes through. The error number belongs to the code that was interrupted.
    unsafe {
        let error = *libc::__errno_location();
        let page = libc::sysconf(libc::_SC_PAGESIZE) as usize;
        let start = (address - address % page) as *mut c_void;
        let mapped = libc::mmap(start, page, read, fixed, -1, 0);
        *libc::__errno_location() = error;
        if mapped == libc::MAP_FAILED {
            return false;
        }
    }
    place.poisoned.store(true, Ordering::Release);
    true
}

/// A fault that is none of ours goes to whoever had the signal before.
fn pass_on(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    type Handler = extern "C" fn(c_int, *mut siginfo_t, *mut c_void);
    type Plain = extern "C" fn(c_int);
    let previous = PREVIOUS
        .get()
        .filter(|it| it.sa_sigaction != libc::SIG_DFL && it.sa_sigaction != libc::SIG_IGN);
    // SAFETY: what the kernel gave as the handler of before is one, with the signature that its flags name. Without
    // one the kernel gets the signal back: the instruction faults again and ends the process.
    unsafe {
        match previous {
            Some(it) if it.sa_flags & libc::SA_SIGINFO != 0 => {
                std::mem::transmute::<usize, Handler>(it.sa_sigaction)(signal, info, context);
            }
            Some(it) => std::mem::transmute::<usize, Plain>(it.sa_sigaction)(signal),
            None => {
                let default: libc::sigaction = MaybeUninit::zeroed().assume_init();
                libc::sigaction(signal, &raw const default, std::ptr::null_mut());
            }
        }
    }
}

/// Two maps for each log that is open, and a few more while it is read; descriptors run out before.
const PLACES_MAX: usize = 1 << 16;

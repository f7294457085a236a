//! SIGINT, SIGTERM and SIGHUP, for processes that have something to save.
//!
//! Without [`listen`] they end a process at once, which is right for all that only reads and computes. With it, the first of them sets
//! [`stop`], which whoever computes looks at, and the process has [`GRACE`] to end by itself. While it holds a [`Saving`] it has all the time
//! it needs. The second signal ends it at once. Its exit code then is 128 plus the number of the signal, as that of a process that died of it.

use std::io;
use std::process::{Child, ExitStatus};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// How long a process with nothing to save may take to end by itself.
pub const GRACE: Duration = Duration::from_millis(1500);
/// Set for processes that are sent on the signals of the one that started them, and may have them twice: a terminal sends to both.
pub const FORWARDED: &str = "GOSSAMER_SIGNALS_FORWARDED";
/// Within this time, such a process takes the second for the first.
const ECHO: Duration = Duration::from_secs(1);
/// How often it is looked whether a child has ended, or whether the time is up.
const LOOK: Duration = Duration::from_millis(20);

static STOP: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);
/// The first signal; 0 before there is one.
static FIRST: AtomicI32 = AtomicI32::new(0);
static SAVING: AtomicUsize = AtomicUsize::new(0);
static CHILD: Mutex<Option<Child>> = Mutex::new(None);

/// Set once the process is to end.
pub fn stop() -> &'static Arc<AtomicBool> {
    &STOP
}

/// The exit code of a process that ends because of a signal, if there was one.
pub fn exit_code() -> Option<u8> {
    code(FIRST.load(Ordering::SeqCst))
}

fn code(signal: i32) -> Option<u8> {
    u8::try_from(signal).ok().filter(|&signal| signal > 0).map(|signal| signal.saturating_add(128))
}

/// As long as it lives, the process ends by itself, however long that takes, or by a second signal.
pub struct Saving(());

impl Saving {
    /// Begins.
    pub fn begin() -> Self {
        SAVING.fetch_add(1, Ordering::SeqCst);
        Self(())
    }
}

impl Drop for Saving {
    fn drop(&mut self) {
        SAVING.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Waits for a child, which is sent every signal that this process gets, and has all the time that it needs to end.
///
/// # Errors
/// Those of the system.
pub fn wait_forwarding(child: Child) -> io::Result<ExitStatus> {
    let _saving = Saving::begin();
    *child_lock() = Some(child);
    if let first @ 1.. = FIRST.load(Ordering::SeqCst) {
        forward(first);
    }
    loop {
        let mut slot = child_lock();
        let Some(child) = slot.as_mut() else { return Err(io::Error::other("the child is gone")) };
        if let Some(status) = child.try_wait()? {
            *slot = None;
            return Ok(status);
        }
        drop(slot);
        thread::sleep(LOOK);
    }
}

fn child_lock() -> std::sync::MutexGuard<'static, Option<Child>> {
    CHILD.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// What happens at a signal, on a thread of its own. `told` is called at the first one.
fn heard(signal: i32, since: &mut Option<Instant>, told: &dyn Fn(bool)) {
    forward(signal);
    if let Some(since) = *since {
        let echo = since.elapsed() < ECHO && std::env::var_os(FORWARDED).is_some();
        if !echo {
            exit(signal);
        }
        return;
    }
    *since = Some(Instant::now());
    FIRST.store(signal, Ordering::SeqCst);
    STOP.store(true, Ordering::SeqCst);
    told(SAVING.load(Ordering::SeqCst) > 0);
    // Without a thread, the second signal is what is left.
    drop(thread::Builder::new().name("grace".into()).spawn(move || end_after_grace(signal)));
}

fn end_after_grace(signal: i32) {
    let mut idle = Instant::now();
    while idle.elapsed() < GRACE {
        if SAVING.load(Ordering::SeqCst) > 0 {
            idle = Instant::now();
        }
        thread::sleep(LOOK);
    }
    exit(signal);
}

/// Hears the signals from now on. `told` is called at the first one, with whether the process is [saving](Saving). A SIGHUP that is ignored,
/// as under `nohup`, stays so.
///
/// # Errors
/// Those of the system.
#[cfg(unix)]
pub fn listen(told: impl Fn(bool) + Send + 'static) -> io::Result<()> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

    let all = if is_ignored(SIGHUP) { &[SIGINT, SIGTERM][..] } else { &[SIGINT, SIGTERM, SIGHUP] };
    let mut signals = signal_hook::iterator::Signals::new(all)?;
    let work = move || {
        let mut since = None;
        signals.forever().for_each(|signal| heard(signal, &mut since, &told));
    };
    thread::Builder::new().name("signals".into()).spawn(work).map(drop)
}

#[cfg(unix)]
fn is_ignored(signal: i32) -> bool {
    // SAFETY: without a new action, it only writes the present one, which is plain data, to where it is told.
    unsafe {
        let mut action = std::mem::zeroed::<libc::sigaction>();
        libc::sigaction(signal, std::ptr::null(), &mut action) == 0 && action.sa_sigaction == libc::SIG_IGN
    }
}

#[cfg(unix)]
fn forward(signal: i32) {
    // Under the lock, a child that has not been waited for still has its number: no other process is meant.
    if let Some(child) = child_lock().as_mut()
        && matches!(child.try_wait(), Ok(None))
    {
        // SAFETY: a call without pointers.
        unsafe { libc::kill(child.id() as i32, signal) };
    }
}

#[cfg(unix)]
fn exit(signal: i32) -> ! {
    // At once: what other libraries do at exit could wait for threads that are at work.
    signal_hook::low_level::exit(i32::from(code(signal).unwrap_or(1)))
}

/// Hears Ctrl-C and the closing of the window from now on. `told` is called at the first one, with whether the process is [saving](Saving).
///
/// # Errors
/// Those of the system.
#[cfg(not(unix))]
pub fn listen(told: impl Fn(bool) + Send + 'static) -> io::Result<()> {
    const SIGINT: i32 = 2;
    let mut since = None;
    ctrlc::set_handler(move || heard(SIGINT, &mut since, &told)).map_err(io::Error::other)
}

/// The system has sent it to all processes of the window.
#[cfg(not(unix))]
fn forward(_: i32) {}

#[cfg(not(unix))]
fn exit(signal: i32) -> ! {
    std::process::exit(i32::from(code(signal).unwrap_or(1)))
}

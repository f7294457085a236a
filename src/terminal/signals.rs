//! SIGINT, SIGTERM and SIGHUP, for processes that have something to save.
//!
//! Without [`listen`] they end a process at once, which is right for commands that only read and
//! compute. With it, the first signal sets [`stop`], which computations check, and the process has
//! `GRACE` to end. While it holds a [`Saving`], it has unlimited time. The second signal ends it
//! at once. The exit code is then 128 plus the number of the signal.

use std::io;
use std::process::{Child, ExitStatus};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// The time that a process with nothing to save has to end.
pub(crate) const GRACE: Duration = Duration::from_millis(1500);
/// Set for processes whose parent forwards signals. They may receive a signal twice: a terminal
/// sends it to both.
pub(crate) const FORWARDED: &str = "GOSSAMER_SIGNALS_FORWARDED";
/// Within this time, such a process ignores a second signal.
const ECHO: Duration = Duration::from_secs(1);
/// Between two checks whether a child has ended or the time is up.
const POLL: Duration = Duration::from_millis(20);

static STOP: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);
/// The first signal; 0 if there was none.
static FIRST: AtomicI32 = AtomicI32::new(0);
static SAVING: AtomicUsize = AtomicUsize::new(0);
static CHILD: Mutex<Option<Child>> = Mutex::new(None);

/// True once the process is to end.
pub fn stop() -> &'static Arc<AtomicBool> {
    &STOP
}

/// The exit code of a process that a signal ends, if there was one.
pub fn exit_code() -> Option<u8> {
    code(FIRST.load(Ordering::SeqCst))
}

fn code(signal: i32) -> Option<u8> {
    u8::try_from(signal).ok().filter(|&signal| signal > 0).map(|signal| signal.saturating_add(128))
}

/// While this exists, the first signal does not end the process.
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

/// Waits for a child without time limit, and forwards every signal to it.
///
/// # Errors
/// Returns the errors of the system.
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
        thread::sleep(POLL);
    }
}

fn child_lock() -> std::sync::MutexGuard<'static, Option<Child>> {
    CHILD.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Handles a signal, on a separate thread. Calls `on_first` at the first one.
fn on_signal(signal: i32, since: &mut Option<Instant>, on_first: &dyn Fn(bool)) {
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
    on_first(SAVING.load(Ordering::SeqCst) > 0);
    // Without this thread, only a second signal ends the process.
    drop(thread::Builder::new().name("grace".into()).spawn(move || end_after_grace(signal)));
}

fn end_after_grace(signal: i32) {
    let mut idle = Instant::now();
    while idle.elapsed() < GRACE {
        if SAVING.load(Ordering::SeqCst) > 0 {
            idle = Instant::now();
        }
        thread::sleep(POLL);
    }
    exit(signal);
}

/// Handles signals from now on. Calls `on_first` at the first one, with whether the process is
/// [saving](Saving). An ignored SIGHUP, as under `nohup`, stays ignored.
///
/// # Errors
/// Returns the errors of the system.
#[cfg(unix)]
pub fn listen(on_first: impl Fn(bool) + Send + 'static) -> io::Result<()> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

    let all = if is_ignored(SIGHUP) { &[SIGINT, SIGTERM][..] } else { &[SIGINT, SIGTERM, SIGHUP] };
    let mut signals = signal_hook::iterator::Signals::new(all)?;
    let handle = move || {
        let mut since = None;
        signals.forever().for_each(|signal| on_signal(signal, &mut since, &on_first));
    };
    thread::Builder::new().name("signals".into()).spawn(handle).map(drop)
}

#[cfg(unix)]
fn is_ignored(signal: i32) -> bool {
    // SAFETY: without a new action, it only writes the current one, which is plain data, to
    // `action`.
    unsafe {
        let mut action = std::mem::zeroed::<libc::sigaction>();
        libc::sigaction(signal, std::ptr::null(), &mut action) == 0 && action.sa_sigaction == libc::SIG_IGN
    }
}

#[cfg(unix)]
fn forward(signal: i32) {
    // Under the lock, a child that has not been waited for still has its number.
    if let Some(child) = child_lock().as_mut()
        && matches!(child.try_wait(), Ok(None))
    {
        // SAFETY: a call without pointers.
        unsafe { libc::kill(child.id() as i32, signal) };
    }
}

#[cfg(unix)]
fn exit(signal: i32) -> ! {
    // Exit handlers of other libraries could wait for running threads.
    signal_hook::low_level::exit(i32::from(code(signal).unwrap_or(1)))
}

/// Handles Ctrl-C and the closing of the window from now on. Calls `on_first` at the first one,
/// with whether the process is [saving](Saving).
#[cfg(not(unix))]
pub(crate) fn listen(on_first: impl Fn(bool) + Send + 'static) -> io::Result<()> {
    const SIGINT: i32 = 2;
    let mut since = None;
    ctrlc::set_handler(move || on_signal(SIGINT, &mut since, &on_first)).map_err(io::Error::other)
}

/// The system sends it to all processes of the window.
#[cfg(not(unix))]
fn forward(_: i32) {}

#[cfg(not(unix))]
fn exit(signal: i32) -> ! {
    std::process::exit(i32::from(code(signal).unwrap_or(1)))
}

//! Parking: an idle shard sleeps until its ring has a completion, its deadline comes, or it is woken.
//!
//! Two ways to sleep. For a moment ([`Parker::set_linger`]) the thread waits in the ring itself: that is one system call
//! and the shortest way from a completion back to the host, but the executor's other tasks wait too. After that the task
//! sleeps in the executor, which the ring wakes through an event descriptor; that costs the executor several system calls
//! each time, and nothing while idle.
//!
//! A completion is never slept over: the kernel signals the descriptor for whatever it posts after [`Ring::listen`], and
//! what it posted before is looked for after that call. A task that always has a read of the descriptor in flight turns
//! signals into wake-ups, so a signal cannot get lost in a read that nobody waits for any more.

#![allow(clippy::disallowed_methods, reason = "measures how long it may wait")]

use super::Ring;
use glommio::io::BufferedFile;
use glommio::timer::Timer;
use glommio::{GlommioError, LocalExecutorBuilder, Placement};
use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

/// See [`Parker::set_linger`].
const LINGER: Duration = Duration::from_millis(1);

/// How often a busy host lets the executor's other tasks run.
const SHARE_EVERY: Duration = Duration::from_micros(250);

/// The preempt timer for every executor whose task parks: never, for all that we do. A busy host lets the executor look at its own
/// events itself ([`Parker::share`]). Where this timer ends before the executor of glommio 0.12 has begun to run its queues,
/// because the thread did not get its core for so long, it takes that for nothing to run and sleeps, and nothing wakes it.
const PREEMPT_TIMER: Duration = Duration::from_secs(3600);

/// What makes an executor in which a task may park.
pub fn executor(placement: Placement) -> LocalExecutorBuilder {
    LocalExecutorBuilder::new(placement).preempt_timer(PREEMPT_TIMER)
}

/// How often a busy host lets the executor look at its own events though nothing is known to wait for them.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Long enough for nothing to run.
const A_MOMENT: Duration = Duration::from_micros(1);

/// Puts the host's task to sleep. Belongs to one [`Ring`].
pub struct Parker {
    waker: Waker,
    event: Arc<OwnedFd>,
    spin: Duration,
    linger: Duration,
    shared: Instant,
    /// When the executor could last look at its own events.
    looked: Instant,
    tasks_under_way: bool,
    /// Cancelled when dropped.
    _reader: glommio::Task<()>,
}

impl Parker {
    /// Must be called inside the executor whose task will park.
    pub fn new(ring: &Ring) -> io::Result<Self> {
        let waker = Waker {
            state: Rc::default(),
        };
        let event = ring.event.try_clone()?;
        // SAFETY: the clone is owned by the file from here on.
        let file = unsafe { BufferedFile::from_raw_fd(event.into_raw_fd()) };
        let woken = waker.clone();
        let reader = glommio::spawn_local(async move {
            while read(&file).await {
                woken.wake();
            }
        });
        Ok(Self {
            waker,
            event: ring.event.clone(),
            spin: Duration::ZERO,
            linger: LINGER,
            shared: Instant::now(),
            looked: Instant::now(),
            tasks_under_way: false,
            _reader: reader,
        })
    }

    /// How long a park waits in the ring before it sleeps in the executor: 1 ms unless told. Less while other tasks of the
    /// executor wait for something of their own (a read, a timer): they are late by as much.
    pub fn set_linger(&mut self, linger: Duration) {
        self.linger = linger;
    }

    /// How long a park looks for completions before it sleeps at all: not unless told. For a core that is the shard's alone.
    pub fn set_spin(&mut self, spin: Duration) {
        self.spin = spin;
    }

    /// Whether tasks of the executor are under way that wait for its own timers or files. A busy executor looks at those
    /// only when nothing can run, so the host then sleeps for a moment instead of only letting others run. Without such
    /// tasks it does so now and then.
    pub fn set_tasks_under_way(&mut self, under_way: bool) {
        self.tasks_under_way = under_way;
    }

    /// Lets other tasks of the executor run if that is due. To be called in every turn that does not park.
    pub async fn share(&mut self) {
        let now = Instant::now();
        if now.duration_since(self.shared) < SHARE_EVERY {
            return;
        }
        self.shared = now;
        if self.tasks_under_way || now.duration_since(self.looked) >= LOOK_EVERY {
            self.looked = now;
            Timer::new(A_MOMENT).await;
        } else {
            glommio::executor().yield_task_queue_now().await;
        }
    }

    /// Returns when the ring has completions to reap, `deadline` is over, a [`Waker`] or a [`RemoteWaker`] was used since the
    /// last return, or for no reason. Submits what is queued first.
    pub async fn park(&mut self, ring: &mut Ring, deadline: Option<Duration>) -> io::Result<()> {
        ring.turn()?;
        let woken = self.waker.state.woken.take();
        if woken || ring.has_completions() || deadline.is_some_and(|left| left.is_zero()) {
            self.share().await;
            return Ok(());
        }
        if !self.spin.is_zero() {
            ring.spin(deadline.map_or(self.spin, |left| left.min(self.spin)))?;
            if ring.has_completions() {
                self.share().await;
                return Ok(());
            }
        }
        let linger = deadline.map_or(self.linger, |left| left.min(self.linger));
        if !linger.is_zero() {
            ring.wait(linger)?;
            if ring.has_completions() || deadline == Some(linger) {
                self.share().await;
                return Ok(());
            }
        }
        ring.listen()?;
        let found = ring.has_completions();
        if !found {
            self.sleep(deadline.map(|left| left.saturating_sub(linger)))
                .await;
            self.shared = Instant::now();
            self.looked = self.shared;
        }
        ring.stop_listening();
        Ok(())
    }

    async fn sleep(&self, deadline: Option<Duration>) {
        let mut timer = pin!(deadline.map(Timer::new));
        let mut slept = false;
        poll_fn(|context| {
            // Whatever wakes the task is a reason to look again.
            if self.waker.state.woken.take() || slept {
                return Poll::Ready(());
            }
            slept = true;
            *self.waker.state.task.borrow_mut() = Some(context.waker().clone());
            match timer.as_mut().as_pin_mut() {
                Some(timer) => timer.poll(context).map(drop),
                None => Poll::Pending,
            }
        })
        .await;
        self.waker.state.woken.set(false);
    }

    /// Wakes this parker from a task of the same executor.
    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// Wakes this parker from any thread.
    pub fn remote_waker(&self) -> RemoteWaker {
        RemoteWaker {
            event: self.event.clone(),
        }
    }
}

/// Waits for a signal. `false`: there will be none any more.
async fn read(file: &BufferedFile) -> bool {
    match file.read_at(0, 8).await {
        Ok(_) => true,
        Err(GlommioError::EnhancedIoError { source, .. } | GlommioError::IoError(source)) => {
            let again = matches!(
                source.kind(),
                io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock
            );
            if !again {
                tracing::error!(error = %source, "the event descriptor of the ring cannot be read");
            }
            again
        }
        Err(error) => {
            tracing::error!(%error, "the event descriptor of the ring cannot be read");
            false
        }
    }
}

#[derive(Default)]
struct WakerState {
    woken: Cell<bool>,
    task: RefCell<Option<std::task::Waker>>,
}

/// See [`Parker::waker`].
#[derive(Clone)]
pub struct Waker {
    state: Rc<WakerState>,
}

impl Waker {
    /// The parker returns, now or the next time it would sleep.
    pub fn wake(&self) {
        if !self.state.woken.replace(true)
            && let Some(task) = self.state.task.borrow_mut().take()
        {
            task.wake();
        }
    }
}

/// See [`Parker::remote_waker`].
#[derive(Clone)]
pub struct RemoteWaker {
    event: Arc<OwnedFd>,
}

impl RemoteWaker {
    /// The parker returns, now or the next time it would sleep.
    pub fn wake(&self) {
        let one = 1u64.to_ne_bytes();
        // SAFETY: eight readable bytes. The only failure is a counter at its end, and then the parker is being woken.
        unsafe { libc::write(self.event.as_raw_fd(), one.as_ptr().cast(), one.len()) };
    }
}

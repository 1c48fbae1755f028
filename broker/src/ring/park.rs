//! Parking: an idle shard sleeps in its executor until its ring has a completion, its deadline comes, or it is woken.

use super::Ring;
use std::io;
use std::time::Duration;

/// Puts the host's task to sleep. Belongs to one [`Ring`].
pub struct Parker {}

impl Parker {
    /// Must be called inside the executor whose task will park.
    pub fn new(ring: &mut Ring) -> io::Result<Self> {
        let _ = ring;
        todo!()
    }

    /// Returns when the ring has completions to reap, `deadline` is over, a [`Waker`] or a [`RemoteWaker`] was used since the
    /// last return, or for no reason. Submits what is queued first. Other tasks of the executor run meanwhile.
    pub async fn park(&mut self, ring: &mut Ring, deadline: Option<Duration>) -> io::Result<()> {
        let _ = (ring, deadline);
        todo!()
    }

    /// Wakes this parker from a task of the same executor.
    pub fn waker(&self) -> Waker {
        todo!()
    }

    /// Wakes this parker from any thread.
    pub fn remote_waker(&self) -> RemoteWaker {
        todo!()
    }
}

/// See [`Parker::waker`].
#[derive(Clone)]
pub struct Waker {}

impl Waker {
    /// The parker returns, now or the next time it would sleep.
    pub fn wake(&self) {
        todo!()
    }
}

/// See [`Parker::remote_waker`].
#[derive(Clone)]
pub struct RemoteWaker {}

impl RemoteWaker {
    /// The parker returns, now or the next time it would sleep.
    pub fn wake(&self) {
        todo!()
    }
}

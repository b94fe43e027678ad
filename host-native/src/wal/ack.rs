//! How a writer's callers learn what became of their frames.

use std::{
    future::Future,
    ops::RangeInclusive,
    pin::Pin,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use super::WalError;

/// What those who wait for the same event share: one lock and one wake-up call for all of them.
#[derive(Debug, Default)]
pub(super) struct Cohort {
    state: Mutex<State>,
    done: Condvar,
}

#[derive(Debug, Default)]
struct State {
    outcome: Option<Result<(), WalError>>,
    wakers: Vec<Option<Waker>>,
    vacant: Vec<usize>,
    blocked: usize,
}

impl Cohort {
    /// Tells everybody, once; a second outcome is ignored.
    pub(super) fn complete(&self, outcome: Result<(), WalError>) {
        let mut state = self.state();
        if state.outcome.is_some() {
            return;
        }
        state.outcome = Some(outcome);
        let wakers = std::mem::take(&mut state.wakers);
        let blocked = state.blocked > 0;
        drop(state);
        if blocked {
            self.done.notify_all();
        }
        wakers.into_iter().flatten().for_each(Waker::wake);
    }

    pub(super) fn outcome(&self) -> Option<Result<(), WalError>> {
        self.state().outcome.clone()
    }

    fn wait(&self) -> Result<(), WalError> {
        let mut state = self.state();
        loop {
            if let Some(outcome) = &state.outcome {
                return outcome.clone();
            }
            state.blocked += 1;
            state = self.done.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.blocked -= 1;
        }
    }

    fn poll(&self, slot: &mut Option<usize>, context: &Context<'_>) -> Poll<Result<(), WalError>> {
        let mut state = self.state();
        if let Some(outcome) = &state.outcome {
            return Poll::Ready(outcome.clone());
        }
        let at = match *slot {
            Some(at) => at,
            None => state.vacant.pop().unwrap_or_else(|| {
                state.wakers.push(None);
                state.wakers.len() - 1
            }),
        };
        *slot = Some(at);
        if let Some(waker) = state.wakers.get_mut(at) {
            match waker {
                Some(waker) => waker.clone_from(context.waker()),
                None => *waker = Some(context.waker().clone()),
            }
        }
        Poll::Pending
    }

    fn leave(&self, slot: usize) {
        let mut state = self.state();
        if let Some(waker) = state.wakers.get_mut(slot) {
            let waker = waker.take();
            state.vacant.push(slot);
            drop(state);
            drop(waker);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One waiter of a cohort.
#[derive(Debug)]
struct Seat {
    cohort: Arc<Cohort>,
    slot: Option<usize>,
}

impl Seat {
    fn poll(&mut self, context: &Context<'_>) -> Poll<Result<(), WalError>> {
        let polled = self.cohort.poll(&mut self.slot, context);
        if polled.is_ready() {
            self.slot = None;
        }
        polled
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(slot) = self.slot {
            self.cohort.leave(slot);
        }
    }
}

/// The promise that an append became durable: the numbers of its frames, or why there is no such promise.
///
/// A future, or a blocking [`wait`](Self::wait). Dropping it takes nothing back: the frames are still written.
#[derive(Debug)]
#[must_use = "the frames are durable only once this says so"]
pub struct Ack(Result<(RangeInclusive<u64>, Seat), WalError>);

impl Ack {
    pub(super) fn refused(error: WalError) -> Self {
        Self(Err(error))
    }

    pub(super) fn queued(seqs: RangeInclusive<u64>, cohort: Arc<Cohort>) -> Self {
        Self(Ok((seqs, Seat { cohort, slot: None })))
    }

    /// The number of the first frame, if they were taken. A batch that was refused does not end the log; any other that
    /// fails does.
    pub(crate) fn first_seq(&self) -> Option<u64> {
        self.0.as_ref().ok().map(|(seqs, _)| *seqs.start())
    }

    /// Blocks until the frames are durable.
    ///
    /// # Errors
    /// Why they are not, or may not be.
    pub fn wait(self) -> Result<RangeInclusive<u64>, WalError> {
        let (seqs, seat) = self.0?;
        seat.cohort.wait().map(|()| seqs)
    }
}

impl Future for Ack {
    type Output = Result<RangeInclusive<u64>, WalError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            Err(error) => Poll::Ready(Err(error.clone())),
            Ok((seqs, seat)) => seat.poll(context).map(|outcome| outcome.map(|()| seqs.clone())),
        }
    }
}

/// The end of a log: closed in order, or stopped by a failure.
///
/// A server waits for it beside its other work, and when it fails it denies every call and exits.
#[derive(Debug)]
pub struct End(Seat);

impl End {
    pub(super) fn of(cohort: Arc<Cohort>) -> Self {
        Self(Seat { cohort, slot: None })
    }

    /// Blocks until the log has ended.
    ///
    /// # Errors
    /// The failure that stopped it.
    pub fn wait(self) -> Result<(), WalError> {
        self.0.cohort.wait()
    }
}

impl Future for End {
    type Output = Result<(), WalError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.poll(context)
    }
}

//! How every handle is locked: a panic while it is held marks it as dead.

use std::sync::{Mutex, MutexGuard};

/// Takes a lock. Where a panic has marked it as dead, `renew` drops what it held: the panic may have left that half done.
pub(crate) fn lock<T>(handle: &Mutex<T>, renew: impl FnOnce(&mut T)) -> MutexGuard<'_, T> {
    handle.lock().unwrap_or_else(|dead| {
        handle.clear_poison();
        let mut held = dead.into_inner();
        renew(&mut held);
        held
    })
}

/// Panics while the handle is held.
#[cfg(test)]
pub(crate) fn kill<T>(handle: &Mutex<T>) {
    let killed = crate::error::caught("it is held", || {
        let _held = handle.lock().unwrap();
        panic!("on purpose");
    });
    assert!(killed.is_err() && handle.is_poisoned());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_panic_left_is_renewed_once() {
        let handle = Mutex::new(7);
        assert_eq!(*lock(&handle, |held| *held = 0), 7);
        kill(&handle);
        assert_eq!(*lock(&handle, |held| *held = 0), 0);
        *lock(&handle, |held| *held = 0) = 8;
        assert_eq!(*lock(&handle, |held| *held = 0), 8);
    }
}

//! `ag_native_host` and `ag_memory_host`: ready-made sources and sinks.

use std::{
    ffi::{c_char, c_void},
    path::Path,
    sync::Arc,
    time::Duration,
};

use super::{
    Failure, ag_status, entry,
    gate::{ag_answer, free},
    guard::{ag_appended, ag_note, ag_sink, ag_source},
    handle, optional, out, owned, required,
};
use crate::{
    answer::Answer,
    error::{Error, caught},
    guard::{Appended, Sink, Source},
    memory_host::MemoryHost,
    native_host::{NativeHost, token_of},
};

/// Where the native host is (`autonomy host serve`), and how to be let in. Nothing of it is kept.
#[derive(Debug)]
#[repr(C)]
pub struct ag_native_host_options {
    /// `http://127.0.0.1:7778`: a loopback address, without TLS.
    pub url: *const c_char,
    /// A Unix socket in place of `url`.
    pub socket: *const c_char,
    /// A file that holds the token and that nobody but its owner can read.
    pub token_file: *const c_char,
    /// The token itself in place of `token_file`.
    pub token: *const c_char,
}

/// Look-ups and durable appends at the native host of this machine. Keeps its connections; follows no redirect; never sends
/// an append twice. May be used from several threads at once.
#[derive(Debug)]
pub struct ag_native_host(Arc<NativeHost>);

/// A host in memory, for tests and first steps: nothing it takes is durable. May be used from several threads at once.
#[derive(Debug)]
pub struct ag_memory_host(Arc<MemoryHost>);

/// A new native host; nothing is connected yet. Yours: `ag_native_host_free`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ag_native_host_new(
    options: *const ag_native_host_options,
    host: *mut *mut ag_native_host,
) -> ag_status {
    entry(|| {
        let host = unsafe { out("host", host) }?;
        let options = unsafe { handle("options", options) }?;
        let (url, socket) = unsafe { (optional("url", options.url)?, optional("socket", options.socket)?) };
        let (file, token) = unsafe { (optional("token_file", options.token_file)?, optional("token", options.token)?) };
        let token = match (file, token) {
            (Some(file), None) => token_of(Path::new(file))?,
            (None, Some(token)) => token.to_owned(),
            _ => return Err(Error::malformed("the token must be given once: give `token_file` or `token`").into()),
        };
        let made = match (url, socket) {
            (Some(url), None) => NativeHost::at_url(url, token)?,
            (None, Some(socket)) => NativeHost::at_socket(Path::new(socket), token)?,
            _ => {
                let wrong = "where the native host is must be said once: give `url` or `socket`";
                return Err(Error::malformed(wrong).into());
            }
        };
        *host = Box::into_raw(Box::new(ag_native_host(Arc::new(made))));
        Ok(())
    })
}

/// Frees a host. Its sources and sinks live on. NULL is nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ag_native_host_free(host: *mut ag_native_host) {
    unsafe { free(host) }
}

/// Whether the host takes frames.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ag_native_host_is_healthy(host: *const ag_native_host, timeout_ms: u32) -> bool {
    let mut healthy = false;
    entry(|| {
        healthy = unsafe { handle("host", host) }?.0.is_healthy(Duration::from_millis(timeout_ms.into()));
        Ok(())
    });
    healthy
}

/// The host as a source, for a guard to take over. Of NULL: one that no guard takes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ag_native_host_source(host: *const ag_native_host) -> ag_source {
    source(unsafe { host.as_ref() }.map(|host| Arc::clone(&host.0)))
}

/// The host as a sink, for a guard to take over. Of NULL: one that no guard takes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ag_native_host_sink(host: *const ag_native_host) -> ag_sink {
    sink(unsafe { host.as_ref() }.map(|host| Arc::clone(&host.0)))
}

/// A new host in memory: it knows no node. Yours: `ag_memory_host_free`.
#[unsafe(no_mangle)]
pub extern "C" fn ag_memory_host_new() -> *mut ag_memory_host {
    Box::into_raw(Box::new(ag_memory_host(Arc::default())))
}

/// Frees a host. Its sources and sinks live on. NULL is nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ag_memory_host_free(host: *mut ag_memory_host) {
    unsafe { free(host) }
}

/// Enrolls a node, or changes its row. `status` is `active` and `rollout_state` is `<none>` where they are NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ag_memory_host_enroll(
    host: *const ag_memory_host,
    node_id: *const c_char,
    enrollment_ref: *const c_char,
    status: *const c_char,
    rollout_state: *const c_char,
) -> ag_status {
    entry(|| {
        let host = &unsafe { handle("host", host) }?.0;
        let node_id = unsafe { required("node_id", node_id) }?;
        let enrollment_ref = unsafe { required("enrollment_ref", enrollment_ref) }?;
        let status = unsafe { optional("status", status) }?.unwrap_or("active");
        let rollout_state = unsafe { optional("rollout_state", rollout_state) }?.unwrap_or("<none>");
        host.enroll(node_id, enrollment_ref, status, rollout_state);
        Ok(())
    })
}

/// Revokes a node: its next call is denied.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ag_memory_host_revoke(host: *const ag_memory_host, node_id: *const c_char) -> ag_status {
    entry(|| {
        unsafe { handle("host", host) }?.0.revoke(unsafe { required("node_id", node_id) }?);
        Ok(())
    })
}

/// Lets look-ups and appends fail with `why`, until it is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ag_memory_host_fail(host: *const ag_memory_host, why: *const c_char) -> ag_status {
    entry(|| {
        unsafe { handle("host", host) }?.0.fail(unsafe { optional("why", why) }?);
        Ok(())
    })
}

/// What was appended, the text of a JSON array. `*json` is yours: `ag_string_free`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ag_memory_host_frames(host: *const ag_memory_host, json: *mut *mut c_char) -> ag_status {
    entry(|| {
        let json = unsafe { out("json", json) }?;
        *json = owned(unsafe { handle("host", host) }?.0.frames().into_bytes())?;
        Ok(())
    })
}

/// The host as a source, for a guard to take over. Of NULL: one that no guard takes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ag_memory_host_source(host: *const ag_memory_host) -> ag_source {
    source(unsafe { host.as_ref() }.map(|host| Arc::clone(&host.0)))
}

/// The host as a sink, for a guard to take over. Of NULL: one that no guard takes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ag_memory_host_sink(host: *const ag_memory_host) -> ag_sink {
    sink(unsafe { host.as_ref() }.map(|host| Arc::clone(&host.0)))
}

/// A host of this library behind the callbacks that any other has, so that a guard knows one kind.
fn source<H: Source>(host: Option<Arc<H>>) -> ag_source {
    let Some(host) = host else {
        return ag_source { context: std::ptr::null_mut(), look_up: None, release: None };
    };
    ag_source {
        context: Arc::into_raw(host).cast_mut().cast(),
        look_up: Some(look_up::<H>),
        release: Some(release::<H>),
    }
}

fn sink<H: Sink>(host: Option<Arc<H>>) -> ag_sink {
    let Some(host) = host else {
        return ag_sink { context: std::ptr::null_mut(), append: None, release: None };
    };
    ag_sink { context: Arc::into_raw(host).cast_mut().cast(), append: Some(append::<H>), release: Some(release::<H>) }
}

unsafe extern "C" fn look_up<H: Source>(
    context: *mut c_void,
    node_id: *const c_char,
    timeout_ms: u32,
    answer: *mut ag_answer,
) {
    entry(|| {
        let host = unsafe { handle("context", context.cast::<H>()) }?;
        let answer = unsafe { answer.as_mut() }.ok_or_else(|| super::null("answer"))?;
        let node_id = unsafe { required("node_id", node_id) }?;
        let timeout = Duration::from_millis(timeout_ms.into());
        let looked_up = caught("the enrollment was looked up", || host.look_up(node_id, timeout));
        let looked_up = looked_up.unwrap_or_else(|panicked| Err(panicked.message));
        answer.0 = looked_up.unwrap_or_else(|why| Answer::unavailable(&why));
        Ok(())
    });
}

unsafe extern "C" fn append<H: Sink>(
    context: *mut c_void,
    frames: *const c_char,
    _: usize,
    timeout_ms: u32,
    note: *mut ag_note,
) -> i32 {
    let mut appended = ag_appended::AG_APPEND_FAILED;
    entry(|| {
        let host = unsafe { handle("context", context.cast::<H>()) }?;
        let frames = unsafe { required("frames", frames) }?;
        let timeout = Duration::from_millis(timeout_ms.into());
        let tried = caught("the frames were appended", || host.append(frames, timeout));
        let why = match tried.unwrap_or_else(|panicked| Appended::Failed(panicked.message)) {
            Appended::Durable => {
                appended = ag_appended::AG_APPEND_DURABLE;
                return Ok(());
            }
            Appended::FactsNotLogged(why) => {
                appended = ag_appended::AG_APPEND_FACTS_NOT_LOGGED;
                why
            }
            Appended::Failed(why) => why,
        };
        if let Some(note) = unsafe { note.as_mut() } {
            note.text = Some(why);
        }
        Ok::<(), Failure>(())
    });
    appended as i32
}

unsafe extern "C" fn release<H>(context: *mut c_void) {
    // SAFETY: it came from `Arc::into_raw` of the same type, and is released once.
    drop(unsafe { Arc::from_raw(context.cast::<H>().cast_const()) });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::tests::Panicking;

    #[test]
    fn a_host_that_panics_says_so() {
        let source = source(Some(Arc::new(Panicking)));
        let mut answer = ag_answer(Answer::not_enrolled(1));
        unsafe {
            source.look_up.unwrap()(source.context, c"robot-7".as_ptr(), 1000, &raw mut answer);
            source.release.unwrap()(source.context);
        }
        let said = "a panic while the enrollment was looked up: on purpose; report it as a defect of this library";
        assert_eq!(answer.0, Answer::unavailable(said));

        let sink = sink(Some(Arc::new(Panicking)));
        let mut note = ag_note::default();
        let appended = unsafe { sink.append.unwrap()(sink.context, c"[]".as_ptr(), 2, 1000, &raw mut note) };
        unsafe { sink.release.unwrap()(sink.context) };
        assert_eq!(appended, ag_appended::AG_APPEND_FAILED as i32);
        let said = "a panic while the frames were appended: on purpose; report it as a defect of this library";
        assert_eq!(note.text.as_deref(), Some(said));
    }
}

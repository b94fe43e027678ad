//! The drain: the log's frames to an OpenTelemetry Collector, at least once, in OTLP over HTTP.
//!
//! Frames are read in *windows* of bounded size. Within one, errors go before decisions, and these before the rest. When
//! every frame of a window is acknowledged or parked, `telemetry.pos` moves behind it; until then it stays, so that
//! whatever stops a drain makes it send the window again, under the same ids. A request is sent again where the
//! specification says so, and only there. A request that is refused is halved, until what is wrong with it stands alone:
//! that record is parked. Nothing is parked while nothing else of its window is taken, for then it is the collector that
//! does not hold.

mod exporter;
mod otlp;
mod task;
#[cfg(test)]
mod tests;

use std::{collections::VecDeque, io, ops::Range, time::Duration};

use axum::body::Bytes;
use gate_core::{frame::Kind, identity::NodeId};
use http::{StatusCode, uri::InvalidUri};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use prost::Message as _;
use tokio::time::{Instant, sleep};

use crate::{
    ErrorClass, client,
    token::TokenError,
    tool::ParseUrlError,
    wal::{Refused, Undrained, WalError},
};

pub use exporter::Exporter;
pub use task::Task;

use exporter::Outcome;

/// Most frames of a window.
const WINDOW_FRAMES: usize = 1024;
/// A window is full with so many bytes; its last frame may go beyond.
const WINDOW_BYTES: usize = 4 * 1024 * 1024;
/// Most records of a request.
const REQUEST_RECORDS: usize = 256;
/// Most bytes of a request, where it has more than one record: collectors take more.
const REQUEST_BYTES: usize = 1024 * 1024;
/// So many records refused alone, and none taken: the collector refuses everything.
const SUSPECTS: usize = 16;
/// The first pause after a collector was busy; each is twice the last.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// The longest, where the collector does not ask for a longer one.
const LAST_PAUSE: Duration = Duration::from_secs(60);
/// What any collector is given to answer.
const SHORTEST_WAIT: Duration = Duration::from_secs(1);
/// How often a log that is drained is asked for more.
const POLL: Duration = Duration::from_millis(200);

/// Why nothing can be sent.
#[derive(Debug, thiserror::Error)]
pub enum SetUpError {
    /// Not a URL.
    #[error("collector {0}")]
    Url(#[from] ParseUrlError),
    /// Not a URL that can be asked.
    #[error("collector url cannot be asked: {0}; correct it")]
    Target(#[from] InvalidUri),
    /// The log would be there for everybody between to read.
    #[error(
        "collector url `{url}` is neither https nor on this machine: use https, or a collector on this machine that sends on"
    )]
    Cleartext {
        /// The URL.
        url: String,
    },
    /// The token cannot be used.
    #[error("collector {0}")]
    Token(#[from] TokenError),
    /// TLS cannot be set up.
    #[error("collector: {0}")]
    Tls(#[from] client::SetUpError),
    /// The system has no thread to spare.
    #[error("cannot start the drain ({0}): free some memory or processes")]
    Thread(io::Error),
}

impl SetUpError {
    /// Whose turn it is.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Url(_) | Self::Target(_) | Self::Cleartext { .. } => ErrorClass::Usage,
            Self::Token(error) => error.class(),
            Self::Tls(error) => error.class(),
            Self::Thread(_) => ErrorClass::Unavailable,
        }
    }
}

/// What else to check of a collector over TLS.
fn and_its_roots(to: &str) -> &'static str {
    if to.starts_with("https://") { ", and `drain.ca`" } else { "" }
}

/// Why a drain stopped. What was not acknowledged will be sent again.
#[derive(Debug, thiserror::Error)]
pub enum DrainError {
    /// The log, or what says how far it was drained.
    #[error("{0}")]
    Wal(#[from] WalError),
    /// Nobody took anything for too long.
    #[error("the collector at `{to}` takes nothing ({why}): check that it runs{}, then drain again", and_its_roots(to))]
    Unavailable {
        /// Where.
        to: String,
        /// What came of the last request.
        why: String,
    },
    /// Sending the same again cannot help.
    #[error("`{to}` does not answer as a collector that takes logs from us ({why}): correct its url or the token")]
    Wrong {
        /// Where.
        to: String,
        /// The status of its answer, where that says it.
        status: Option<u16>,
        /// What is wrong.
        why: String,
    },
    /// Every record was refused, each alone, so that it is not the records.
    #[error("the collector at `{to}` refuses every record (`{id}`: {why}): look at its own log; nothing was parked")]
    Refuses {
        /// Where.
        to: String,
        /// The first of them.
        id: String,
        /// What it said of that.
        why: String,
    },
}

impl DrainError {
    /// Whose turn it is.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Wal(error) => error.class(),
            Self::Wrong { status: Some(300..=499), .. } => ErrorClass::Usage,
            Self::Unavailable { .. } | Self::Wrong { .. } | Self::Refuses { .. } => ErrorClass::Unavailable,
        }
    }
}

/// When a drain is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// When all that is durable is acknowledged or parked.
    CaughtUp {
        /// It gives up when the collector was busy or away for so long.
        patience: Duration,
    },
    /// Never: it goes on as frames are written, and waits for the collector.
    Dropped,
}

/// How far a drain has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Progress {
    /// Records that the collector has taken.
    pub sent: u64,
    /// Records that it has not, and that were passed over.
    pub parked: u64,
    /// The last frame that was acknowledged or parked.
    pub seq: u64,
    /// Durable frames after that.
    pub lag: u64,
    /// How often the collector was busy or away.
    pub waits: u64,
}

/// Sends what is undrained to a collector. Dropping it, or its future, loses nothing.
#[derive(Debug)]
pub struct Drain {
    undrained: Undrained,
    exporter: Exporter,
    /// All that was handed out and is not acknowledged, by priority.
    window: Vec<Outgoing>,
    progress: Progress,
}

/// A frame on its way.
#[derive(Debug)]
struct Outgoing {
    id: String,
    kind: Kind,
    node_id: Option<NodeId>,
    record: LogRecord,
    bytes: usize,
}

impl Drain {
    /// Sends `undrained` to where `exporter` leads.
    pub fn new(undrained: Undrained, exporter: Exporter) -> Self {
        let (seq, lag) = (undrained.acknowledged(), undrained.lag().unwrap_or_default());
        let progress = Progress { seq, lag, ..Progress::default() };
        Self { undrained, exporter, window: Vec::new(), progress }
    }

    /// How far it has come.
    pub fn progress(&self) -> Progress {
        self.progress
    }

    /// Drains until it is done, and says how far it came; `told` hears it on the way.
    ///
    /// # Errors
    /// Why it stopped before.
    pub async fn run(&mut self, until: Until, mut told: impl FnMut(Progress)) -> Result<Progress, DrainError> {
        loop {
            let is_caught_up = self.fill()?;
            if !self.window.is_empty() {
                match self.send_window(until, &mut told).await {
                    Ok(()) => {}
                    // With the frames that come until then, the window may show whose fault it is.
                    Err(error @ DrainError::Refuses { .. }) if until == Until::Dropped => {
                        tracing::error!("{error}");
                        self.waits(&mut told)?;
                        sleep(LAST_PAUSE).await;
                        continue;
                    }
                    Err(error) => return Err(error),
                }
            }
            match until {
                Until::CaughtUp { .. } if is_caught_up => return Ok(self.progress),
                Until::Dropped if is_caught_up => sleep(POLL).await,
                Until::CaughtUp { .. } | Until::Dropped => {}
            }
        }
    }

    /// Fills the window, and says whether it holds the last frame that is durable now.
    fn fill(&mut self) -> Result<bool, WalError> {
        let mut bytes: usize = self.window.iter().map(|outgoing| outgoing.bytes).sum();
        let mut is_caught_up = false;
        while self.window.len() < WINDOW_FRAMES && bytes < WINDOW_BYTES {
            let Some((id, frame)) = self.undrained.next_frame()? else {
                is_caught_up = true;
                break;
            };
            let record = otlp::log_record(&id, &frame);
            let outgoing =
                Outgoing { id, kind: frame.kind, node_id: frame.node_id, bytes: record.encoded_len(), record };
            bytes += outgoing.bytes;
            self.window.push(outgoing);
        }
        self.window.sort_by_key(|outgoing| priority(outgoing.kind));
        Ok(is_caught_up)
    }

    /// Sends the window, parks what alone is refused, and moves the position behind it.
    async fn send_window(&mut self, until: Until, told: &mut impl FnMut(Progress)) -> Result<(), DrainError> {
        let mut requests = requests(&self.window);
        let (mut sent, mut parked, mut is_any_taken) = (0, 0, false);
        let (mut in_part, mut alone) = (Vec::new(), Vec::new());
        while let Some(request) = requests.pop_front() {
            let count = request.len() as u64;
            let delivered = self.deliver(request.clone(), until, told).await?;
            let records = self.window.get(request.clone()).unwrap_or_default();
            let ids = || records.iter().map(|outgoing| outgoing.id.clone()).collect();
            match delivered {
                Delivered::Taken => (sent, is_any_taken) = (sent + count, true),
                Delivered::InPart { rejected, why } => {
                    let rejected = rejected.min(count);
                    (sent, parked, is_any_taken) = (sent + count - rejected, parked + rejected, true);
                    in_part.push(Refused { why, rejected, ids: ids() });
                }
                Delivered::Refused(why) if count == 1 => alone.push(Refused { why, rejected: 1, ids: ids() }),
                Delivered::Refused(_) => {
                    let middle = request.start + request.len() / 2;
                    requests.extend([request.start..middle, middle..request.end]);
                }
            }
            if !is_any_taken
                && (alone.len() == SUSPECTS || requests.is_empty())
                && let Some(Refused { why, ids, .. }) = alone.first()
            {
                let id = ids.first().cloned().unwrap_or_default();
                return Err(DrainError::Refuses { to: self.exporter.to_string(), id, why: why.clone() });
            }
        }
        for refused in in_part.iter().chain(&alone) {
            self.undrained.park(refused)?;
        }
        self.undrained.advance()?;
        self.window.clear();
        self.progress.sent += sent;
        self.progress.parked += parked + alone.len() as u64;
        self.progress.seq = self.undrained.acknowledged();
        self.progress.lag = self.undrained.lag()?;
        told(self.progress);
        Ok(())
    }

    /// Sends one request until there is an answer that settles it.
    async fn deliver(
        &mut self,
        request: Range<usize>,
        until: Until,
        told: &mut impl FnMut(Progress),
    ) -> Result<Delivered, DrainError> {
        let records = self.window.get(request).unwrap_or_default();
        let request = otlp::request(records.iter().map(|outgoing| (&outgoing.node_id, &outgoing.record)));
        let body = Bytes::from(request.encode_to_vec());
        let (began, mut tries) = (Instant::now(), 0);
        loop {
            let left = match until {
                Until::CaughtUp { patience } => patience.saturating_sub(began.elapsed()).max(SHORTEST_WAIT),
                Until::Dropped => Duration::MAX,
            };
            let (pause, why) = match self.exporter.send(body.clone(), left).await {
                Outcome::Taken => return Ok(Delivered::Taken),
                Outcome::InPart { rejected, why } => return Ok(Delivered::InPart { rejected, why }),
                Outcome::Refused(why) => return Ok(Delivered::Refused(why)),
                Outcome::Wrong { status, why } => {
                    let status = status.as_ref().map(StatusCode::as_u16);
                    return Err(DrainError::Wrong { to: self.exporter.to_string(), status, why });
                }
                Outcome::Busy { pause, why } => (pause.unwrap_or_else(|| back_off(tries)), why),
            };
            self.waits(told)?;
            match until {
                Until::CaughtUp { patience } if began.elapsed() + pause > patience => {
                    return Err(DrainError::Unavailable { to: self.exporter.to_string(), why });
                }
                Until::CaughtUp { .. } | Until::Dropped => {}
            }
            tracing::warn!("the collector at `{}` takes nothing ({why}): again in {pause:?}", self.exporter);
            sleep(pause).await;
            tries += 1;
        }
    }

    fn waits(&mut self, told: &mut impl FnMut(Progress)) -> Result<(), WalError> {
        self.progress.waits += 1;
        self.progress.lag = self.undrained.lag()?;
        told(self.progress);
        Ok(())
    }
}

/// An answer that settles a request.
#[derive(Debug)]
enum Delivered {
    Taken,
    InPart { rejected: u64, why: String },
    Refused(String),
}

/// What goes first within a window.
const fn priority(kind: Kind) -> u8 {
    match kind {
        Kind::Error => 0,
        Kind::Decision => 1,
        Kind::Facts => 2,
        Kind::Action => 3,
        Kind::Lifecycle => 4,
    }
}

/// A window cut into requests.
fn requests(window: &[Outgoing]) -> VecDeque<Range<usize>> {
    let mut requests: VecDeque<Range<usize>> = VecDeque::new();
    let mut bytes = 0;
    for (at, outgoing) in window.iter().enumerate() {
        match requests.back_mut() {
            Some(last) if last.len() < REQUEST_RECORDS && bytes + outgoing.bytes <= REQUEST_BYTES => {
                last.end = at + 1;
                bytes += outgoing.bytes;
            }
            Some(_) | None => {
                requests.push_back(at..at + 1);
                bytes = outgoing.bytes;
            }
        }
    }
    requests
}

/// A pause that doubles, of which a random half keeps a fleet from coming back at once.
fn back_off(tries: u32) -> Duration {
    let most = FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(tries)).min(LAST_PAUSE);
    let half = most / 2;
    // Without random bytes it is the longest.
    let random = getrandom::u32().unwrap_or(u32::MAX);
    half + half.mul_f64(f64::from(random) / f64::from(u32::MAX))
}

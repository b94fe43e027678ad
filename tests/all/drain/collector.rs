//! A collector that answers as a test tells it to, and reads what it is sent without the code that sends it.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    process::Output,
    sync::{Arc, Mutex},
    thread,
    time::Instant,
};

use crate::support::Home;

/// What a field of a protobuf message holds: enough of the format to read what is sent without the code that sends it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Field {
    Number(u64),
    Bytes(Vec<u8>),
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = bytes[0];
        *bytes = &bytes[1..];
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            break;
        }
    }
    value
}

fn fields(mut bytes: &[u8]) -> Vec<(u64, Field)> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let tag = varint(&mut bytes);
        let field = match tag & 7 {
            0 => Field::Number(varint(&mut bytes)),
            1 => {
                let (number, rest) = bytes.split_first_chunk().unwrap();
                bytes = rest;
                Field::Number(u64::from_le_bytes(*number))
            }
            2 => {
                let length = usize::try_from(varint(&mut bytes)).unwrap();
                let (field, rest) = bytes.split_at(length);
                bytes = rest;
                Field::Bytes(field.to_vec())
            }
            other => panic!("wire type {other}"),
        };
        fields.push((tag >> 3, field));
    }
    fields
}

/// The messages in field `number`.
fn messages(bytes: &[u8], number: u64) -> Vec<Vec<u8>> {
    let is = |(found, field): (u64, Field)| match field {
        Field::Bytes(bytes) if found == number => Some(bytes),
        Field::Bytes(_) | Field::Number(_) => None,
    };
    fields(bytes).into_iter().filter_map(is).collect()
}

fn text(bytes: &[u8], number: u64) -> String {
    String::from_utf8(messages(bytes, number).pop().unwrap_or_default()).unwrap()
}

fn number(bytes: &[u8], number: u64) -> u64 {
    let is = |(found, field): (u64, Field)| match field {
        Field::Number(value) if found == number => Some(value),
        Field::Bytes(_) | Field::Number(_) => None,
    };
    fields(bytes).into_iter().find_map(is).unwrap_or_default()
}

/// `KeyValue`s as text.
fn attributes(bytes: &[u8], at: u64) -> BTreeMap<String, String> {
    let value = |any: &[u8]| match fields(any).pop().unwrap() {
        (1, Field::Bytes(text)) => String::from_utf8(text).unwrap(),
        (_, Field::Number(number)) => number.to_string(),
        other => panic!("{other:?}"),
    };
    messages(bytes, at).iter().map(|pair| (text(pair, 1), value(&messages(pair, 2)[0]))).collect()
}

/// A record as it arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Arrived {
    pub(crate) id: String,
    pub(crate) event_name: String,
    pub(crate) severity: (u64, String),
    pub(crate) unix_ns: u64,
    pub(crate) body: String,
    pub(crate) attributes: BTreeMap<String, String>,
    pub(crate) resource: BTreeMap<String, String>,
}

/// One request to the collector.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) head: String,
    pub(crate) records: Vec<Arrived>,
    pub(crate) at: Instant,
}

impl Asked {
    fn read(stream: &mut BufReader<TcpStream>) -> Option<Self> {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if stream.read_line(&mut head).ok()? == 0 {
                return None;
            }
        }
        let head = head.to_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap().parse().unwrap();
        let mut body = vec![0; length];
        stream.read_exact(&mut body).ok()?;
        let mut records = Vec::new();
        for resource_logs in messages(&body, 1) {
            let resource = attributes(&messages(&resource_logs, 1)[0], 1);
            for record in messages(&resource_logs, 2).iter().flat_map(|scope_logs| messages(scope_logs, 2)) {
                let attributes = attributes(&record, 6);
                assert_eq!(number(&record, 1), number(&record, 11), "seen when it was made");
                records.push(Arrived {
                    id: attributes["autonomy.id"].clone(),
                    event_name: text(&record, 12),
                    severity: (number(&record, 2), text(&record, 3)),
                    unix_ns: number(&record, 1),
                    body: text(&messages(&record, 5)[0], 1),
                    attributes,
                    resource: resource.clone(),
                });
            }
        }
        Some(Self { head, records, at: Instant::now() })
    }

    pub(crate) fn ids(&self) -> Vec<&str> {
        self.records.iter().map(|record| record.id.as_str()).collect()
    }

    pub(crate) fn holds(&self, seqs: &[u64]) -> bool {
        self.records.iter().any(|record| seqs.contains(&seq(&record.id)))
    }
}

pub(crate) fn seq(id: &str) -> u64 {
    id.rsplit_once(':').unwrap().1.parse().unwrap()
}

/// A collector that answers what it is told to, byte for byte; nothing is a cut connection.
pub(crate) struct Collector {
    pub(crate) address: String,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Collector {
    pub(crate) fn start(answer: impl FnMut(usize, &Asked) -> Vec<u8> + Send + 'static) -> Self {
        Self::listen(TcpListener::bind("127.0.0.1:0").unwrap(), answer)
    }

    pub(crate) fn listen(
        listener: TcpListener,
        mut answer: impl FnMut(usize, &Asked) -> Vec<u8> + Send + 'static,
    ) -> Self {
        let address = listener.local_addr().unwrap().to_string();
        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let all = Arc::clone(&asked);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = BufReader::new(stream.unwrap());
                // Whoever was killed in the middle of a request has sent none.
                let Some(asked) = Asked::read(&mut stream) else { continue };
                let nth = all.lock().unwrap().len();
                let bytes = answer(nth, &asked);
                all.lock().unwrap().push(asked);
                let _ = stream.get_mut().write_all(&bytes);
            }
        });
        Self { address, asked }
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// Every record of every request, in the order of arrival.
    pub(crate) fn arrived(&self) -> Vec<Arrived> {
        self.asked().into_iter().flat_map(|asked| asked.records).collect()
    }

    pub(crate) fn drain(&self, home: &Home, flags: &str) -> Output {
        home.run(&format!("wal drain --output json --to http://{} {flags}", self.address))
    }
}

pub(crate) fn answer(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

pub(crate) fn ok() -> Vec<u8> {
    answer("200 OK", "content-type: application/x-protobuf\r\n", b"")
}

/// `ExportLogsServiceResponse` with a partial success.
pub(crate) fn in_part(rejected: u8, message: &str) -> Vec<u8> {
    let length = |bytes: &[u8]| u8::try_from(bytes.len()).unwrap();
    let message = [&[0x12, length(message.as_bytes())], message.as_bytes()].concat();
    let partial = [&[0x08, rejected], message.as_slice()].concat();
    answer("200 OK", "", &[&[0x0a, length(&partial)], partial.as_slice()].concat())
}

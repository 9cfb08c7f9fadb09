//! The little of D-Bus that asking systemd takes: one call at a time, little-endian. Source: the D-Bus specification.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// Longest answer that is read, bytes.
const MAX_MESSAGE: usize = 1 << 20;
/// How long the other side may take.
const PATIENCE: Duration = Duration::from_secs(25);
const METHOD_CALL: u8 = 1;
const METHOD_RETURN: u8 = 2;
const ERROR: u8 = 3;
const FIELD_REPLY_SERIAL: u8 = 5;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The connection.
    #[error("the connection failed: {0}")]
    Io(#[from] std::io::Error),
    /// The other side does not speak as it should.
    #[error("an answer is not to be understood")]
    Malformed,
    /// The other side says no.
    #[error("{0}")]
    Refused(String),
}

/// A value of a property.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A string.
    Text(String),
    /// A truth value.
    Bool(bool),
    /// A 64-bit number.
    Number(u64),
    /// A list of 32-bit numbers.
    List(Vec<u32>),
}

/// Builds a message body; alignment counts from its start, which messages put at a multiple of 8.
#[derive(Default)]
pub struct Body {
    bytes: Vec<u8>,
}

impl Body {
    fn align(&mut self, to: usize) {
        self.bytes.resize(self.bytes.len().next_multiple_of(to), 0);
    }

    fn u32(&mut self, value: u32) {
        self.align(4);
        self.bytes.extend(value.to_le_bytes());
    }

    /// A string.
    pub fn text(&mut self, text: &str) -> &mut Self {
        self.u32(text.len() as u32);
        self.bytes.extend(text.as_bytes());
        self.bytes.push(0);
        self
    }

    fn signature(&mut self, text: &str) {
        self.bytes.push(text.len() as u8);
        self.bytes.extend(text.as_bytes());
        self.bytes.push(0);
    }

    /// An array whose elements `fill` writes; they are aligned to `to`.
    fn array(&mut self, to: usize, fill: impl FnOnce(&mut Self)) {
        self.u32(0);
        let length_at = self.bytes.len() - 4;
        self.align(to);
        let start = self.bytes.len();
        fill(self);
        let length = (self.bytes.len() - start) as u32;
        self.bytes[length_at..length_at + 4].copy_from_slice(&length.to_le_bytes());
    }

    fn variant(&mut self, value: &Value) {
        match value {
            Value::Text(text) => {
                self.signature("s");
                self.text(text);
            }
            Value::Bool(on) => {
                self.signature("b");
                self.u32(u32::from(*on));
            }
            Value::Number(number) => {
                self.signature("t");
                self.align(8);
                self.bytes.extend(number.to_le_bytes());
            }
            Value::List(list) => {
                self.signature("au");
                self.array(4, |b| list.iter().for_each(|n| b.u32(*n)));
            }
        }
    }

    /// Properties: `a(sv)`.
    pub fn properties(&mut self, list: &[(&str, Value)]) -> &mut Self {
        self.array(8, |b| {
            for (name, value) in list {
                b.align(8);
                b.text(name).variant(value);
            }
        });
        self
    }

    /// An empty array of structures.
    pub fn nothing(&mut self) -> &mut Self {
        self.array(8, |_| {});
        self
    }

    /// A truth value.
    pub fn boolean(&mut self, on: bool) -> &mut Self {
        self.u32(u32::from(on));
        self
    }
}

/// A method to call.
pub struct Method<'a> {
    /// Whose.
    pub destination: &'a str,
    /// The object.
    pub path: &'a str,
    /// The interface.
    pub interface: &'a str,
    /// The method.
    pub member: &'a str,
    /// Types of its arguments.
    pub signature: &'a str,
}

fn encode(serial: u32, method: &Method<'_>, body: &Body) -> Vec<u8> {
    let mut m = Body::default();
    m.bytes.extend([b'l', METHOD_CALL, 0, 1]);
    m.u32(body.bytes.len() as u32);
    m.u32(serial);
    m.array(8, |m| {
        for (field, kind, text) in [
            (1, "o", method.path),
            (2, "s", method.interface),
            (3, "s", method.member),
            (6, "s", method.destination),
        ] {
            m.align(8);
            m.bytes.push(field);
            m.signature(kind);
            m.text(text);
        }
        if !method.signature.is_empty() {
            m.align(8);
            m.bytes.push(8);
            m.signature("g");
            m.signature(method.signature);
        }
    });
    m.align(8);
    m.bytes.extend(&body.bytes);
    m.bytes
}

/// A connection that has been let in.
pub struct Connection {
    stream: UnixStream,
    serial: u32,
}

impl Connection {
    /// Connects to the socket at `path` and proves who we are.
    pub fn open(path: &str) -> Result<Self, Error> {
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut c = Self { stream, serial: 0 };
        let user = rustix::process::geteuid().as_raw().to_string();
        let hex: String = user.bytes().map(|b| format!("{b:02x}")).collect();
        c.stream
            .write_all(format!("\0AUTH EXTERNAL {hex}\r\n").as_bytes())?;
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            let mut byte = [0];
            c.stream.read_exact(&mut byte)?;
            line.push(byte[0]);
            if line.len() > 4096 {
                return Err(Error::Malformed);
            }
        }
        if !line.starts_with(b"OK ") {
            return Err(Error::Refused(String::from_utf8_lossy(&line).trim().to_owned()));
        }
        c.stream.write_all(b"BEGIN\r\n")?;
        Ok(c)
    }

    /// Calls a method and waits for its answer, whose content is of no interest.
    pub fn call(&mut self, method: &Method<'_>, body: &Body) -> Result<(), Error> {
        self.serial += 1;
        self.stream.write_all(&encode(self.serial, method, body))?;
        loop {
            let message = self.receive()?;
            match message.kind {
                METHOD_RETURN if message.reply_to == self.serial => return Ok(()),
                ERROR if message.reply_to == self.serial => return Err(Error::Refused(message.text())),
                // A signal, or an answer nobody waits for.
                _ => {}
            }
        }
    }

    fn receive(&mut self) -> Result<Message, Error> {
        let mut head = [0; 16];
        self.stream.read_exact(&mut head)?;
        let number =
            |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]) as usize;
        let (body, fields) = (number(4), number(12));
        if head[0] != b'l' || body > MAX_MESSAGE || fields > MAX_MESSAGE {
            return Err(Error::Malformed);
        }
        let mut rest = vec![0; fields.next_multiple_of(8) + body];
        self.stream.read_exact(&mut rest)?;
        let body = rest.split_off(fields.next_multiple_of(8));
        rest.truncate(fields);
        Ok(Message {
            kind: head[1],
            reply_to: reply_serial(&rest).unwrap_or(0),
            body,
        })
    }
}

struct Message {
    kind: u8,
    reply_to: u32,
    body: Vec<u8>,
}

impl Message {
    /// The string that an error's body begins with.
    fn text(&self) -> String {
        let length = self
            .body
            .first_chunk()
            .map_or(0, |n| u32::from_le_bytes(*n) as usize);
        let text = self.body.get(4..4 + length).unwrap_or_default();
        String::from_utf8_lossy(text).into_owned()
    }
}

/// The serial that an answer's header fields say it answers. A field is a byte, a signature and a value, from a multiple of 8.
fn reply_serial(fields: &[u8]) -> Option<u32> {
    let u32_at = |at: usize| {
        fields
            .get(at..at + 4)?
            .first_chunk()
            .map(|n| u32::from_le_bytes(*n))
    };
    let mut at = 0;
    loop {
        at = usize::next_multiple_of(at, 8);
        let (field, length) = (*fields.get(at)?, usize::from(*fields.get(at + 1)?));
        let kind = *fields.get(at + 2)?;
        at += 3 + length;
        match kind {
            b'u' => {
                at = at.next_multiple_of(4);
                if field == FIELD_REPLY_SERIAL {
                    return u32_at(at);
                }
                at += 4;
            }
            b's' | b'o' => {
                at = at.next_multiple_of(4);
                at += 5 + u32_at(at)? as usize;
            }
            b'g' => at += 2 + usize::from(*fields.get(at)?),
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const METHOD: Method<'_> = Method {
        destination: "a.b",
        path: "/a",
        interface: "a.c",
        member: "Do",
        signature: "sa(sv)",
    };

    #[test]
    fn a_call_has_the_bytes_of_the_specification() {
        let mut body = Body::default();
        body.text("x")
            .properties(&[("P", Value::Number(5)), ("L", Value::List(vec![1, 2]))]);
        assert_eq!(&body.bytes[..8], b"\x01\0\0\0x\0\0\0");
        // The array's length counts from its first element, which begins at a multiple of 8.
        assert_eq!(
            u32::from_le_bytes(body.bytes[8..12].try_into().unwrap()) as usize,
            body.bytes.len() - 16
        );
        assert_eq!(&body.bytes[16..22], b"\x01\0\0\0P\0");
        assert_eq!(&body.bytes[22..25], b"\x01t\0");
        assert_eq!(&body.bytes[32..40], &5u64.to_le_bytes());
        let message = encode(7, &METHOD, &body);
        assert_eq!(&message[..4], b"l\x01\0\x01");
        assert_eq!(message[8..12], 7u32.to_le_bytes());
        assert!(message.ends_with(&body.bytes) && (message.len() - body.bytes.len()).is_multiple_of(8));
    }

    #[test]
    fn answers_are_told_from_others() {
        // A signal that comes first, an error for the call: sender (a string) before the reply serial.
        let mut fields = Body::default();
        fields.bytes.push(7);
        fields.signature("s");
        fields.text(":1.5");
        fields.align(8);
        fields.bytes.push(FIELD_REPLY_SERIAL);
        fields.signature("u");
        fields.u32(1);
        assert_eq!(reply_serial(&fields.bytes), Some(1));
        assert_eq!(reply_serial(&fields.bytes[..12]), None);
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        for kind in [4, ERROR] {
            let mut body = Body::default();
            body.text("no luck");
            theirs.write_all(&[b'l', kind, 0, 1]).unwrap();
            theirs
                .write_all(&(body.bytes.len() as u32).to_le_bytes())
                .unwrap();
            theirs.write_all(&9u32.to_le_bytes()).unwrap();
            theirs
                .write_all(&(fields.bytes.len() as u32).to_le_bytes())
                .unwrap();
            theirs.write_all(&fields.bytes).unwrap();
            theirs
                .write_all(&vec![
                    0;
                    fields.bytes.len().next_multiple_of(8) - fields.bytes.len()
                ])
                .unwrap();
            theirs.write_all(&body.bytes).unwrap();
        }
        let mut c = Connection {
            stream: ours,
            serial: 0,
        };
        let said = c.call(&METHOD, &Body::default()).unwrap_err().to_string();
        assert_eq!(said, "no luck");
    }
}

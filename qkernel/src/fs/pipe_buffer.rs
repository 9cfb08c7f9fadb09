//! The bytes in a pipe: a queue of counted chunks, so that large writes are stored and read without another copy and
//! `tee` shares them.

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use hal::host::Src;
use qlib::Errno;

/// A run of bytes.
#[derive(Clone)]
pub struct Chunk {
    /// `None` once all was cut off: the buffer can append to a chunk only while it is the sole owner.
    data: Option<Arc<Vec<u8>>>,
    start: usize,
    end: usize,
    packet: bool,
}

impl Chunk {
    /// Takes over a vector.
    pub fn new(data: Vec<u8>, packet: bool) -> Self {
        let end = data.len();
        Self {
            data: Some(Arc::new(data)),
            start: 0,
            end,
            packet,
        }
    }
    /// Takes up to `limit` bytes from `src`.
    ///
    /// # Errors
    /// EFAULT when not one byte could be read.
    pub fn read_from(src: &mut Src<'_>, limit: usize, packet: bool) -> Result<Self, Errno> {
        let mut data = vec![0; src.remaining().min(limit)];
        let n = src.take(&mut data)?;
        data.truncate(n);
        Ok(Self::new(data, packet))
    }
    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        match &self.data {
            Some(d) => &d[self.start..self.end],
            None => &[],
        }
    }
    /// Their number.
    pub fn len(&self) -> usize {
        self.end - self.start
    }
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Whether it was written in packet mode (O_DIRECT): a read takes no more than it, and drops its rest.
    pub fn is_packet(&self) -> bool {
        self.packet
    }
    /// Drops the first `n` bytes.
    pub fn skip(&mut self, n: usize) {
        self.start += n.min(self.len());
    }
    /// Cuts off up to `n` bytes at the front.
    pub fn split_front(&mut self, n: usize) -> Chunk {
        if n >= self.len() {
            let front = self.clone_out();
            self.start = self.end;
            return front;
        }
        let mut front = self.clone();
        front.end = front.start + n;
        self.start += n;
        front
    }
    fn clone_out(&mut self) -> Chunk {
        Chunk {
            data: self.data.take(),
            start: self.start,
            end: self.end,
            packet: self.packet,
        }
    }
}

/// The queue.
pub struct Buffer {
    chunks: VecDeque<Chunk>,
    len: usize,
    capacity: usize,
}

/// Small writes are gathered into chunks of at least this capacity.
const GATHER: usize = 512;

impl Buffer {
    /// An empty queue.
    pub fn new(capacity: usize) -> Self {
        Self {
            chunks: VecDeque::new(),
            len: 0,
            capacity,
        }
    }
    /// Bytes in it.
    pub fn len(&self) -> usize {
        self.len
    }
    /// Whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
    /// Capacity, bytes.
    pub fn capacity(&self) -> usize {
        self.capacity
    }
    /// Changes the capacity.
    pub fn set_capacity(&mut self, capacity: usize) {
        self.capacity = capacity;
    }
    /// Bytes that still fit.
    pub fn room(&self) -> usize {
        self.capacity.saturating_sub(self.len)
    }
    /// Adds bytes at the end.
    pub fn push(&mut self, c: Chunk) {
        if c.is_empty() {
            return;
        }
        self.len += c.len();
        if !c.packet
            && c.len() < GATHER
            && let Some(tail) = self.chunks.back_mut()
            && !tail.packet
            && let Some(data) = tail.data.as_mut().and_then(Arc::get_mut)
            && tail.end == data.len()
        {
            // A chunk grows by doubling up to the gathering size, so that many small writes cost little each.
            if data.len() + c.len() <= data.capacity().max(GATHER) {
                data.extend_from_slice(c.bytes());
                tail.end = data.len();
                return;
            }
        }
        self.chunks.push_back(c);
    }
    /// Takes up to `want` bytes; never more than one packet, whose rest is dropped.
    pub fn take(&mut self, want: usize) -> Vec<Chunk> {
        let mut out = Vec::with_capacity(1);
        let mut left = want;
        while left > 0 {
            let Some(front) = self.chunks.front_mut() else {
                break;
            };
            if front.packet {
                if out.is_empty()
                    && let Some(mut c) = self.chunks.pop_front()
                {
                    self.len -= c.len();
                    out.push(c.split_front(left));
                }
                break;
            }
            if front.len() > left {
                let mut part = front.clone();
                part.end = part.start + left;
                front.start += left;
                self.len -= left;
                out.push(part);
                break;
            }
            if let Some(c) = self.chunks.pop_front() {
                self.len -= c.len();
                left -= c.len();
                out.push(c);
            }
        }
        out
    }
    /// Copies of the chunks [`Buffer::take`] would give; they stay.
    pub fn peek(&self, want: usize) -> Vec<Chunk> {
        let mut out = Vec::new();
        let mut left = want;
        for c in &self.chunks {
            if left == 0 {
                break;
            }
            let part = c.clone().split_front(left);
            left -= part.len();
            out.push(part);
        }
        out
    }
    /// Puts chunks back to the front, in their order.
    pub fn give_back(&mut self, chunks: Vec<Chunk>) {
        for c in chunks.into_iter().rev() {
            self.len += c.len();
            self.chunks.push_front(c);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes(chunks: &[Chunk]) -> Vec<u8> {
        chunks.iter().flat_map(|c| c.bytes().to_vec()).collect()
    }

    #[derive(Clone, Debug)]
    enum Step {
        Push(Vec<u8>),
        Take(usize),
        Peek(usize),
        TakeAndGiveBack(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..2000).prop_map(Step::Push),
            (0usize..3000).prop_map(Step::Take),
            (0usize..3000).prop_map(Step::Peek),
            (0usize..3000).prop_map(Step::TakeAndGiveBack),
        ]
    }

    proptest! {
        #[test]
        fn behaves_as_a_byte_queue(steps in proptest::collection::vec(step(), 1..60)) {
            let mut b = Buffer::new(1 << 20);
            let mut model: VecDeque<u8> = VecDeque::new();
            let mut held = Vec::new();
            for s in steps {
                match s {
                    Step::Push(v) => {
                        model.extend(&v);
                        b.push(Chunk::new(v, false));
                    }
                    Step::Take(n) => {
                        let want: Vec<u8> = model.drain(..n.min(model.len())).collect();
                        prop_assert_eq!(bytes(&b.take(n)), want);
                    }
                    Step::Peek(n) => {
                        let want: Vec<u8> = model.iter().copied().take(n).collect();
                        let got = b.peek(n);
                        prop_assert_eq!(bytes(&got), want);
                        // Shared chunks must not change under their other owner.
                        held.push((bytes(&got), got));
                    }
                    Step::TakeAndGiveBack(n) => {
                        let c = b.take(n);
                        b.give_back(c);
                    }
                }
                prop_assert_eq!(b.len(), model.len());
            }
            for (want, chunks) in held {
                prop_assert_eq!(bytes(&chunks), want);
            }
        }
    }

    #[test]
    fn packets_keep_their_borders_and_lose_their_rest() {
        let mut b = Buffer::new(65536);
        b.push(Chunk::new(b"hello".to_vec(), true));
        b.push(Chunk::new(b"world".to_vec(), true));
        assert_eq!(bytes(&b.take(3)), b"hel");
        assert_eq!(bytes(&b.take(100)), b"world");
        assert!(b.is_empty());
    }
}

//! A fixed ring of records between one thread that puts and one that takes: no lock, no allocation.
//!
//! A record lies in one piece and starts at a multiple of eight bytes: its kind and slot, its length, then
//! what it carries. `head` and `tail` only grow, modulo the size they are places in the buffer. What lies
//! between `tail` and `head` is read by the consumer and by nobody written; all the rest is the producer's.

use std::cell::UnsafeCell;
use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const HEADER_BYTES: usize = 8;

/// Records are not made longer than this by adding to them, so that the consumer is done with one soon.
const RECORD_BYTES: u64 = 32 << 10;

const PAD: u16 = 0;
const BYTES: u16 = 1;
const FILE: u16 = 2;
const CLOSE: u16 = 3;

/// The end that puts.
#[derive(Debug)]
pub(crate) struct Producer {
    shared: Arc<Shared>,
    /// What is written up to here will be published next.
    position: u64,
    /// The record that more bytes may be added to, from its header on.
    open: Option<Open>,
}

/// The end that takes.
#[derive(Debug)]
pub(crate) struct Consumer {
    shared: Arc<Shared>,
}

/// What the consumer finds.
#[derive(Debug)]
pub(crate) enum Record<'a> {
    /// Bytes for a slot.
    Bytes { slot: u16, bytes: &'a [u8] },
    /// The file that the slot's bytes go to from here on.
    File { slot: u16, file: OwnedFd },
    /// No more for this slot.
    Close { slot: u16 },
}

#[derive(Debug, Clone, Copy)]
struct Open {
    slot: u16,
    start: u64,
}

#[derive(Debug)]
struct Shared {
    buffer: Box<[UnsafeCell<u8>]>,
    head: AtomicU64,
    tail: AtomicU64,
}

// SAFETY: each byte of the buffer belongs to one of the two ends at any time, see the module's description.
unsafe impl Sync for Shared {}

/// Makes a ring of a power of two bytes. Memory is only used as far as records ever reached.
pub(crate) fn ring(bytes: usize) -> (Producer, Consumer) {
    assert!(bytes.is_power_of_two() && bytes >= 64);
    // Asked for as zeros, which a big allocation is without being touched.
    let zeros = vec![0_u8; bytes].into_boxed_slice();
    let raw = Box::into_raw(zeros) as *mut [UnsafeCell<u8>];
    // SAFETY: UnsafeCell<u8> is laid out as u8, and the box has just been given up.
    let buffer = unsafe { Box::from_raw(raw) };
    let shared = Arc::new(Shared { buffer, head: AtomicU64::new(0), tail: AtomicU64::new(0) });
    (Producer { shared: shared.clone(), position: 0, open: None }, Consumer { shared })
}

impl Producer {
    /// Adds the parts, one after the other, for a slot; false when there is no room for them.
    pub(crate) fn append(&mut self, slot: u16, parts: &[&[u8]]) -> bool {
        let bytes = parts.iter().map(|part| part.len()).sum();
        if !self.extends(slot, bytes) {
            self.close();
            if !self.make_room(HEADER_BYTES + bytes) {
                return false;
            }
            self.open = Some(Open { slot, start: self.position });
            self.position += HEADER_BYTES as u64;
        }
        for part in parts {
            self.shared.write(self.position, part);
            self.position += part.len() as u64;
        }
        true
    }

    /// Hands a file over: the slot's bytes go there from here on. Gives it back when there is no room.
    pub(crate) fn hand_over(&mut self, slot: u16, file: OwnedFd) -> Result<(), OwnedFd> {
        self.close();
        if !self.make_room(2 * HEADER_BYTES) {
            return Err(file);
        }
        self.header(self.position, (FILE, slot), size_of::<RawFd>());
        self.shared.write(self.position + HEADER_BYTES as u64, &file.into_raw_fd().to_ne_bytes());
        self.position += 2 * HEADER_BYTES as u64;
        Ok(())
    }

    /// Says that no more comes for this slot; false when there is no room.
    pub(crate) fn finish(&mut self, slot: u16) -> bool {
        self.close();
        if !self.make_room(HEADER_BYTES) {
            return false;
        }
        self.header(self.position, (CLOSE, slot), 0);
        self.position += HEADER_BYTES as u64;
        true
    }

    /// Lets the consumer see all that was put; false when there was nothing new.
    pub(crate) fn publish(&mut self) -> bool {
        self.close();
        self.shared.head.swap(self.position, Ordering::Release) != self.position
    }

    /// What was put so far ends here.
    pub(crate) fn position(&mut self) -> u64 {
        self.close();
        self.position
    }

    /// The consumer is done with what lies before this.
    pub(crate) fn taken(&self) -> u64 {
        self.shared.tail.load(Ordering::Acquire)
    }

    /// The consumer is done with everything, and there is nothing to be published.
    pub(crate) fn is_taken(&self) -> bool {
        self.open.is_none() && self.taken() == self.position
    }

    fn extends(&self, slot: u16, bytes: usize) -> bool {
        let place = self.shared.place(self.position);
        self.open.is_some_and(|open| open.slot == slot && self.position - open.start < RECORD_BYTES)
            && place != 0
            && bytes <= self.shared.buffer.len() - place
            && bytes as u64 <= self.free()
    }

    fn free(&self) -> u64 {
        self.shared.buffer.len() as u64 - (self.position - self.taken())
    }

    /// Finds room for a record in one piece, from the beginning of the buffer if need be.
    fn make_room(&mut self, bytes: usize) -> bool {
        let bytes = bytes.next_multiple_of(HEADER_BYTES) as u64;
        let place = self.shared.place(self.position);
        let rest = (self.shared.buffer.len() - place) as u64;
        // An empty ring begins anew, so that little traffic uses little memory. What is left of it after that is
        // only as long as what was used before, until the consumer has looked at it.
        let begin_anew = place >= self.shared.buffer.len() / 16 && self.taken() == self.position;
        if bytes <= rest && !begin_anew {
            return bytes <= self.free();
        }
        if rest + bytes > self.free() {
            // Not worth the beginning; as it is there may be room.
            return bytes <= rest && bytes <= self.free();
        }
        self.header(self.position, (PAD, 0), 0);
        self.position += rest;
        true
    }

    /// Writes the open record's header, now that its length is known.
    fn close(&mut self) {
        let Some(open) = self.open.take() else { return };
        let bytes = self.shared.distance(open.start, self.position) - HEADER_BYTES;
        self.header(open.start, (BYTES, open.slot), bytes);
        self.position = self.position.next_multiple_of(HEADER_BYTES as u64);
    }

    fn header(&self, position: u64, (kind, slot): (u16, u16), bytes: usize) {
        let mut header = [0; HEADER_BYTES];
        header[..2].copy_from_slice(&kind.to_ne_bytes());
        header[2..4].copy_from_slice(&slot.to_ne_bytes());
        // A record is shorter than the ring, and the ring than 4 GiB.
        header[4..].copy_from_slice(&u32::try_from(bytes).unwrap_or(u32::MAX).to_ne_bytes());
        self.shared.write(position, &header);
    }
}

impl Consumer {
    /// Gives the next record to `handle` and is done with it then; false when there is none.
    pub(crate) fn take(&mut self, handle: impl FnOnce(Record<'_>)) -> bool {
        let head = self.shared.head.load(Ordering::Acquire);
        let mut tail = self.shared.tail.load(Ordering::Relaxed);
        loop {
            if tail == head {
                return false;
            }
            let header = self.shared.read(tail, HEADER_BYTES);
            let kind = u16::from_ne_bytes([header[0], header[1]]);
            let slot = u16::from_ne_bytes([header[2], header[3]]);
            let bytes = u32::from_ne_bytes([header[4], header[5], header[6], header[7]]) as usize;
            if kind == PAD {
                tail += (self.shared.buffer.len() - self.shared.place(tail)) as u64;
                self.shared.tail.store(tail, Ordering::Release);
                continue;
            }
            handle(self.shared.record((kind, slot), self.shared.read(tail + HEADER_BYTES as u64, bytes)));
            tail += (HEADER_BYTES + bytes).next_multiple_of(HEADER_BYTES) as u64;
            self.shared.tail.store(tail, Ordering::Release);
            return true;
        }
    }
}

impl Shared {
    fn place(&self, position: u64) -> usize {
        self.distance(0, position % self.buffer.len() as u64)
    }

    /// How many bytes of the ring lie between two positions.
    fn distance(&self, from: u64, to: u64) -> usize {
        // No more than its size.
        usize::try_from(to - from).unwrap_or(self.buffer.len())
    }

    /// For the producer alone, outside of what is published.
    fn write(&self, position: u64, bytes: &[u8]) {
        let place = self.place(position);
        let room = &self.buffer[place..place + bytes.len()];
        // SAFETY: the source cannot overlap, since nobody else can have a reference into the producer's part.
        unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), UnsafeCell::raw_get(room.as_ptr()), room.len())
        };
    }

    /// For the consumer alone, within what is published and not taken.
    fn read(&self, position: u64, bytes: usize) -> &[u8] {
        let place = self.place(position);
        let range = &self.buffer[place..place + bytes];
        // SAFETY: the producer does not write here before the consumer has moved the tail.
        unsafe { std::slice::from_raw_parts(UnsafeCell::raw_get(range.as_ptr()), range.len()) }
    }

    fn record<'a>(&self, (kind, slot): (u16, u16), bytes: &'a [u8]) -> Record<'a> {
        match (kind, <[u8; 4]>::try_from(bytes)) {
            (FILE, Ok(number)) => {
                // SAFETY: the producer gave this descriptor up when it wrote the record, which is taken once.
                let file = unsafe { OwnedFd::from_raw_fd(RawFd::from_ne_bytes(number)) };
                Record::File { slot, file }
            }
            (CLOSE, _) => Record::Close { slot },
            _ => Record::Bytes { slot, bytes },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek, SeekFrom};

    use super::*;

    fn take(consumer: &mut Consumer) -> Option<(u16, Vec<u8>)> {
        let mut taken = None;
        consumer.take(|record| {
            if let Record::Bytes { slot, bytes } = record {
                taken = Some((slot, bytes.to_vec()));
            }
        });
        taken
    }

    #[test]
    fn what_is_put_for_one_slot_is_taken_as_one_record() {
        let (mut producer, mut consumer) = ring(256);
        assert!(producer.append(1, &[b"ab", b"c"]));
        assert!(producer.append(1, &[b"def"]));
        assert!(producer.append(2, &[b"x"]));
        assert_eq!(take(&mut consumer), None, "not published yet");
        assert!(producer.publish());
        assert!(!producer.publish());
        assert_eq!(take(&mut consumer), Some((1, b"abcdef".to_vec())));
        assert_eq!(take(&mut consumer), Some((2, b"x".to_vec())));
        assert_eq!(take(&mut consumer), None);
        assert_eq!(producer.taken(), producer.position());
    }

    #[test]
    fn a_full_ring_refuses_and_goes_on_when_it_was_read() {
        let (mut producer, mut consumer) = ring(64);
        assert!(producer.append(0, &[&[1; 40]]));
        assert!(!producer.append(1, &[&[2; 40]]));
        assert!(!producer.append(0, &[&[2; 40]]));
        producer.publish();
        assert_eq!(take(&mut consumer), Some((0, vec![1; 40])));
        assert!(producer.append(1, &[&[2; 40]]));
        producer.publish();
        assert_eq!(take(&mut consumer), Some((1, vec![2; 40])));
        assert!(!producer.append(1, &[&[2; 57]]), "longer than the ring");
    }

    #[test]
    fn little_traffic_stays_at_the_beginning() {
        let (mut producer, mut consumer) = ring(1024);
        for number in 0..100 {
            assert!(producer.append(0, &[&[number; 20]]));
            assert!(producer.shared.place(producer.position) <= 64 + 32);
            producer.publish();
            assert_eq!(take(&mut consumer), Some((0, vec![number; 20])));
        }
    }

    #[test]
    fn an_empty_ring_always_has_room() {
        let (mut producer, mut consumer) = ring(4096);
        for round in 0..500 {
            for _ in 0..round % 17 {
                producer.append(1, &[&[1; 9]]);
            }
            producer.publish();
            while consumer.take(|_| {}) {}
            let mut bytes = 0;
            while producer.append(0, &[&[2; 20]]) {
                bytes += 20;
            }
            assert!(bytes >= 4096 / 16 - 40, "{bytes} in round {round}");
            producer.publish();
            while consumer.take(|_| {}) {}
        }
    }

    #[test]
    fn a_file_is_handed_over_in_its_place() {
        let (mut producer, mut consumer) = ring(64);
        let mut file = tempfile::tempfile().unwrap();
        producer.append(3, &[b"before"]);
        producer.hand_over(3, file.try_clone().unwrap().into()).unwrap();
        for _ in 0..2 {
            assert!(producer.hand_over(3, file.try_clone().unwrap().into()).is_ok());
        }
        assert!(producer.hand_over(3, file.try_clone().unwrap().into()).is_err());
        assert!(!producer.finish(3));
        producer.publish();
        assert_eq!(take(&mut consumer), Some((3, b"before".to_vec())));
        consumer.take(|record| match record {
            Record::File { slot: 3, file } => {
                rustix::io::write(file, b"through").unwrap();
            }
            other => panic!("{other:?}"),
        });
        let mut text = String::new();
        file.seek(SeekFrom::Start(0)).unwrap();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "through");
        while consumer.take(|_| {}) {}
        assert!(producer.finish(3));
        producer.publish();
        assert!(consumer.take(|record| assert!(matches!(record, Record::Close { slot: 3 }))));
    }

    #[test]
    fn two_threads_agree_on_every_byte() {
        let (mut producer, mut consumer) = ring(512);
        let reader = std::thread::spawn(move || {
            let mut next = [0_u8; 2];
            let mut seen = 0;
            while seen < 100_000 {
                consumer.take(|record| {
                    let Record::Bytes { slot, bytes } = record else { panic!("{record:?}") };
                    for byte in bytes {
                        assert_eq!(*byte, next[usize::from(slot)]);
                        next[usize::from(slot)] = byte.wrapping_add(1);
                    }
                    seen += bytes.len();
                });
            }
        });
        let mut next = [0_u8; 2];
        let (mut sent, mut length, mut slot) = (0, 0_u8, 0_u16);
        while sent < 100_000 {
            length = (length + 1) % 97;
            slot = (slot + u16::from(length % 3 == 0)) % 2;
            let begin = &mut next[usize::from(slot)];
            let bytes: Vec<u8> = (0..=length).map(|i| begin.wrapping_add(i)).collect();
            if producer.append(slot, &[&bytes]) {
                *begin = begin.wrapping_add(length).wrapping_add(1);
                sent += bytes.len();
            }
            if length % 2 == 0 {
                producer.publish();
            }
        }
        producer.publish();
        reader.join().unwrap();
    }
}
